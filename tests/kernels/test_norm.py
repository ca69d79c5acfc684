from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from minillama.arrays import Array
from minillama.kernels import norm
from minillama.kernels.llvm import LANES
from minillama.layout import rounded_up
from minillama.model.norm import rms_norm
from tests.kernels.products import STEP
from tests.tiny import SEEDS, spiky


@njit
def _rms_norm(x: Any, i: int, weight: Any, width: int, size: int, eps: float, out: Any, o: int) -> None:
    norm.rms_norm(x, i, weight, width, size, eps, out, o)


def normed(x: Array, weight: Array, eps: float) -> Array:
    """By the kernel: a row in the middle of an array, into the middle of another, which is as it was around it."""
    width = rounded_up(len(x), LANES)
    rows, weights = np.full(width + 32, np.nan, np.float32), np.zeros(width, np.float32)
    rows[16 : 16 + width] = 0
    rows[16 : 16 + len(x)], weights[: len(x)] = x, weight
    out = np.full(width + 40, np.nan, np.float32)
    _rms_norm(rows, 16, weights, width, len(x), eps, out, 8)
    assert (np.isnan(out[:8]).all(), np.isnan(out[8 + width :]).all()) == (True, True)
    if np.isfinite(x).all():
        np.testing.assert_array_equal(out[8 + len(x) : 8 + width], 0)
    return out[8 : 8 + len(x)]


def assert_normed(x: Array, weight: Array, eps: float) -> None:
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    exact = rms_norm(x.astype(np.float64), weight.astype(np.float64), eps)
    # The sum of squares rounds once for each of the size / 16 numbers of a lane and four times more; of that the root
    # passes on half. The scale and two products round once each.
    steps = (rounded_up(len(x), LANES) / LANES + 4) / 2 + 3
    np.testing.assert_allclose(normed(x, weight, eps), exact, rtol=1.001 * steps * STEP, atol=1e-44)


@given(SEEDS, st.integers(1, 70), st.sampled_from([1e-5, 1e-6, 1.0]))
@settings(max_examples=20)
def test_the_norm_of_model_norm(seed: int, size: int, eps: float) -> None:
    rng = np.random.default_rng(seed)
    assert_normed(spiky(rng, size), spiky(rng, size), eps)


@pytest.mark.parametrize("size", [1, 16, 33, 4096])
def test_rows_far_out_tiny_and_zero(size: int) -> None:
    rng = np.random.default_rng(51)
    weight, x = spiky(rng, size), rng.standard_normal(size)
    np.testing.assert_array_equal(normed(np.zeros(size), weight, 1e-6), 0)
    assert_normed(x * 1e15, weight, 1e-6)  # squares that float32 still has
    assert_normed(x * 1e-42, weight, 1e-6)
    x[size // 2] = 1e6
    assert_normed(x, weight, 1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows(bad: float) -> None:
    x = np.ones(20)
    x[18] = bad
    out = normed(x, np.ones(20), 1e-6)
    assert np.isnan(out[18])
    assert not (out == 1).any()
