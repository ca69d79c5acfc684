import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.weights.formats import STORAGE, narrow_bfloat16, widen, widen_into

# Every bfloat16 there is, and the float32 it stands for
BITS = np.arange(2**16, dtype=np.uint16)
VALUES = widen(BITS, "BF16", np.float32)


@pytest.mark.parametrize(
    ("bits", "value"),
    [(0x3F80, 1), (0xC049, -3.140625), (0x0000, 0), (0x7F80, np.inf), (0x0001, 2.0**-133), (0x4170, 15)],
)
def test_known_bfloat16(bits: int, value: float) -> None:
    assert VALUES[bits] == value


@pytest.mark.parametrize(("name", "stored"), [("F16", "<f2"), ("F32", "<f4"), ("F64", "<f8")])
def test_widening_changes_no_value(name: str, stored: str) -> None:
    numbers = np.array([[1.5, -0.0009765625, 0], [65504, -3, 2**-14]], stored)
    for dtype in (np.float32, np.float64):
        wide = widen(numbers, name, dtype)
        assert wide.dtype == dtype
        np.testing.assert_array_equal(wide, numbers)


def test_what_has_the_type_already_is_not_copied() -> None:
    numbers = np.array([1, 2], np.float32)
    assert widen(numbers, "F32", np.float32) is numbers


@pytest.mark.parametrize("name", ["F16", "F32", "F64", "BF16"])
def test_into_an_array_go_the_same_numbers(name: str) -> None:
    stored = BITS if name == "BF16" else VALUES[np.abs(VALUES) < 65504].astype(STORAGE[name])
    out = np.zeros(len(stored), np.float32)
    widen_into(stored, name, out)
    np.testing.assert_array_equal(out.view(np.uint32), widen(stored, name, np.float32).view(np.uint32))


def test_every_bfloat16_comes_back() -> None:
    numbers = ~np.isnan(VALUES)
    np.testing.assert_array_equal(narrow_bfloat16(VALUES[numbers]), BITS[numbers])
    assert np.isnan(VALUES[narrow_bfloat16(VALUES[~numbers])]).all()
    in_low_bits = np.array([0x7F800001, 0xFF80FFFF, 0x7FFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(VALUES[narrow_bfloat16(in_low_bits)]).all()  # cut off, the first two would be infinite


def test_halves_go_to_even() -> None:
    step = 2.0**-7  # between bfloat16 numbers from 1 to 2
    x = np.array([1 + step / 2, 1 + 3 * step / 2, -1 - step / 2, 1 + step / 2 + 2**-23], np.float32)
    np.testing.assert_array_equal(VALUES[narrow_bfloat16(x)], [1, 1 + 2 * step, -1, 1 + step])


@given(st.floats(width=32, allow_nan=False, min_value=-(2.0**127), max_value=2.0**127))
def test_no_bfloat16_is_nearer(x: float) -> None:
    finite = np.isfinite(VALUES)
    nearest = np.abs(VALUES[finite].astype(np.float64) - x).min()
    assert abs(float(VALUES[narrow_bfloat16(np.array([x], np.float32))[0]]) - x) == nearest
