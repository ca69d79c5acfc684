from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from minillama.arrays import Array
from minillama.kernels import blocks, simd
from minillama.kernels.llvm import LANES


def _sums_stored(count: int, rows: int) -> Any:
    @njit
    def stored(x: Any, out: Any, step: int) -> None:
        blocks.store_sums(out, 0, 1, step, blocks.load_block(x, 0, LANES, count), rows)

    return stored


def _dots(vectors: int, rows: int) -> Any:
    count = vectors * rows

    @njit
    def dots(w: Any, step: int, a: Any, begin: Any, out: Any) -> None:
        ints = blocks.dot_group(blocks.splat_ints(begin, 0, count, rows), w, 0, step, a, 0, rows)
        ones = np.ones(16 * count, np.float32)
        sums = blocks.add_products(blocks.zeros(count), ints, ones, 0, LANES, ones, 0, rows)
        blocks.store_block(out, 0, LANES * rows, LANES, sums, rows)

    return dots


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


def unpacked(w: Array) -> Array:
    """Stored weights (vectors, bytes of a group) as (vectors, 16 rows, 32 columns)."""
    if w.dtype == np.int8:
        halves = w.view(np.uint8).reshape(len(w), 4, 16, 4)
        parts = np.concatenate((halves & 15, halves >> 4), axis=1)
    else:
        parts = w.reshape(len(w), 8, 16, 4)
    return parts.transpose(0, 2, 1, 3).reshape(len(w), 16, 32).astype(np.int64)


DOTS = {(1, 1): _dots(1, 1), (4, 1): _dots(4, 1), (1, 3): _dots(1, 3)}


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize(("vectors", "rows"), DOTS)
def test_dots_of_bytes_are_exact(kind: Any, vectors: int, rows: int) -> None:
    rng = np.random.default_rng(33)
    size = 512 if kind is np.uint8 else 256
    weights = [[0], [255], [0, 255], [127, 128], range(256)]
    for choice in [(w, a) for w in weights for a in ([-128], [127], [-128, 127], [0], range(-128, 128))]:
        w = rng.choice(np.array(choice[0], np.uint8), (vectors, size)).view(kind)
        a = rng.choice(np.array(choice[1], np.int8), (rows, 32))
        begin = rng.integers(-(2**22), 2**22, rows).astype(np.int32)
        step = size + 64  # what lies between is not read
        stored = np.full((vectors, step), 99, np.uint8).view(kind)
        stored[:, :size] = w
        arranged = np.ascontiguousarray(a.reshape(rows, 8, 4).swapaxes(0, 1))
        out = np.empty((vectors, rows, 16), np.float32)
        DOTS[vectors, rows](stored.reshape(-1), step, arranged.reshape(-1), begin, out.reshape(-1))
        exact = np.einsum("vnk,rk->vrn", unpacked(w), a.astype(np.int64)) + begin[:, None]
        np.testing.assert_array_equal(out, exact)  # below 2 ** 24: float32 has them all
