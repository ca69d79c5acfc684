"""Matrix products y = x W^T (the twin of linear in model/ops.py): bound by memory for one row, by arithmetic for many.

Weights are read where they lie, a block of sums is kept in registers, and threads take tasks, some rows of W each, from
a common counter. Every output is summed in one fixed order, whatever the number of rows beside it and of threads: one
token alone, in a prompt and in a batch gets the same bits.

    floats      float32, float16 bits, bfloat16 bits: (out, in) as a checkpoint has them, so its mapped file will do.
                Lane l sums the products of columns l, l + 16, ...; then halves of the lanes are added to halves.
    bf16z       bfloat16 in less room (kernels/compressed.py): the same sums, to the bit.
    q8_0, q4_0  whole numbers in groups of 32 columns with one float16 scale (kernels/quantize.py packs them). The
                activations are whole numbers too, with a float32 scale a group; products of a group add up without
                rounding, and groups are added in their order.

Activations come arranged (kernels/quantize.py) in blocks of rows, see block_rows.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from minillama.kernels.blocks import add_products, dot_group, half_zeros, splat_ints, store_block, zeros
from minillama.kernels.compressed import note_words
from minillama.kernels.floats import BF16Z, FEW, FLOAT_ROWS, MANY, float_rows
from minillama.kernels.halves import HALF, add_group
from minillama.kernels.llvm import HALVES, MANY_STREAMS, WIDE, inner
from minillama.kernels.simd import prefetch
from minillama.kernels.threads import fetch_add
from minillama.layout import GROUP, LEAST_ROWS, TILE, rounded_up, tile_bytes

# Activation rows at once, of whole numbers: sixteen registers of 256 bits hold sums of half a tile by so many
ROWS = 8 if WIDE else 4 if HALVES else 2
TASK = 256  # rows of weights, that a thread reads as its streams: so many runs of neighbours
PART = 64  # rows at least, where two matrices are read in one pass: whole lines of what they give
# Tiles that are read side by side: several streams are what memory is fastest at. Scales are streams too: those of 4
# bits, where they are a larger part, leave room for fewer streams of numbers
STREAMS = {"q8_0": 8, "q4_0": 4} if MANY_STREAMS else {"q8_0": 4, "q4_0": 2}
AHEAD, LINE = 2048, 64  # bytes: so far ahead of every stream memory is asked for, a cache line at a time

# The number format of weights by the type of the array that has them; floats travel as floats.py says
Q8_0, Q4_0 = types.uint8, types.int8


def block_rows(quantized: bool, n_rows: int) -> int:
    """How many rows a block of arranged activations has."""
    return 1 if n_rows == 1 else ROWS if quantized else FEW if n_rows <= FEW else FLOAT_ROWS


def whole_blocks(quantized: bool, n_rows: int) -> int:
    """n_rows, rounded up to whole blocks: what arranged activations and results need room for."""
    return rounded_up(n_rows, block_rows(quantized, n_rows))


# -- whole numbers ------------------------------------------------------------------------------------------------


def _tiles(tiles: int, rows: int, size: int) -> Any:
    """The product of `tiles` tiles of weights, 16 rows each and `apart` tiles from each other, and one block of `rows`
    activation rows. size: bytes of a group of columns in a tile."""
    n = tiles * rows

    @inner
    def multiply(
        out: Any, out_step: int, w: Any, scales: Any, tile: int, apart: int, a: Any, s: Any, z: Any, block: int,
        groups: int,
    ) -> None:  # fmt: skip
        sums, step, s_step = zeros(n), apart * groups * size, apart * groups * TILE
        i, si = tile * groups * size, tile * groups * TILE
        j, sj = block * groups * GROUP * rows, block * groups * rows
        for _ in range(groups):
            ints = splat_ints(z, sj, n, rows)  # weights are stored with an offset, which is taken off here
            for m in range(tiles):
                for line in range(0, size, LINE):
                    prefetch(w, i + m * step + line, AHEAD)
            ints = dot_group(ints, w, i, step, a, j, rows)
            sums = add_products(sums, ints, scales, si, s_step, s, sj, rows)
            i += size
            si += TILE
            j += GROUP * rows
            sj += rows
        store_block(out, block * rows * out_step + tile * TILE, apart * TILE, out_step, sums, rows)

    return multiply


def _half_tiles(rows: int, size: int) -> Any:
    """The product of one tile of weights, a half after the other, and one block of `rows` activation rows."""

    @inner
    def multiply(
        out: Any, out_step: int, w: Any, scales: Any, tile: int, apart: int, a: Any, s: Any, z: Any, block: int,
        groups: int,
    ) -> None:  # fmt: skip
        for half in range(0, TILE, HALF):
            sums = half_zeros(rows)
            i, si = tile * groups * size + 4 * half, tile * groups * TILE + half
            j, sj = block * groups * GROUP * rows, block * groups * rows
            for _ in range(groups):
                sums = add_group(sums, w, i, scales, si, a, j, s, z, sj)
                i += size
                si += TILE
                j += GROUP * rows
                sj += rows
            store_block(out, block * rows * out_step + tile * TILE + half, out_step, out_step, sums, 1)

    return multiply


def _quantized(form: str) -> Any:
    """The product of some rows of weights in q8_0 or q4_0; see linear_rows. One activation row reads STREAMS tiles side
    by side."""
    size, streams = tile_bytes(form), STREAMS[form]
    side_by_side, one = _tiles(streams, 1, size), _tiles(1, 1, size)
    times_rows = _half_tiles(ROWS, size) if HALVES else _tiles(1, ROWS, size)

    @inner
    def quantized_rows(
        out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, width: int,
        a: Any, s: Any, z: Any, n_rows: int, panel: Any,
    ) -> None:  # fmt: skip
        tile, groups = row // TILE, (width + GROUP - 1) // GROUP
        count = (last + TILE - 1) // TILE - tile
        if n_rows > 1:
            for beside in range(tile, tile + count):
                for block in range((n_rows + ROWS - 1) // ROWS):
                    times_rows(out, out_step, w, scales, beside, 0, a, s, z, block, groups)
            return
        apart = count // streams
        for first in range(tile, tile + apart):
            side_by_side(out, out_step, w, scales, first, apart, a, s, z, 0, groups)
        for rest in range(tile + apart * streams, tile + count):
            one(out, out_step, w, scales, rest, 0, a, s, z, 0, groups)

    return quantized_rows


_q8_0, _q4_0 = _quantized("q8_0"), _quantized("q4_0")


# -- of any kind --------------------------------------------------------------------------------------------------


def linear_rows(
    out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, width: int,
    a: Any, s: Any, z: Any, n_rows: int, panel: Any,
) -> None:  # fmt: skip
    """out[r, i] = sum over k of x[r, k] W[i, k], for n_rows rows r and the rows i = row .. last - 1 of W, those of a
    task. The other arguments are linear's."""
    raise NotImplementedError("called in kernels only")


