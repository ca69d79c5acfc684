"""Attention over a cache that is laid out for it (the twin of model/attention.py), never forming a T x S matrix.

Of each key/value head of a layer the cache holds, in float16, bfloat16 or float32,

    keys    [S / 16][K][16]: tiles of 16 positions, so that one number of the query times 16 keys is one operation and
            a score needs no sum across lanes; as many as there are in whole blocks of 64 positions;
    values  [S][K, rounded up to a multiple of 16].

A task is one key/value head of one sequence and some of its tokens: all their query heads read the same keys and
values, in blocks of QUERIES rows. The blocks that the heads of one token are take each block of keys in turn, so that a
decoded token reads the cache once. Keys come 64 at a time, with a running maximum and sum (Milakov and Gimelshein 2018;
Dao et al. 2022, FlashAttention): the blocks begin at the same positions for every query, and what it may not see adds
exact zeros, so its result does not depend on what is computed beside it.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit

from minillama.kernels.blocks import add_scaled, load_block, store_block, zeros
from minillama.kernels.llvm import LANES, WIDE, inner
from minillama.kernels.simd import exp, first, largest, load, maximum, prefetch, splat, store, sum_of, where_set

KEYS = 64  # at a time
TILES = KEYS // LANES
QUERIES = 8 if WIDE else 2
LOWEST = -3.0e38  # above -inf, so that a row without keys has a maximum that can be taken off


@njit
def block_room(head_dim: int) -> int:
    """Floats for a block of rows: queries, scores, maxima, totals and sums."""
    return QUERIES * (head_dim + KEYS + 2 * LANES + (head_dim + LANES - 1) // LANES * LANES)


@njit
def rows_together(heads: int) -> int:
    """Rows that are taken through the keys side by side: whole blocks, with room for all `heads` of one token."""
    return (heads + QUERIES - 1) // QUERIES * QUERIES


def own_room(head_dim: int, heads: int) -> int:
    """How many floats of its own a thread needs, for so many query heads of a key/value head."""
    return int(rows_together(heads) // QUERIES * block_room(head_dim))


@inner
def nothing(x: Any, i: int, size: int) -> float:
    """0; but NaN if a number of x[i : i + size] is infinite or none: a query that has no weights because of that must
    not pass for one that sees no key."""
    none = 0.0
    for k in range(i, i + size):
        none += x[k] * 0
    return none


def _steps(rows: int) -> Any:
    """Of attention for a block of `rows` query rows, which share a key/value head, the three steps: what comes before
    the first keys, a block of keys and values, and what comes after the last. A block of rows has own[room:]."""

    side = TILES if rows == 1 else 2  # tiles of keys, or vectors of values, that share what is read of the rows
    n = side * rows

    @inner
    def places(room: int, head_dim: int) -> tuple[int, int, int, int]:
        """Where scores, maxima, totals and sums are, behind the queries."""
        scores = room + rows * head_dim
        peaks = scores + rows * KEYS
        totals = peaks + rows * LANES
        return scores, peaks, totals, totals + rows * LANES

    @inner
    def begin(
        q: Any, first_row: int, row_step: int, head: int, heads: int, row: int, last: int, head_dim: int,
        own: Any, room: int,
    ) -> None:  # fmt: skip
        _, peaks, totals, sums = places(room, head_dim)
        scale = 1 / math.sqrt(head_dim)
        for r in range(rows):  # the queries, interleaved; behind the last one, some row again
            token, h = divmod(min(row + r, last - 1), heads)
            i = (first_row + token) * row_step + (head * heads + h) * head_dim
            for k in range(head_dim):
                own[room + k * rows + r] = q[i + k] * scale
            own[peaks + r] = LOWEST
            store(own, totals + r * LANES, splat(0.0))
        for k in range(0, (head_dim + LANES - 1) // LANES * LANES * rows, LANES):
            store(own, sums + k, splat(0.0))

    @inner
    def plain_scores(keys: Any, i: int, more: int, head_dim: int, own: Any, room: int, scores: int) -> None:
        """Of `side` tiles of keys from keys[i] on. Those `more` places on are asked for."""
        block = zeros(n)
        for k in range(head_dim):
            for m in range(side):
                prefetch(keys, i + (m * LANES + more) * head_dim + k * LANES, 0)
            xs = load_block(keys, i + k * LANES, head_dim * LANES, side)
            block = add_scaled(block, xs, own, room + k * rows, 1)
        store_block(own, scores, LANES, KEYS, block, rows)

    @inner
    def turned_scores(
        keys: Any, i: int, cos: Any, sin: Any, c: int, head_dim: int, own: Any, room: int, scores: int
    ) -> None:
        """Of the tile of keys from keys[i] on, which are turned first."""
        block, half = zeros(rows), head_dim // 2
        for k in range(half):
            a, b = load(keys, i + k * LANES), load(keys, i + (k + half) * LANES)
            x, y = load(cos, c + k * LANES), load(sin, c + k * LANES)
            block = add_scaled(block, a * x - b * y, own, room + k * rows, 1)
            block = add_scaled(block, b * x + a * y, own, room + (k + half) * rows, 1)
        store_block(own, scores, KEYS, KEYS, block, 1)

    def values_of(vectors: int) -> Any:
        size = vectors * rows

        @inner
        def add(values: Any, i: int, more: int, count: int, width: int, own: Any, weights: int, sums: int) -> None:
            """Add `count` weighted values to the sums: of each, so many vectors, the first of them from values[i] on.
            Those `more` places on are asked for."""
            block = load_block(own, sums, LANES, size)
            for s in range(count):
                for m in range(0, vectors, 2):  # two vectors in 16 bits are a line of the cache
                    prefetch(values, i + (s + more) * width + m * LANES, 0)
                block = add_scaled(block, load_block(values, i + s * width, LANES, vectors), own, weights + s, KEYS)
            store_block(own, sums, LANES, LANES, block, 1)

        return add

    several_vectors, one_vector = values_of(side), values_of(1)

    @inner
    def see(
        start: int, heads: int, row: int, last: int, head_dim: int, past: int, keys: Any, k_start: int,
        values: Any, v_start: int, flags: Any, f_start: int, masked: bool, cos: Any, sin: Any, turned: bool,
        own: Any, room: int,
    ) -> None:  # fmt: skip
        """The KEYS keys from `start` on, of which the rows may see fewer, or none."""
        visible = past + (min(row + rows, last) - 1) // heads + 1  # keys that the last row sees
        if start >= visible:
            return
        scores, peaks, totals, sums = places(room, head_dim)
        width = (head_dim + LANES - 1) // LANES * LANES
        tiles = min(TILES, (visible - start + LANES - 1) // LANES)
        more = KEYS if start + KEYS < visible else 0  # where the next block is, if there is one
        if turned:
            for tile in range(tiles):
                i, c = start + tile * LANES, (start + tile * LANES) * (head_dim // 2)
                turned_scores(keys, k_start + i * head_dim, cos, sin, c, head_dim, own, room, scores + tile * LANES)
        else:
            for tile in range(0, tiles, side):
                i = k_start + (start + tile * LANES) * head_dim
                plain_scores(keys, i, more, head_dim, own, room, scores + tile * LANES)
        for r in range(rows):
            count = past + (row + r) // heads + 1 - start  # of these keys this row sees so many
            base = scores + r * KEYS
            top = splat(own[peaks + r])
            for tile in range(tiles):
                x = load(own, base + tile * LANES)
                if count < (tile + 1) * LANES:
                    x = first(x, count - tile * LANES, splat(-math.inf))
                if masked:
                    x = where_set(flags, f_start + start + tile * LANES, x, splat(-math.inf))
                store(own, base + tile * LANES, x)
                top = maximum(top, x)
            peak = largest(top)
            shrink = exp(splat(own[peaks + r]) - splat(peak))
            own[peaks + r] = peak
            total = load(own, totals + r * LANES) * shrink
            for tile in range(tiles):
                p = exp(load(own, base + tile * LANES) - splat(peak))
                store(own, base + tile * LANES, p)
                total = total + p
            store(own, totals + r * LANES, total)
            for k in range(0, width, LANES):
                i = sums + k * rows + r * LANES
                store(own, i, load(own, i) * shrink)
        i, count, k = v_start + start * width, min(KEYS, visible - start), 0
        while k + side * LANES <= width:
            several_vectors(values, i + k, more, count, width, own, scores, sums + k * rows)
            k += side * LANES
        while k < width:
            one_vector(values, i + k, more, count, width, own, scores, sums + k * rows)
            k += LANES

    @inner
    def end(
        q: Any, first_row: int, row_step: int, head: int, heads: int, row: int, last: int, head_dim: int,
        own: Any, room: int, out: Any, out_step: int,
    ) -> None:  # fmt: skip
        _, _, totals, sums = places(room, head_dim)
        for r in range(min(rows, last - row)):
            token, h = divmod(row + r, heads)
            total = sum_of(load(own, totals + r * LANES))
            i = (first_row + token) * row_step + (head * heads + h) * head_dim
            inverse = splat(1 / total if total != 0 else nothing(q, i, head_dim))
            i = (first_row + token) * out_step + (head * heads + h) * head_dim
            for k in range(0, head_dim, LANES):
                x = load(own, sums + k * rows + r * LANES) * inverse
                if k + LANES <= head_dim:
                    store(out, i + k, x)
                else:
                    store(own, room, x)
                    for rest in range(head_dim - k):
                        out[i + k + rest] = own[room + rest]

    return begin, see, end


_begin_one, _see_one, _end_one = _steps(1)
_begin_rows, _see_rows, _end_rows = _steps(QUERIES)


@inner
def attention(
    q: Any, first_row: int, row_step: int, head: int, heads: int, row: int, last: int, head_dim: int, past: int,
    keys: Any, k_start: int, values: Any, v_start: int, flags: Any, f_start: int, masked: bool,
    cos: Any, sin: Any, turned: bool, own: Any, out: Any, out_step: int,
) -> None:  # fmt: skip
    """softmax(q k / sqrt(K)) v for the rows row .. last - 1 of one key/value head, row n being head n % heads of token
    n // heads of a sequence.

    q: float32, a token each row_step, from first_row on, rotated. out: the same, out_step apart. past: how many keys
    the first token sees before its own. keys[k_start:], values[v_start:]: of this head. flags[f_start:]: where masked,
    a byte for each key that is not 0 if it may be seen at all. cos, sin: where turned, [S / 16][K / 2][16], the angles
    by which the keys, cached as they are, are turned first. own: own_room(K, heads) floats of
    this thread.
    """
    size, together = block_room(head_dim), rows_together(heads)
    while row < last:
        stop = min(row + together, last)
        for block in range(row, stop, QUERIES):
            room = (block - row) // QUERIES * size
            if last - block == 1:
                _begin_one(q, first_row, row_step, head, heads, block, last, head_dim, own, room)
            else:
                _begin_rows(q, first_row, row_step, head, heads, block, last, head_dim, own, room)
        for start in range(0, past + (stop - 1) // heads + 1, KEYS):
            for block in range(row, stop, QUERIES):
                room = (block - row) // QUERIES * size
                if last - block == 1:
                    _see_one(
                        start, heads, block, last, head_dim, past, keys, k_start, values, v_start, flags, f_start,
                        masked, cos, sin, turned, own, room,
                    )  # fmt: skip
                else:
                    _see_rows(
                        start, heads, block, last, head_dim, past, keys, k_start, values, v_start, flags, f_start,
                        masked, cos, sin, turned, own, room,
                    )  # fmt: skip
        for block in range(row, stop, QUERIES):
            room = (block - row) // QUERIES * size
            if last - block == 1:
                _end_one(q, first_row, row_step, head, heads, block, last, head_dim, own, room, out, out_step)
            else:
                _end_rows(q, first_row, row_step, head, heads, block, last, head_dim, own, room, out, out_step)
        row = stop
