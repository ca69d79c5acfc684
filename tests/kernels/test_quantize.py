"""Weights in groups with a scale: beside ggml's own definitions, group by group. (Activations: see test_linear.py.)"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.kernels.floats import FLOAT_ROWS
from minillama.kernels.linear import ROWS, block_rows
from minillama.layout import GROUP, MADE, QUANTIZED, TILE, WHOLE, rounded_up, terms_of
from minillama.runtime.packing import quantize
from minillama.weights.quantized import QuantizedTensor
from minillama.weights.safetensors import ArrayTensor
from tests.kernels.products import arranged, rounded
from tests.tiny import SEEDS, spiky

SHAPES = [(1, 32), (16, 32), (3, 5), (17, 33), (40, 96), (16, 31), (33, 100)]


def by_ggml(x: Array, form: str) -> tuple[Array, Array]:
    """The whole numbers and float16 scales of groups (n, 32) by quantize_row_q8_0_ref and quantize_row_q4_0_ref, line
    by line in float32. The numbers are those that the scale multiplies, without an offset."""
    x = x.astype(np.float32)
    if form == "q8_0":
        d = np.abs(x).max(axis=1) / np.float32(127)
        scaled = (x * one_over(d)[:, None]).astype(np.float64)  # so that adding 0.5 is exact
        q = np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)  # roundf: halves away from 0
    else:
        most = x[np.arange(len(x)), np.abs(x).argmax(axis=1)]  # the first of those furthest out, with its sign
        d = most / np.float32(-8)
        q = np.minimum(15, np.trunc(x * one_over(d)[:, None] + np.float32(8.5))) - 8
    return q.astype(np.int64), d.astype(np.float16)


def one_over(d: Array) -> Array:
    """In float32; 0 for 0, and where it would be infinite: such a scale is 0 as float16, whatever it multiplies."""
    some = np.abs(d) > 1e-38
    return np.divide(1, d, out=np.zeros_like(d), where=some, dtype=np.float32)


def quantized(x: Array, form: str, **options: Any) -> QuantizedTensor:
    return quantize(ArrayTensor(x.astype(np.float32)), form, **options)


def groups_of(x: Array) -> Array:
    """Rows, filled up with zeros, as groups of columns (n, 32)."""
    padded = np.zeros((len(x), rounded_up(x.shape[1], GROUP)), x.dtype)
    padded[:, : x.shape[1]] = x
    return padded.reshape(-1, GROUP)


def stored_numbers(tensor: QuantizedTensor) -> tuple[Array, Array]:
    """The whole numbers (n, 32) and scales (n,) of all groups of a matrix, read byte by byte as layout.py says."""
    n_out, groups = tensor.shape[0], rounded_up(tensor.shape[1], GROUP) // GROUP
    numbers, scales = np.empty((n_out, groups, GROUP), np.int64), np.empty((n_out, groups), np.float16)
    for i, g in np.ndindex(n_out, groups):
        tile, row = divmod(i, TILE)
        place = tile * groups + g
        scales[i, g] = tensor.scales[place * TILE + row]
        for k in range(GROUP):
            if tensor.form == "q8_0":
                numbers[i, g, k] = tensor.numbers[((place * 8 + k // 4) * TILE + row) * 4 + k % 4]
            else:
                byte = tensor.numbers[((place * 4 + k % 16 // 4) * TILE + row) * 4 + k % 4]
                numbers[i, g, k] = byte >> 4 if k >= 16 else byte & 15
    return (numbers - WHOLE[tensor.form].offset).reshape(-1, GROUP), scales.reshape(-1)


def squared_errors(x: Array, numbers: Array, scales: Array) -> Array:
    """Of each group, in float64."""
    return ((x - numbers * scales[:, None].astype(np.float64)) ** 2).sum(axis=1)


def hard(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """A matrix of groups of every kind: of many sizes, with one number far out, few values, ties, denormal and zero."""
    x = groups_of(rng.standard_normal(shape))
    kind = rng.integers(0, 8, len(x))
    x *= 2.0 ** rng.integers(-6, 6, (len(x), 1))
    x[kind == 1, 7] *= 1e3
    x[kind == 2] = 0
    x[kind == 3] *= 1e-40
    x[kind == 4] = rng.choice([-1, 1], x.shape)[kind == 4]  # the largest number with both signs
    x[kind == 5] = rng.integers(-8, 9, x.shape)[kind == 5] / 2  # halves of a scale
    x[kind == 6] *= 1e-6 / np.abs(x[kind == 6]).max(axis=1, keepdims=True)  # scales that float16 has few bits for
    x = x.reshape(shape[0], -1)[:, : shape[1]]
    return x.astype(np.float32)


@pytest.mark.parametrize("form", MADE)
@given(SEEDS, st.sampled_from(SHAPES))
@settings(max_examples=15)
def test_without_a_search_the_numbers_are_ggmls(form: str, seed: int, shape: tuple[int, int]) -> None:
    x = hard(np.random.default_rng(seed), shape)
    tensor = quantized(x, form, search=False)
    numbers, scales = stored_numbers(tensor)
    theirs, their_scales = by_ggml(groups_of(x), form)
    np.testing.assert_array_equal(scales, their_scales)
    some = their_scales != 0  # else the numbers mean nothing: ggml divides 1 by a denormal number
    np.testing.assert_array_equal(numbers[some], theirs[some])
    read = (numbers * scales[:, None].astype(np.float32)).reshape(len(x), -1)[:, : x.shape[1]]
    np.testing.assert_array_equal(tensor.read(np.float32), read)


def test_known_numbers() -> None:
    """Worked out by hand from the definitions."""
    x = np.zeros((1, 32), np.float32)
    x[0, :6] = [127, -127, 2.5, -2.5, 0.49, 1]
    numbers, scales = stored_numbers(quantized(x, "q8_0"))
    assert (scales[0], numbers[0, :7].tolist()) == (1, [127, -127, 3, -3, 0, 1, 0])
    x[0, :6] = [-16, 14, 15, 16, 1, -1]
    numbers, scales = stored_numbers(quantized(x, "q4_0", search=False))
    assert (scales[0], numbers[0, :7].tolist()) == (2, [-8, 7, 7, 7, 1, 0, 0])  # 7.5 and 8 do not fit, 0.5 goes up


@given(SEEDS, st.sampled_from(SHAPES))
@settings(max_examples=15)
def test_a_search_is_no_worse_in_any_group(seed: int, shape: tuple[int, int]) -> None:
    x = hard(np.random.default_rng(seed), shape)
    groups = groups_of(x).astype(np.float64)
    ours = squared_errors(groups, *stored_numbers(quantized(x, "q4_0")))
    ggmls = squared_errors(groups, *by_ggml(groups, "q4_0"))
    # The search compares errors that are summed in float32: 32 terms, of numbers that are differences
    assert (ours <= ggmls * (1 + 1e-5)).all()


def test_a_search_is_worth_it() -> None:
    x = spiky(np.random.default_rng(41), 64, 256)
    found, ggmls = quantized(x, "q4_0").made.error, quantized(x, "q4_0", search=False).made.error
    assert found < 0.98 * ggmls


@pytest.mark.parametrize("form", MADE)
@given(SEEDS, st.sampled_from(SHAPES))
@settings(max_examples=10)
def test_the_recorded_error_is_that_of_the_matrix(form: str, seed: int, shape: tuple[int, int]) -> None:
    x = hard(np.random.default_rng(seed), shape).astype(np.float32)
    x[0, 0] += 1
    tensor = quantized(x, form)
    left = tensor.read(np.float64) - x
    assert tensor.made is not None
    norm = np.sqrt((x.astype(np.float64) ** 2).sum())
    # Both are summed in float64, some thousand terms at most, each off by 1e-16
    assert tensor.made.error * norm == pytest.approx(np.sqrt((left**2).sum()), rel=1e-12)


@pytest.mark.parametrize("form", MADE)
@pytest.mark.parametrize("size", [1e-18, 3e-8, 0.0])
def test_what_is_too_small_for_float16_becomes_zero(form: str, size: float) -> None:
    x = np.random.default_rng(42).choice([-size, 0, size], (5, 70)).astype(np.float32)
    tensor = quantized(x, form)
    np.testing.assert_array_equal(tensor.read(np.float64), 0)
    assert tensor.made is not None
    assert tensor.made.error == (0 if size == 0 else pytest.approx(1, abs=1e-6))  # all of it, squared in float32


@pytest.mark.parametrize("form", MADE)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (0, 99), (32, 99), (16, 31), (7, 64)])
def test_what_is_not_finite_is_refused(form: str, bad: float, place: tuple[int, int]) -> None:
    x = np.random.default_rng(43).standard_normal((33, 100))
    x[place] = bad
    with pytest.raises(ValueError, match="NaN or an infinite number"):
        quantized(x, form)


@pytest.mark.parametrize("form", MADE)
def test_denormal_numbers_become_zero(form: str) -> None:
    x = np.random.default_rng(42).choice([-1e-39, 0, 1e-44], (5, 70))
    np.testing.assert_array_equal(quantized(x, form).read(np.float64), 0)


@pytest.mark.parametrize("form", MADE)
@pytest.mark.parametrize("count", [1, 32])
def test_what_no_float16_scale_reaches_is_told_as_that(form: str, count: int) -> None:
    x = np.zeros((1, 32))
    x[0, :count] = 1e7
    with pytest.raises(ValueError, match="too large"):
        quantized(x, form)


@pytest.mark.parametrize("form", MADE)
def test_rows_and_columns_are_filled_up_with_zeros(form: str) -> None:
    tensor = quantized(np.ones((3, 5)), form)
    scales = tensor.scales.reshape(-1, TILE)
    assert (scales[:, :3] != 0).all()
    assert (scales[:, 3:] == 0).all()
    numbers, _ = stored_numbers(tensor)
    assert (numbers[:, 5:] == 0).all()


@pytest.mark.parametrize("form", MADE)
@pytest.mark.parametrize("search", [True, False])
def test_a_large_matrix_by_any_number_of_threads(form: str, search: bool) -> None:
    """More tiles than are done at a time."""
    x = spiky(np.random.default_rng(44), 1030, 3000)
    done: list[int] = []
    one = quantized(x, form, search=search)
    three = quantized(x, form, threads=3, search=search, progress=done.append)
    np.testing.assert_array_equal(one.numbers, three.numbers)
    np.testing.assert_array_equal(one.scales.view(np.int16), three.scales.view(np.int16))
    assert one.made is not None
    assert three.made is not None
    assert one.made[1:] == three.made[1:]  # the sums are added up in the order of the tiles
    assert (len(done) > 3, sum(done)) == (True, x.size)
    # Half a step of the scale: 1 / 254 of the largest number of a group or, the one sign having 7 only, 1 / 8
    worst = np.abs(groups_of(three.read(np.float64) - x)).max(axis=1) / np.abs(groups_of(x)).max(axis=1)
    # float16 scales are off by 2 ** -11 besides, that is 127 * 2 ** -11 of a step; a search may give up far ones
    assert worst.max() <= (0.0045 if form == "q8_0" else 0.3 if search else 0.126)


# -- activations --------------------------------------------------------------------------------------------------


def test_rows_of_a_block() -> None:
    assert (block_rows(True, 1), block_rows(False, 1)) == (1, 1)
    assert (block_rows(True, 2), block_rows(False, 300)) == (ROWS, FLOAT_ROWS)


@pytest.mark.parametrize("forms", [*((form,) for form in QUANTIZED), ("q8_0", "q4_k"), QUANTIZED])
@given(SEEDS, st.sampled_from([1, 2, 7, 8, 9]), st.integers(1, 5))
@settings(max_examples=10)
def test_activations_are_rounded_as_numpy_rounds_them(
    forms: tuple[str, ...], seed: int, n_rows: int, groups: int
) -> None:
    rng = np.random.default_rng(seed)
    x = (spiky(rng, n_rows, GROUP * groups) * 10.0 ** rng.integers(-12, 12, (n_rows, 1))).astype(np.float32)
    x[0, :GROUP] = 0
    a, s, z, count = arranged(forms, x)
    rows, terms = block_rows(True, n_rows), terms_of(forms)
    assert count == len(terms)
    q, scales = rounded(x)
    for row, g in np.ndindex(n_rows, groups):
        block, r = divmod(row, rows)
        group = block * groups + g
        assert s[group * rows + r] == scales[row, g]
        own = q[row, g * GROUP : (g + 1) * GROUP]
        low, high = int(own[:16].sum()), int(own[16:].sum())
        wanted = {
            "128 sums": -128 * (low + high), "8 sums": -8 * (low + high), "16 sums": -16 * (low + high),
            "32 low sums": -32 * low, "32 high sums": -32 * high,
            "scaled sum": int((scales[row, g] * np.float32(low + high)).view(np.int32)),
        }  # fmt: skip
        found = {term: int(z[(group * count + t) * rows + r]) for t, term in enumerate(terms)}
        assert found == {term: wanted[term] for term in terms}
        begin = group * GROUP * rows + 4 * r
        np.testing.assert_array_equal(a[begin + 4 * rows * np.arange(8)[:, None] + np.arange(4)], own.reshape(8, 4))
    # Half a step of a scale, which is 1 / 127 of the largest number, and some roundings of float32
    wide = q.reshape(n_rows, groups, GROUP) * scales[..., None].astype(np.float64)
    off = np.abs(wide - x.reshape(wide.shape))
    assert (off <= np.abs(x).reshape(wide.shape).max(axis=-1, keepdims=True) * (1 / 254 + 1e-6)).all()


@pytest.mark.parametrize("form", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_activations_for_floats_are_interleaved_as_they_are(form: str, n_rows: int) -> None:
    x = np.random.default_rng(45).standard_normal((n_rows, 48)).astype(np.float32)
    a = arranged((form,), x).a
    rows = block_rows(False, n_rows)
    blocks = a.reshape(-1, 3, rows, 16).swapaxes(1, 2).reshape(-1, 48)
    np.testing.assert_array_equal(blocks[:n_rows], x)
    assert np.isnan(blocks[n_rows:]).all()
