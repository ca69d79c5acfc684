"""Matrix products y = x W^T (the twin of linear in model/ops.py): bound by memory for one row, by arithmetic for many.

Weights are read where they lie, a block of sums is kept in registers, and threads take tasks, some rows of W each, from
a common counter. Every output is summed in one fixed order, whatever the number of rows beside it and of threads: one
token alone, in a prompt and in a batch gets the same bits.

    floats      float32, float16 bits, bfloat16 bits: (out, in) as a checkpoint has them, so its mapped file will do.
                Lane l sums the products of columns l, l + 16, ...; then halves of the lanes are added to halves.
    bf16z       bfloat16 in less room (kernels/compressed.py): the same sums, to the bit.
    q8_0 ...    whole numbers with scales (minillama.layout has the formats, kernels/quants.py their products). The
                activations are whole numbers too, with a float32 scale a group of 32 columns; products of a group add
                up without rounding, and groups are added in their order.

Activations come arranged (kernels/quantize.py) in blocks of rows, see block_rows.
"""

from __future__ import annotations

from typing import Any

from numba.extending import overload

from minillama.kernels.blocks import HALF, half_zeros, store_block, zeros
from minillama.kernels.compressed import note_words
from minillama.kernels.floats import BF16Z, FEW, FLOAT_ROWS, MANY, float_rows
from minillama.kernels.llvm import HALVES, MANY_STREAMS, WIDE, form_of, inner
from minillama.kernels.quants import add_group, address
from minillama.kernels.simd import prefetch
from minillama.kernels.threads import fetch_add
from minillama.layout import GROUP, LEAST_ROWS, TILE, WHOLE, rounded_up, tile_bytes, tile_scales

# Activation rows at once, of whole numbers: sixteen registers of 256 bits hold sums of half a tile by so many
ROWS = 8 if WIDE else 4 if HALVES else 2
TASK = 256  # rows of weights, that a thread reads as its streams: so many runs of neighbours
PART = 64  # rows at least, where two matrices are read in one pass: whole lines of what they give
AHEAD, LINE = 2048, 64  # bytes: so far ahead of every stream memory is asked for, a cache line at a time


def block_rows(quantized: bool, n_rows: int) -> int:
    """How many rows a block of arranged activations has."""
    return 1 if n_rows == 1 else ROWS if quantized else FEW if n_rows <= FEW else FLOAT_ROWS


def whole_blocks(quantized: bool, n_rows: int) -> int:
    """n_rows, rounded up to whole blocks: what arranged activations and results need room for."""
    return rounded_up(n_rows, block_rows(quantized, n_rows))


# -- whole numbers ------------------------------------------------------------------------------------------------


def _tiles(form: str, tiles: int, rows: int, half: bool) -> Any:
    """The product of `tiles` tiles of weights, 16 rows each and `apart` tiles from each other, and one block of `rows`
    activation rows. half: whether the tile, only one, is multiplied a half after the other, see blocks.py."""
    count, size, s_words = tiles * rows, tile_bytes(form), tile_scales(form)
    groups, lanes = WHOLE[form].block // GROUP, HALF if half else TILE
    nothing = half_zeros if half else zeros
    share = size // groups  # bytes of the block that are asked for with each of its groups

    @inner
    def multiply(
        out: Any, out_step: int, w: Any, scales: Any, tile: int, apart: int, x: Any, block: int, blocks: int
    ) -> None:
        step, s_step = apart * blocks * size, apart * blocks * 2 * s_words
        for first in range(0, TILE, lanes):
            sums, i = nothing(count), tile * blocks * size
            numbers, beside = address(w, i), address(scales, tile * blocks * s_words)
            a = address(x.a, block * blocks * groups * GROUP * rows)
            s = address(x.s, block * blocks * groups * rows)
            z = address(x.z, block * blocks * groups * rows * x.terms)
            for _ in range(blocks):
                for g in range(groups):
                    for m in range(0 if half else tiles):
                        for line in range(0, share, LINE):
                            prefetch(w, i + m * step + line, AHEAD)
                    sums = add_group(sums, w, (numbers, step, beside, s_step, first), g, (a, s, z), rows)
                    i += share
                    a += GROUP * rows
                    s += 4 * rows
                    z += 4 * rows * x.terms
                numbers += size
                beside += 2 * s_words
            store_block(out, block * rows * out_step + tile * TILE + first, apart * TILE, out_step, sums, rows)

    return multiply


