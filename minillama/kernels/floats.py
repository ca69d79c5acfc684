"""Products with weights that are floats, in float32, float16, bfloat16 or bf16z; linear.py has those of any kind.

For few rows of activations weights are used as they come from memory, two rows of them side by side. For many, some
rows and columns of them are widened first, and stay in a near cache while they are used for all activations.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from minillama.kernels.blocks import HALF, half_zeros, load_block, load_half, outer, store_block, store_sums, zeros
from minillama.kernels.compressed import compressed_rows, widen_columns
from minillama.kernels.llvm import HALVES, LANES, MANY_STREAMS, WIDE, inner
from minillama.kernels.simd import load, prefetch, store
from minillama.layout import LEAST_ROWS, rounded_up

# Activation rows at once, with so many weight rows
FLOAT_ROWS, OUTPUTS = (6, 4) if WIDE else (3, 4) if HALVES else (2, 2)
SUMS = OUTPUTS * FLOAT_ROWS  # in a block
FEW = 8 if WIDE else 2  # rows for which weights are used as they come from memory, two rows of them at once
# So many times OUTPUTS rows and so many columns of them are widened at a time
PANELS, COLUMNS = (8, 512) if HALVES else (8, 2048)
MANY = PANELS * OUTPUTS  # rows, then
# One activation row reads so many rows of weights side by side, of bf16z fewer, for its registers. So many bytes
# of all of them together are asked for before they are needed
STREAMS, PACKED_STREAMS = (8, 4) if MANY_STREAMS else (2, 2)
UNDER_WAY = 8192
BF16Z = types.uint32  # arrays of these are compressed; others travel as simd.py says


def _plain_rows(streams: int, rows: int, ahead: int) -> Any:
    """The product of `streams` rows of weights, `apart` rows from each other, and one block of `rows` activation rows.
    Memory is asked for `ahead` bytes before it is needed."""
    n = streams * rows

    @inner
    def multiply(
        out: Any, out_step: int, w: Any, scales: Any, row: int, apart: int, a: Any, width: int, panel: Any
    ) -> None:
        sums, i, step = zeros(n), row * width, apart * width
        for k in range(0, width, LANES):
            for m in range(streams):
                prefetch(w, i + k + m * step, ahead)
            sums = outer(sums, w, i + k, step, a, k * rows, rows)
        store_sums(out, row, apart, out_step, sums, rows)

    return multiply


def _by_streams(product: Any, streams: int) -> Any:
    """The product of some rows of weights with up to FEW activation rows, as few_rows says. product(m, r, ahead): the
    one of m rows side by side with r, see _plain_rows."""
    several, two, few = (product(m, r, UNDER_WAY // m) for m, r in ((streams, 1), (2, 1), (2, FEW)))

    @inner
    def pair(
        out: Any, out_step: int, w: Any, scales: Any, row: int, apart: int, a: Any, width: int, n_rows: int, panel: Any
    ) -> None:
        if n_rows == 1:
            two(out, out_step, w, scales, row, apart, a, width, panel)
        else:
            few(out, out_step, w, scales, row, apart, a, width, panel)

    @inner
    def by_streams(
        out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, a: Any, width: int, n_rows: int, panel: Any
    ) -> None:
        if n_rows == 1:
            apart = (last - row) // streams
            for first in range(row, row + apart):
                several(out, out_step, w, scales, first, apart, a, width, panel)
            row += streams * apart
        apart = (last - row) // 2
        for first in range(row, row + apart):
            pair(out, out_step, w, scales, first, apart, a, width, n_rows, panel)
        if (last - row) % 2:  # the last, beside one that has been read before
            pair(out, out_step, w, scales, last - 2, 1, a, width, n_rows, panel)

    return by_streams


_plain_few, _compressed_few = _by_streams(_plain_rows, STREAMS), _by_streams(compressed_rows, PACKED_STREAMS)


def few_rows(
    out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, a: Any, width: int, n_rows: int, panel: Any
) -> None:
    """The product of the rows row .. last - 1 of W with up to FEW activation rows. They are read as several streams of
    neighbours for one activation row, and as two for more of them and for what is left over."""
    raise NotImplementedError("called in kernels only")


@overload(few_rows)
def _few_rows(
    out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, a: Any, width: int, n_rows: int, panel: Any
) -> Any:
    rows = _compressed_few if w.dtype is BF16Z else _plain_few

    def of_kind(
        out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, a: Any, width: int, n_rows: int, panel: Any
    ) -> None:
        rows(out, out_step, w, scales, row, last, a, width, n_rows, panel)

    return of_kind


@inner
def _panel_by_halves(panel: Any, i: int, kept: int, k: int, a: Any, j: int, count: int) -> None:
    """What _panel_times_rows adds to the sums at panel[kept:], the lower lanes first and then the upper ones."""
    for half in range(0, LANES, HALF):
        sums = load_half(panel, kept + half, LANES, SUMS) if k else half_zeros(SUMS)
        at, by = i + half, j + half
        for _ in range(0, count, LANES):
            sums = outer(sums, panel, at, LANES, a, by, FLOAT_ROWS)
            at += LANES * OUTPUTS
            by += LANES * FLOAT_ROWS
        store_block(panel, kept + half, LANES, LANES, sums, 1)


@inner
def _panel_times_rows(
    out: Any, row: int, out_step: int, panel: Any, i: int, kept: int, k: int, last: bool, a: Any, j: int, count: int
) -> None:
    """The product of OUTPUTS weight rows, widened at panel[i:], and a block of activation rows, for `count` columns
    from k on. The sums of the columns before are at panel[kept:], and what has been added is put there."""
    if HALVES:
        _panel_by_halves(panel, i, kept, k, a, j, count)
        if last:
            store_sums(out, row, 1, out_step, load_block(panel, kept, LANES, SUMS), FLOAT_ROWS)
        return
    sums = load_block(panel, kept, LANES, SUMS) if k else zeros(SUMS)
    for _ in range(0, count, LANES):
        sums = outer(sums, panel, i, LANES, a, j, FLOAT_ROWS)
        i += LANES * OUTPUTS
        j += LANES * FLOAT_ROWS
    if last:
        store_sums(out, row, 1, out_step, sums, FLOAT_ROWS)
    else:
        store_block(panel, kept, LANES, LANES, sums, 1)


@inner
def _many_rows(
    out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, a: Any, width: int, n_rows: int, panel: Any
) -> None:
    """The product of up to MANY rows of W, from `row` on and before `last`, with many activation rows. So many columns
    of them are widened that they stay in a near cache while they are used for all blocks of activations."""
    panels = min(PANELS, (last - row + OUTPUTS - 1) // OUTPUTS)
    for k in range(0, width, COLUMNS):
        count = min(COLUMNS, width - k)
        for p in range(panels):
            first = min(row + p * OUTPUTS, last - OUTPUTS)
            for m in range(OUTPUTS):
                widen(panel, p * COLUMNS * OUTPUTS + m * LANES, w, scales, first + m, k, k + count, width)
        for block in range((n_rows + FLOAT_ROWS - 1) // FLOAT_ROWS):
            start = block * FLOAT_ROWS
            for p in range(panels):
                first = min(row + p * OUTPUTS, last - OUTPUTS)
                kept = (COLUMNS * OUTPUTS + block * SUMS * LANES) * PANELS + p * SUMS * LANES
                _panel_times_rows(
                    out, start * out_step + first, out_step, panel, p * COLUMNS * OUTPUTS, kept, k,
                    k + count == width, a, start * width + k * FLOAT_ROWS, count,
                )  # fmt: skip


def widen(panel: Any, i: int, w: Any, scales: Any, row: int, first: int, last: int, width: int) -> None:
    """Columns first .. last - 1 of a row of W as float32, vectors panel[i], panel[i + 16 OUTPUTS], .."""
    raise NotImplementedError("called in kernels only")


@overload(widen)
def _widen(panel: Any, i: int, w: Any, scales: Any, row: int, first: int, last: int, width: int) -> Any:
    def floats(panel: Any, i: int, w: Any, scales: Any, row: int, first: int, last: int, width: int) -> None:
        for c in range(0, last - first, LANES):
            store(panel, i + c * OUTPUTS, load(w, row * width + first + c))

    def compressed(panel: Any, i: int, w: Any, scales: Any, row: int, first: int, last: int, width: int) -> None:
        widen_columns(panel, i, LANES * OUTPUTS, w, scales, row, first, last, width)

    return compressed if w.dtype is BF16Z else floats


@inner
def float_rows(
    out: Any, out_step: int, w: Any, scales: Any, row: int, last: int, width: int, x: Any, n_rows: int, panel: Any
) -> None:
    """The product of some rows of floats; see linear_rows."""
    a = x.a
    last = max(last, LEAST_ROWS)  # a smaller matrix has been filled up, and `out` has room for whole vectors
    if n_rows <= FEW:
        few_rows(out, out_step, w, scales, row, last, a, width, n_rows, panel)
    else:
        for first in range(row, last, MANY):
            _many_rows(out, out_step, w, scales, first, last, a, width, n_rows, panel)


def panel_room(n_rows: int) -> int:
    """How many floats of its own a thread needs for a product of floats with so many rows."""
    return PANELS * (COLUMNS * OUTPUTS + rounded_up(n_rows, FLOAT_ROWS) * OUTPUTS * LANES)
