from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from minillama.kernels import blocks, simd
from minillama.kernels.llvm import LANES


def _sums_stored(count: int, rows: int) -> Any:
    @njit
    def stored(x: Any, out: Any, step: int) -> None:
        blocks.store_sums(out, 0, 1, step, blocks.load_block(x, 0, LANES, count), rows)

    return stored


@njit
def _sum_of(x: Any) -> float:
    return simd.sum_of(simd.load(x, 0))


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4)])
def test_stored_sums_have_the_bits_of_single_ones(count: int, rows: int) -> None:
    stored, rng = _sums_stored(count, rows), np.random.default_rng(31)
    for _ in range(20):
        x = (rng.standard_normal(16 * count) * 10.0 ** rng.integers(-20, 20, 16 * count)).astype(np.float32)
        out = np.full((rows, 24), np.nan, np.float32)
        stored(x, out.reshape(-1), 24)
        one_by_one = np.array([_sum_of(part) for part in x.reshape(-1, 16)], np.float32)
        np.testing.assert_array_equal(out[:, : count // rows], one_by_one.reshape(-1, rows).T)
        assert np.isnan(out[:, count // rows :]).all()