@overload(linear_rows)
def _linear_rows(
    out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, width: int,
    a: Any, s: Any, z: Any, n_rows: int, panel: Any,
) -> Any:  # fmt: skip
    rows = {Q8_0: _q8_0, Q4_0: _q4_0}.get(w.dtype, float_rows)

    def of_kind(
        out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, width: int,
        a: Any, s: Any, z: Any, n_rows: int, panel: Any,
    ) -> None:  # fmt: skip
        rows(out, out_step, w, scales, row, last, width, a, s, z, n_rows, panel)

    return of_kind


def from_row(w: Any, scales: Any, row: int, width: int) -> Any:
    """Weights and scales from a row on, the first one of a task."""
    raise NotImplementedError("called in kernels only")


@overload(from_row)
def _from_row(w: Any, scales: Any, row: int, width: int) -> Any:
    if w.dtype in (Q8_0, Q4_0):
        size = tile_bytes("q8_0" if w.dtype is Q8_0 else "q4_0")

        def quantized(w: Any, scales: Any, row: int, width: int) -> Any:
            groups = row // TILE * ((width + GROUP - 1) // GROUP)
            return w[groups * size :], scales[groups * TILE :]

        return quantized

    def compressed(w: Any, scales: Any, row: int, width: int) -> Any:
        return w[row:], scales[row * note_words(width) :]

    def floats(w: Any, scales: Any, row: int, width: int) -> Any:
        return w[row * width :], scales

    return compressed if w.dtype is BF16Z else floats


def task_rows(w: Any, n_rows: int) -> int:
    """How many rows of weights like w a thread takes at a time."""
    raise NotImplementedError("called in kernels only")


@overload(task_rows)
def _task_rows(w: Any, n_rows: int) -> Any:
    few, many = (1, TILE) if w.dtype in (Q8_0, Q4_0) else (FEW, MANY)

    def of_kind(w: Any, n_rows: int) -> int:
        return TASK if n_rows <= few else many

    return of_kind


@inner
def task_count(n_out: int, step: int) -> int:
    """How many tasks of `step` rows n_out rows are. A rest of fewer than LEAST_ROWS goes with the last whole task, so
    that every row belongs to one task alone."""
    return 1 + max(n_out - LEAST_ROWS, 0) // step


@inner
def task_end(task: int, n_out: int, step: int) -> int:
    """Where the rows of a task, which begin at task * step, end."""
    return n_out if task + 1 == task_count(n_out, step) else (task + 1) * step


@inner
def linear(
    out: Any, out_step: int, w: Any, scales: Any, n_out: int, width: int,
    a: Any, s: Any, z: Any, n_rows: int, panel: Any, work: Any, slot: int,
) -> None:  # fmt: skip
    """This thread's share of out[r, i] = sum over k of x[r, k] W[i, k], for n_rows rows r and n_out rows i of W.

    out: float32 rows, out_step apart, of whole blocks of activations. w, scales: the weights, of `width` columns (a
    multiple of 16 if they are floats); at least LEAST_ROWS of floats, or whole tiles. a, s, z: the arranged
    activations, of which floats have `a` alone. panel: room of this thread's own, panel_room floats. work[slot]: 0
    when the first thread comes, and how many tasks have been given out.
    """
    step = task_rows(w, n_rows)
    while True:
        task = fetch_add(work, slot, 1)
        if task >= task_count(n_out, step):
            return
        last = task_end(task, n_out, step)
        linear_rows(out, out_step, w, scales, task * step, last, width, a, s, z, n_rows, panel)
