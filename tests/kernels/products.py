"""Products as a pass computes them, on made-up weights, and what they are to be.

As a program it prints a digest of many of them, in the formats that are named or in all: test_other_cpus.py runs it for
other CPUs than this one.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from minillama.arrays import Array
from minillama.kernels.floats import panel_room
from minillama.kernels.linear import block_rows, linear
from minillama.kernels.quantize import arrange_row
from minillama.kernels.state import Arranged
from minillama.layout import COMPRESSED, GROUP, QUANTIZED, TILE, WHOLE, rounded_up, terms_of, tile_bytes, tile_scales
from minillama.runtime.packing import KINDS, Packed, aligned, compress, pack, row_width
from minillama.weights.formats import narrow, widen
from minillama.weights.quantized import QuantizedTensor, RawTensor

FORMS = tuple(KINDS)
STEP = 2.0**-24  # the largest relative error of one float32 operation


@njit
def _arrange(likes: Any, x: Any, width: int, a: Any, s: Any, z: Any, n_rows: int, rows: int) -> None:
    for row in range(n_rows):
        arrange_row(likes, x, row * width, 0, width, width, a, s, z, row, rows)


@njit(nogil=True)
def _share(
    out: Any, step: int, w: Any, scales: Any, n_out: int, width: int, x: Any, n_rows: int, panel: Any, work: Any,
    slot: int,
) -> None:  # fmt: skip
    linear(out, step, w, scales, n_out, width, x, n_rows, panel, work, slot)


class Matrix(NamedTuple):
    """A matrix for the kernels, and its numbers."""

    form: str
    packed: Packed
    numbers: Array  # (n_out, width), float64
    sizes: Array | None = None  # of what is added up for each number, where that is more than the number's own


def float_matrix(form: str, numbers: Array) -> Matrix:
    """Some float32 numbers (n_out, width), a multiple of 16 wide, in a format of floats."""
    if form == COMPRESSED:
        tensor = compress(RawTensor(narrow(numbers.astype(np.float32), "BF16"), "BF16"))
        return Matrix(form, pack(tensor, form), tensor.read(np.float64))
    name = form.upper()
    stored = narrow(numbers.astype(np.float32), name)
    kept = aligned(stored.size, KINDS[form])
    kept[:] = stored.view(KINDS[form]).reshape(-1)
    return Matrix(form, Packed(kept, np.zeros(1, np.int16)), widen(stored, name, np.float32).astype(np.float64))


def random_matrix(rng: np.random.Generator, form: str, n_out: int, width: int) -> Matrix:
    """A matrix whose bytes, where it is quantized, are any at all; its rows and columns are not filled up."""
    if form not in QUANTIZED:
        numbers = rng.standard_normal((n_out, width)) * 2.0 ** rng.integers(-20, 8, (n_out, 1))
        numbers[rng.random(numbers.shape) < 0.01] *= 2.0**-30  # too far from others to be compressed
        return float_matrix(form, numbers)
    blocks = rounded_up(n_out, TILE) // TILE * (width // WHOLE[form].block)
    numbers = rng.choice([0, 255, 127, 128, 1, 0x8F, 0xF8], blocks * tile_bytes(form)).astype(np.uint8)
    numbers[::2] = rng.integers(0, 256, numbers[::2].size)
    scales = rng.integers(0, 1 << 16, (blocks, tile_scales(form)), np.uint16).view(np.float16)  # any scales of parts
    halves = TILE * (2 if WHOLE[form].scales in (4, 16) else 1)
    scales[:, :halves] = rng.standard_normal((blocks, halves)) * 2.0 ** rng.integers(-24, 3)
    packed = Packed(numbers.view(KINDS[form]), scales.reshape(-1).view(np.int16))

    def with_halves(first: int, last: int) -> Array:
        """The numbers if only these float16 scales were not 0."""
        some = scales.copy()
        some[:, :first] = some[:, last:halves] = 0
        return QuantizedTensor(form, (n_out, width), numbers, some).read(np.float64)

    if halves == TILE:
        return Matrix(form, packed, with_halves(0, TILE))
    scaled, minima = with_halves(0, TILE), with_halves(TILE, halves)
    return Matrix(form, packed, scaled + minima, np.abs(scaled) + np.abs(minima))


def arranged(forms: Sequence[str], x: Array) -> Arranged:
    """Rows of activations (T, width) as kernels want them beside weights in these formats. What no row fills is NaN, or
    any byte."""
    n_rows, width = x.shape
    quantized, terms = forms[0] in QUANTIZED, terms_of(forms) if forms[0] in QUANTIZED else ()
    rows = block_rows(quantized, n_rows)
    count = rounded_up(n_rows, rows)
    a = aligned(count * width, np.int8 if quantized else np.float32)
    a[:] = 99 if quantized else np.nan
    groups = count * width // GROUP + 1
    s, z = np.full(groups, np.nan, np.float32), np.full(groups * max(len(terms), 1), 7, np.int32)
    likes = tuple(np.zeros(1, KINDS[form]) for form in forms)
    _arrange(likes, np.ascontiguousarray(x, np.float32).reshape(-1), width, a, s, z, n_rows, rows)
    return Arranged(a, s, z, len(terms))


def product(matrix: Matrix, x: Array, threads: int = 1, beside: Sequence[str] = ()) -> Array:
    """x W^T by the kernels, (T, n_out) float32. Nothing is written behind the rows of whole tiles. beside: formats of
    other weights that the activations are arranged for too, in front."""
    form, (numbers, scales), (n_out, size) = matrix.form, matrix.packed, matrix.numbers.shape
    quantized, n_rows, width = form in QUANTIZED, len(x), row_width(size, form)
    x = np.pad(x, ((0, 0), (0, width - size)))
    forms = (*beside, form)
    to = arranged(forms, x)
    if quantized:
        first = terms_of(forms).index(WHOLE[form].terms[0])
        to = to._replace(z=to.z[first * block_rows(quantized, n_rows) :])
    step, count = row_width(n_out, "q8_0") + 16, rounded_up(n_rows, block_rows(quantized, n_rows))
    out = np.full((count, step), np.nan, np.float32)
    work = np.zeros(3, np.int64)

    def share(_: int) -> None:
        panel = np.full(panel_room(n_rows), np.nan, np.float32)
        _share(out.reshape(-1), step, numbers, scales, n_out, width, to, n_rows, panel, work, 1)

    if threads == 1:
        share(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(share, range(threads)))
    assert np.isnan(out[:, rounded_up(n_out, TILE) if quantized else n_out :]).all()
    assert work[[0, 2]].tolist() == [0, 0]
    return out[:n_rows, :n_out].copy()


def rounded(x: Array) -> tuple[Array, Array]:
    """Activations (T, width) as whole numbers, the same shape, with a float32 scale a group (T, groups). Where the
    largest number of a group is so small that 127 / it is no float32, they are 0."""
    groups = x.astype(np.float32).reshape(len(x), -1, GROUP)
    peak = np.abs(groups).max(axis=-1).astype(np.float64)
    inverse = np.divide(127, peak, out=np.zeros_like(peak), where=peak > 1e-36).astype(np.float32)
    return np.rint(groups * inverse[..., None]).reshape(x.shape), (peak / 127).astype(np.float32)


def expected(matrix: Matrix, x: Array) -> tuple[Array, Array]:
    """The exact product with activations as the format rounds them, and how far float32 may be from it.

    A sum of n terms, each off by some roundings, is off by at most n roundings of the sum of the sizes of its terms.
    """
    numbers, width = matrix.numbers, matrix.numbers.shape[1]
    x = x.astype(np.float32)
    if matrix.form not in QUANTIZED:
        wide = x.astype(np.float64)
        steps = width / 16 + 4  # terms that a lane adds up, and four additions of halves
        return wide @ numbers.T, 1.001 * steps * STEP * (np.abs(wide) @ np.abs(numbers).T) + 1e-44
    q, scales = rounded(x)
    a = (q.reshape(len(x), -1, GROUP) * scales[..., None].astype(np.float64)).swapaxes(0, 1)  # (groups, T, 32)
    parts = a @ numbers.reshape(len(numbers), -1, GROUP).transpose(1, 2, 0)  # (groups, T, n_out): added up exactly
    sizes = np.abs(parts)
    if WHOLE[matrix.form].block > GROUP or matrix.sizes is not None:  # a group is several terms, which may cancel
        terms = np.abs(numbers) if matrix.sizes is None else matrix.sizes
        sizes = np.abs(a) @ terms.reshape(len(numbers), -1, GROUP).transpose(1, 2, 0)
    steps = (len(parts) + 1) * len(WHOLE[matrix.form].terms) * 2  # additions, and the products of scales
    return parts.sum(axis=0), 1.001 * steps * STEP * sizes.sum(axis=0) + 1e-44


def assert_as_near_as_float32(matrix: Matrix, x: Array) -> None:
    exact, room = expected(matrix, x)
    off = np.abs(product(matrix, x) - exact)
    assert (off <= room).all(), f"off by up to {(off / room).max()} of what float32 may be"


@functools.cache
def some_matrix(form: str) -> Matrix:
    return random_matrix(np.random.default_rng(3), form, 37, 3 * columns_of(form))


def columns_of(form: str) -> int:
    """The least that a matrix may have, or 32."""
    return WHOLE[form].block if form in WHOLE else GROUP


def digest(form: str) -> str:
    """Of the bits of many products."""
    rng, bits = np.random.default_rng(7), hashlib.sha256()
    for n_out, blocks, n_rows in ((37, 3, 1), (80, 2, 1), (331, 2, 1), (37, 3, 11), (16, 1, 2)):
        width = blocks * columns_of(form)
        matrix = random_matrix(rng, form, n_out, width)
        x = rng.standard_normal((n_rows, width)) * 2.0 ** rng.integers(-8, 8, (n_rows, width))
        bits.update(product(matrix, x).tobytes())
    return bits.hexdigest()


if __name__ == "__main__":
    for form in sys.argv[1:] or FORMS:
        print(form, digest(form))
