"""How far arrays are apart, in every measure."""

from __future__ import annotations

import numpy as np
import pytest

from minillama.debug.errors import TOLERANCES, Tolerance, excess, format_of, measure
from minillama.weights.formats import narrow_bfloat16, widen

F32 = TOLERANCES["f32"]


def test_the_measures_of_two_rows() -> None:
    a = np.array([[3.0, 4.0], [1e-3, 1e-3]])
    b = a + np.array([[0, 0.5], [1e-4, 0]])
    error = measure(a, b, Tolerance("f32", 0.1, 0))
    assert error.largest == 0.5
    assert error.relative == pytest.approx(0.125)  # 0.5 of 4, above the row's 3.54; 1e-4 of 1e-3 is less
    assert error.worst == pytest.approx(1.25)
    assert error.ulp == pytest.approx(0.5 / 2**-21)  # numbers of 4 to 8 lie 2^-21 apart
    assert error.cosine == pytest.approx(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_more_is_allowed_the_more_layers_lie_before() -> None:
    assert F32.after(0) == F32
    assert F32.after(8).rtol == pytest.approx(3 * F32.rtol)
    assert F32._replace(grows=False).after(8).rtol == F32.rtol


def test_small_numbers_are_measured_by_their_row() -> None:
    a = np.array([[1.0, 1e-9]])
    assert excess(a, a + np.array([[0, 1e-6]]), F32).max() < 1
    assert excess(a[:, 1:], a[:, 1:] + 1e-6, F32).max() > 1


def test_what_is_not_finite() -> None:
    a = np.array([[1.0, np.nan, np.inf, -np.inf, 2.0]])
    assert excess(a, a, F32).max() == 0
    assert np.isinf(excess(np.ones((1, 4)), np.array([[np.nan, np.inf, -np.inf, 1]]), F32)).tolist() == [
        [True, True, True, False]
    ]
    assert measure(np.ones((1, 2)), np.array([[1, np.nan]]), F32).worst == np.inf


@pytest.mark.parametrize("form", ["f64", "f32", "f16", "bf16"])
def test_the_format_is_that_of_most(form: str) -> None:
    rng = np.random.default_rng(0)
    wide = [rng.standard_normal((3, 50)) for _ in range(5)]
    rounded = {
        "f64": lambda x: x,
        "f32": lambda x: x.astype(np.float32),
        "f16": lambda x: x.astype(np.float16),
        "bf16": lambda x: widen(narrow_bfloat16(x), "BF16", np.float64),
    }
    arrays = [rounded[form](x) for x in wide]
    assert format_of(arrays) == form
    stored_wider = [np.asarray(x, np.float32) for x in arrays] if form != "f64" else arrays
    assert format_of(stored_wider) == form
    assert format_of([*arrays[:3], wide[3], wide[4]]) == form  # two others do not decide


def test_what_any_format_has_says_nothing_of_the_format() -> None:
    """Runs that end in NaN are measured by what they were before."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((3, 50)).astype(np.float32)
    spoilt = [np.full((3, 50), value, np.float32) for value in (np.nan, np.inf, 0)]
    assert format_of([numbers, *spoilt, *spoilt, np.zeros((0, 50), np.float32)]) == "f32"
    assert format_of(spoilt) == "f32"
    rounded = np.where(rng.random((3, 50)) < 0.1, np.nan, numbers.astype(np.float16))
    assert format_of([rounded]) == "f16"


def test_tolerances_are_in_the_order_of_the_formats() -> None:
    rtols = [TOLERANCES[form].rtol for form in ("f64", "f32", "f16", "bf16")]
    assert rtols == sorted(rtols)
    assert all(form == tolerance.form for form, tolerance in TOLERANCES.items())
