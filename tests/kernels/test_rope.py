from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from minillama.arrays import Array
from minillama.kernels import rope
from minillama.model.rope import Rotary, rotate
from tests.kernels.products import STEP
from tests.tiny import ROPES, SEEDS, spiky, tiny_config


@njit
def _rotate(x: Any, i: int, heads: int, head_dim: int, cos: Any, sin: Any, c: int) -> None:
    rope.rotate(x, i, heads, head_dim, cos, sin, c)


@pytest.mark.parametrize("kind", ROPES)
@given(SEEDS, st.integers(1, 5), st.integers(0, 100_000))
@settings(max_examples=10)
def test_every_head_is_turned_as_in_model_rope(kind: str, seed: int, heads: int, position: int) -> None:
    config = tiny_config(**ROPES[kind])
    K, rotary, positions = config.head_dim, Rotary(config), np.array([[position]])
    inv_freq = rotary.inv_freq(positions, position + 1).reshape(-1)
    cos, sin = rotary.angles(positions, inv_freq, np.float32)  # (1, 1, K / 2)
    assert_turned(spiky(np.random.default_rng(seed), heads * K), heads, cos, sin)


def assert_turned(x: Array, heads: int, cos: Array, sin: Array) -> None:
    """One row of heads, by the angles (1, 1, K / 2), as in model/rope.py."""
    x, K = x.astype(np.float32), 2 * cos.shape[-1]
    row = np.full(heads * K + 8, np.nan, np.float32)
    row[3 : 3 + heads * K] = x
    angles = [np.concatenate((np.full(5, np.nan, np.float32), a.reshape(-1))) for a in (cos, sin)]
    _rotate(row, 3, heads, K, *angles, 5)

    wide = x.astype(np.float64).reshape(1, heads, 1, K)
    exact = rotate(wide, cos.astype(np.float64), sin.astype(np.float64))
    pairs = np.abs(wide)
    room = rotate(pairs, np.abs(cos).astype(np.float64), -np.abs(sin).astype(np.float64))  # |a cos| + |b sin|
    room[..., K // 2 :] = rotate(pairs, np.abs(cos).astype(np.float64), np.abs(sin).astype(np.float64))[..., K // 2 :]
    # Each product rounds once, and so does their sum or difference; numbers below 1e-38 at 1e-45
    off = np.abs(row[3 : 3 + heads * K].reshape(exact.shape) - exact)
    assert (off <= 2.001 * STEP * room + 3e-45).all()
    assert (np.isnan(row[:3]).all(), np.isnan(row[-5:]).all()) == (True, True)


@pytest.mark.parametrize("K", [2, 6, 18, 64])
@pytest.mark.parametrize("size", [0, 1e-42, 1e30])
def test_heads_of_zeros_tiny_ones_and_one_number_far_out(K: int, size: float) -> None:
    rng = np.random.default_rng(56)
    theta, x = rng.uniform(0, 1000, (1, 1, K // 2)), rng.standard_normal(3 * K)
    x[:K] *= size
    x[-1] *= size
    assert_turned(x, 3, np.cos(theta).astype(np.float32), np.sin(theta).astype(np.float32))


def test_a_quarter_turn() -> None:
    row = np.array([1, 2, 3, 4, 5, 6, 7, 8], np.float32)  # two heads of two pairs
    _rotate(row, 0, 2, 4, np.array([0, 1], np.float32), np.array([1, 0], np.float32), 0)
    np.testing.assert_array_equal(row, [-3, 2, 1, 4, -7, 6, 5, 8])
