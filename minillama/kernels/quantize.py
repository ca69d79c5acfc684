"""Numbers as multiples of a scale that 32 of them share: weights once, activations anew for every product.

minillama.layout says which formats there are and how they lie. The scale of q8_0 is the largest number / 127; that of
q4_0 is searched for, see _best_scale.

Activations are arranged by row blocks, rounded like q8_0 but with float32 scales: an error of at most 1/254 of the
group's largest number. For weights that are floats they are only interleaved.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from minillama.kernels.kept import kernel
from minillama.kernels.llvm import LANES, SOURCES, form_of, inner
from minillama.kernels.simd import (
    absolute,
    float_bits,
    fma,
    from_half,
    half_bits,
    largest,
    load,
    maximum,
    minimum,
    nearest,
    splat,
    store,
    store_bytes,
    sum_of,
)
from minillama.layout import GROUP, TILE, WHOLE, terms_of

LARGEST = 65504.0  # float16


def _quantize_row(terms: tuple[str, ...]) -> Any:
    """What arranges a row for products that need these terms; see layout.terms_of."""
    count, scaled = len(terms), terms.index("scaled sum") if "scaled sum" in terms else -1
    # What the sums of the low and the high half of a group are multiplied by
    of_low = tuple(0 if "high" in term or "scaled" in term else -int(term.split()[0]) for term in terms)
    of_high = tuple(0 if "low" in term or "scaled" in term else -int(term.split()[0]) for term in terms)

    @inner
    def quantize_row(
        x: Any, i: int, first: int, last: int, width: int, a: Any, s: Any, z: Any, row: int, rows: int
    ) -> None:
        """x[i :] as the columns first .. last - 1 of row `row` of the arranged activations, blocks of `rows` rows.

        a: int8, [block][column / 4][row of the block][4]. s: float32 scales, [block][group][row]. z: int32,
        [block][group][term][row], whole numbers or the bits of float32. first, last, width: multiples of 32.
        """
        groups = width // GROUP
        block, r = row // rows, row % rows
        for g in range(first // GROUP, last // GROUP):
            k = i + g * GROUP - first
            one, other = load(x, k), load(x, k + LANES)
            peak = largest(maximum(absolute(one), absolute(other)))
            none = sum_of(fma(one, splat(0.0), other * splat(0.0)))  # 0, unless a number is infinite or none: then NaN
            scale = splat(127 / peak if peak > 1e-36 and none == 0 else 0.0)
            j = (block * groups + g) * GROUP * rows + 4 * r
            low = store_bytes(a, j, 4 * rows, nearest(one * scale))
            high = store_bytes(a, j + LANES * rows, 4 * rows, nearest(other * scale))
            of_group = peak / 127 + none
            s[(block * groups + g) * rows + r] = of_group
            place = (block * groups + g) * count * rows + r
            for term in range(count):
                z[place + term * rows] = of_low[term] * low + of_high[term] * high
            if scaled >= 0:
                z[place + scaled * rows] = float_bits(np.float32(of_group) * np.float32(low + high))

    return quantize_row


@njit
def interleave_row(x: Any, i: int, first: int, last: int, width: int, a: Any, row: int, rows: int) -> None:
    """x[i :] as the columns first .. last - 1 of row `row` of the arranged activations, [block][column / 16][row of the
    block][16]."""
    start = (row // rows) * rows * width + (row % rows) * LANES
    for k in range(first, last, LANES):
        store(a, start + k * rows, load(x, i + k - first))


def arrange_row(
    likes: Any, x: Any, i: int, first: int, last: int, width: int, a: Any, s: Any, z: Any, row: int, rows: int
) -> None:
    """Columns of one row of activations, arranged for weights like any of these, a tuple of arrays: all of floats, or
    all of whole numbers."""
    raise NotImplementedError("called in kernels only")


@overload(arrange_row)
def _arrange_row(
    likes: Any, x: Any, i: int, first: int, last: int, width: int, a: Any, s: Any, z: Any, row: int, rows: int
) -> Any:
    forms = [form_of(like.dtype) for like in likes]
    if forms[0] in WHOLE:
        quantize_row = _quantize_row(terms_of(forms))

        def whole(
            likes: Any, x: Any, i: int, first: int, last: int, width: int, a: Any, s: Any, z: Any, row: int, rows: int
        ) -> None:
            quantize_row(x, i, first, last, width, a, s, z, row, rows)

        return whole

    def as_they_are(
        likes: Any, x: Any, i: int, first: int, last: int, width: int, a: Any, s: Any, z: Any, row: int, rows: int
    ) -> None:
        interleave_row(x, i, first, last, width, a, row, rows)

    return as_they_are


# -- weights ------------------------------------------------------------------------------------------------------


@njit
def _rounded(x: float, least: int, most: int) -> int:
    """The nearest whole number, halves away from 0, within bounds."""
    return min(max(math.floor(abs(x) + 0.5) * (1 if x > 0 else -1), least), most)


@njit
def _error(x: Any, i: int, d: float) -> tuple[float, float]:
    """The squared error of a group in 4 bits with the scale d, and the scale that suits its whole numbers best."""
    error, xq, qq = splat(0.0), splat(0.0), splat(0.0)
    inverse, scale = splat(1 / d), splat(-d)
    for k in range(i, i + GROUP, LANES):
        weights = load(x, k)
        q = maximum(splat(-8.0), minimum(splat(7.0), nearest(weights * inverse)))
        left = fma(q, scale, weights)
        error, xq, qq = fma(left, left, error), fma(weights, q, xq), fma(q, q, qq)
    norm = sum_of(qq)
    return sum_of(error), sum_of(xq) / norm if norm > 0 else d


@njit
def _best_scale(x: Any, i: int, peak: float) -> int:
    """The bits of the scale with the least squared error that a search finds for 4 bits.

    ggml takes -peak / 8, so that the number furthest out is met exactly. A group is often better off with a somewhat
    smaller or larger scale: some are tried, each followed by the one that suits the whole numbers it gives best.
    """
    best_bits, best = half_bits(np.float32(-peak / 8)), np.float32(math.inf)
    for step in range(-2, 7):
        d = np.float32(-peak / (8 + 0.5 * step))
        for _ in range(2):
            bits = half_bits(d)
            rounded = from_half(bits)
            if rounded == 0:
                break
            error, better = _error(x, i, rounded)
            if error < best:
                best_bits, best = bits, error
            d = np.float32(better)
    return best_bits


def _kept(sources: str) -> Any:
    @kernel
    def quantize_tile(
        rows: Any, width: int, out: Any, scales: Any, tile: int, four_bits: bool, search: bool
    ) -> tuple[float, float, float]:
        """Quantize a tile of weights, 16 rows of float32 one behind the other, into its place in `out` (bytes) and
        `scales` (float16 bits).

        search: whether scales of 4 bits are searched for, or ggml's. The sums of squares of the errors, of those that
        ggml's scales would make, and of the weights; NaN if a weight is not a finite number,
        infinite if one is too large for a scale of float16.
        """
        sources  # noqa: B018  # see llvm.SOURCES
        groups = width // GROUP
        size = GROUP * TILE // (2 if four_bits else 1)
        errors = plain = squares = 0.0
        for g in range(groups):
            for r in range(TILE):
                i = r * width + g * GROUP
                peak = np.float32(0)
                for k in range(i, i + GROUP):
                    if not math.isfinite(rows[k]):
                        return math.nan, math.nan, math.nan
                    peak = rows[k] if abs(rows[k]) > abs(peak) else peak
                d = peak / np.float32(-8) if four_bits else abs(peak) / np.float32(127)
                if abs(d) > LARGEST:
                    return math.inf, math.inf, math.inf
                bits = half_bits(d)
                if four_bits and search and peak != 0:
                    plain += _error(rows, i, from_half(bits))[0] if from_half(bits) != 0 else 0.0
                    bits = _best_scale(rows, i, peak)
                    d = from_half(bits)
                scales[(tile * groups + g) * TILE + r] = bits
                inverse = np.float32(1) / d if d != 0 else np.float32(0)
                stored = from_half(bits)
                start = (tile * groups + g) * size + 4 * r
                for k in range(GROUP):
                    x = rows[i + k]
                    exact = np.float64(x)
                    if four_bits:
                        q = max(min(math.floor(x * inverse + np.float32(8.5)), 15), 0) - 8
                        place = start + k % 16 // 4 * 4 * TILE + k % 4
                        out[place] = out[place] & 15 | (q + 8) << 4 if k >= 16 else q + 8
                    else:
                        q = _rounded(x * inverse, -127, 127)
                        out[start + k // 4 * 4 * TILE + k % 4] = q + 128
                    errors += (exact - np.float64(stored) * q) ** 2
                    squares += exact * exact
        return errors, plain if four_bits and search else errors, squares

    return quantize_tile


quantize_tile = _kept(SOURCES)