def _whole(form: str) -> Any:
    """The product of some rows of weights in a format of whole numbers; see linear_rows. One activation row reads some
    tiles side by side: several streams are what memory is fastest at. Scales are streams too: those of fewer bits,
    where they are a larger part, leave room for fewer streams of numbers."""
    streams = (8 if form == "q8_0" else 4) if MANY_STREAMS else (4 if form == "q8_0" else 2)
    side_by_side, one = _tiles(form, streams, 1, half=False), _tiles(form, 1, 1, half=False)
    times_rows = _tiles(form, 1, ROWS, half=HALVES)
    columns = WHOLE[form].block

    @inner
    def whole_rows(
        out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, width: int, x: Any, n_rows: int, panel: Any
    ) -> None:
        tile, blocks = row // TILE, (width + columns - 1) // columns
        count = (last + TILE - 1) // TILE - tile
        if n_rows > 1:
            for beside in range(tile, tile + count):
                for block in range((n_rows + ROWS - 1) // ROWS):
                    times_rows(out, out_step, w, scales, beside, 0, x, block, blocks)
            return
        apart = count // streams
        for first in range(tile, tile + apart):
            side_by_side(out, out_step, w, scales, first, apart, x, 0, blocks)
        for rest in range(tile + apart * streams, tile + count):
            one(out, out_step, w, scales, rest, 0, x, 0, blocks)

    return whole_rows


_WHOLE = {form: _whole(form) for form in WHOLE}


# -- of any kind --------------------------------------------------------------------------------------------------


def linear_rows(
    out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, width: int, x: Any, n_rows: int, panel: Any
) -> None:
    """out[r, i] = sum over k of x[r, k] W[i, k], for n_rows rows r and the rows i = row .. last - 1 of W, those of a
    task. The other arguments are linear's."""
    raise NotImplementedError("called in kernels only")


@overload(linear_rows)
def _linear_rows(
    out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, width: int, x: Any, n_rows: int, panel: Any
) -> Any:
    rows = _WHOLE.get(form_of(w.dtype), float_rows)

    def of_kind(
        out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, width: int, x: Any, n_rows: int, panel: Any
    ) -> None:
        rows(out, out_step, w, scales, row, last, width, x, n_rows, panel)

    return of_kind


def from_row(w: Any, scales: Any, row: int, width: int) -> Any:
    """Weights and scales from a row on, the first one of a task."""
    raise NotImplementedError("called in kernels only")


@overload(from_row)
def _from_row(w: Any, scales: Any, row: int, width: int) -> Any:
    form = form_of(w.dtype)
    if form in WHOLE:
        columns, size, s_size = WHOLE[form].block, tile_bytes(form), tile_scales(form)

        def whole(w: Any, scales: Any, row: int, width: int) -> Any:
            blocks = row // TILE * ((width + columns - 1) // columns)
            return w[blocks * size :], scales[blocks * s_size :]

        return whole

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
    few, many = (1, TILE) if form_of(w.dtype) in WHOLE else (FEW, MANY)

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
    out: Any, out_step: int, w: Any, scales: Any, n_out: int, width: int, x: Any, n_rows: int, panel: Any, work: Any,
    slot: int,
) -> None:  # fmt: skip
    """This thread's share of out[r, i] = sum over k of x[r, k] W[i, k], for n_rows rows r and n_out rows i of W.

    out: float32 rows, out_step apart, of whole blocks of activations. w, scales: the weights, of `width` columns (a
    multiple of 16 if they are floats); at least LEAST_ROWS of floats, or whole tiles. x: the arranged activations, its
    terms from the first one on that weights of this kind need. panel: room of this thread's own, panel_room floats.
    work[slot]: 0 when the first thread comes, and how many tasks have been given out.
    """
    step = task_rows(w, n_rows)
    while True:
        task = fetch_add(work, slot, 1)
        if task >= task_count(n_out, step):
            return
        last = task_end(task, n_out, step)
        linear_rows(out, out_step, w, scales, task * step, last, width, x, n_rows, panel)
