"""bfloat16 weights in three quarters of their room, without loss: rows of blocks, as minillama.layout says.

Decoding is bound by memory, so that a core has time to put numbers together while the next are on their way. A block
becomes eight vectors of float32, which are exactly those that plain bfloat16 gives, in the same order: so are all sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.cpython.unsafe.tuple import tuple_setitem
from numba.extending import intrinsic

from minillama import layout
from minillama.kernels import llvm
from minillama.kernels.blocks import outer, store_block, store_sums, zeros
from minillama.kernels.kept import kernel
from minillama.kernels.llvm import LANES, SOURCES, inner
from minillama.kernels.simd import prefetch
from minillama.layout import BLOCK, FAR, STEPS, WORDS, block_place

VECTORS = BLOCK // LANES
_place, note_words = njit(block_place), njit(layout.note_words)
SOON = 128  # bytes: so far ahead memory is asked for of what rows say
LINE = 16  # words of a cache line


@intrinsic
def expand(typing: Any, w: Any, i: Any, low: Any) -> Any:
    """The 128 numbers of the block in 48 words from w[i] on, whose exponents are counted from `low`: 8 vectors."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        words, i, low = args
        block = ir.Constant(ir.ArrayType(llvm.FLOATS, VECTORS), ir.Undefined)
        for number, vector in enumerate(_expanded(context, b, signature.args[0], words, i, low)):
            block = b.insert_value(block, vector, number)
        return block

    return llvm.block_of(VECTORS)(w, types.int64, types.int64), build


def _expanded(context: Any, b: Any, kind: Any, words: Any, i: Any, low: Any) -> list[Any]:
    """The eight vectors of a block."""
    place = llvm.pointer(context, b, kind, words, i, llvm.BYTES)
    *below, fours = (llvm.load_from(b, llvm.offset(b, place, part), 1) for part in range(3))
    least = llvm.repeat(b, b.trunc(low, llvm.I8), 64)

    def bits(count: int) -> Any:
        return llvm.constant(b, llvm.BYTES, count)

    def above(code: Any, sign: Any) -> Any:  # the upper byte: the sign and seven bits of the exponent
        return b.or_(b.and_(sign, bits(0x80)), b.add(b.and_(code, bits(STEPS - 1)), least))

    upper = above(fours, b.shl(fours, bits(4))), above(b.lshr(fours, bits(4)), fours)
    return [x for halves in zip(below, upper, strict=True) for x in _woven(b, *halves)]


def _woven(b: Any, low: Any, high: Any) -> Any:
    """Four vectors of float32 from 64 lower and upper bytes of bfloat16. Two bytes beside each other are one number,
    and two numbers are 32 bits, of which the second is the float32 of the second already, but for what is below it."""
    for half in range(2):
        lanes = [16 * quarter + 8 * half + n // 2 + 64 * (n % 2) for quarter in range(4) for n in range(16)]
        mask = ir.Constant(ir.VectorType(llvm.I32, 64), lanes)
        pairs = b.bitcast(b.shuffle_vector(low, high, mask), llvm.INTS)
        yield b.bitcast(b.shl(pairs, llvm.constant(b, llvm.INTS, 16)), llvm.FLOATS)
        yield b.bitcast(b.and_(pairs, llvm.constant(b, llvm.INTS, -(1 << 16))), llvm.FLOATS)


@intrinsic
def expand_plain(typing: Any, w: Any, i: Any) -> Any:
    """The same of a block that is plain bfloat16, 64 words."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        words, i = args
        place = llvm.pointer(context, b, signature.args[0], words, i, ir.VectorType(llvm.I16, LANES))
        block = ir.Constant(ir.ArrayType(llvm.FLOATS, VECTORS), ir.Undefined)
        for number in range(VECTORS):
            bits = b.zext(llvm.load_from(b, llvm.offset(b, place, number), 2), llvm.INTS)
            vector = b.bitcast(b.shl(bits, llvm.constant(b, llvm.INTS, 16)), llvm.FLOATS)
            block = b.insert_value(block, vector, number)
        return block

    return llvm.block_of(VECTORS)(w, types.int64), build


@intrinsic
def add_blocks(typing: Any, sums: Any, w: Any, places: Any, i: Any, lows: Any, a: Any, j: Any, rows: Any) -> Any:
    """sums[m, r] += x[n] * a[j + 16 (n rows + r) : + 16], of the eight vectors x[n] of the block w[places[m] + i :]."""
    R = llvm.literal(rows)
    if R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        sums, words, places, i, lows, activations, j, _ = args
        for m in range(places.type.count):
            place, low = b.add(b.extract_value(places, m), i), b.extract_value(lows, m)
            for n, vector in enumerate(_expanded(context, b, signature.args[1], words, place, low)):
                for r in range(R):
                    at = b.add(j, llvm.I64(LANES * (n * R + r)))
                    factor = llvm.floats(context, b, signature.args[5], activations, at)
                    total = llvm.call(b, "fma", vector, factor, b.extract_value(sums, m * R + r))
                    sums = b.insert_value(sums, total, m * R + r)
        return sums

    return sums(sums, w, places, types.int64, lows, a, types.int64, rows), build


@njit
def begin(w: Any, row: int) -> int:
    """Where the blocks of a row are."""
    return int(row + w[row])


@njit
def widen_block(panel: Any, k: int, step: int, w: Any, i: int, low: int, far: int) -> int:
    """The block at w[i:] as vectors panel[k], panel[k + step], ..; where the next one is. far: whether it is plain."""
    if far:
        store_block(panel, k, step, 0, expand_plain(w, i), 1)
        return i + FAR
    store_block(panel, k, step, 0, expand(w, i, low), 1)
    return i + WORDS


@njit
def widen_columns(
    panel: Any, k: int, step: int, w: Any, notes: Any, row: int, first: int, last: int, width: int
) -> None:
    """Columns first .. last - 1 of a row, whole blocks, as vectors panel[k], panel[k + step], .."""
    note = row * note_words(width)
    low, i = np.int64(notes[note]), begin(w, row)
    for block in range(last // BLOCK):
        far = notes[note + 1 + block // 16] >> block % 16 & 1
        if block >= first // BLOCK:
            i = widen_block(panel, k, step, w, i, low, far)
            k += step * VECTORS
        else:
            i += FAR if far else WORDS


def compressed_rows(streams: int, rows: int, ahead: int) -> Any:
    """The product of `streams` rows of weights, `apart` rows from each other, and one block of `rows` activation rows,
    as floats.py has it of floats."""
    n, none = streams * rows, (0,) * streams

    @inner
    def multiply(
        out: Any, out_step: int, w: Any, notes: Any, row: int, apart: int, a: Any, width: int, panel: Any
    ) -> None:
        count, blocks = note_words(width), width // BLOCK
        places, lows, i, k = none, none, 0, 0  # of a stream, a block is at places[m] + i
        for m in range(streams):
            here = row + m * apart
            places = tuple_setitem(places, m, begin(w, here))
            lows = tuple_setitem(lows, m, np.int64(notes[here * count]))
            prefetch(w, here, SOON)
            prefetch(notes, here * count, SOON)
        sums = zeros(n)
        for start in range(0, blocks, 16):
            note, any_far = row * count + 1 + start // 16, np.int64(0)
            for m in range(streams):
                any_far |= np.int64(notes[note + m * apart * count])
            for block in range(min(16, blocks - start)):
                for m in range(streams):
                    for line in range(0, WORDS, LINE):
                        prefetch(w, places[m] + i + line, ahead)
                if any_far >> block & 1:
                    for m in range(streams):
                        far = np.int64(notes[note + m * apart * count]) >> block & 1
                        end = widen_block(panel, m * BLOCK, LANES, w, places[m] + i, lows[m], far)
                        places = tuple_setitem(places, m, end - i - WORDS)
                    for c in range(0, BLOCK, LANES):
                        sums = outer(sums, panel, c, BLOCK, a, k + c * rows, rows)
                else:
                    sums = add_blocks(sums, w, places, i, lows, a, k, rows)
                i += WORDS
                k += BLOCK * rows
        store_sums(out, row, apart, out_step, sums, rows)

    return multiply


# -- packing ------------------------------------------------------------------------------------------------------


def _kept_survey(sources: str) -> Any:
    @kernel
    def survey(bits: Any, notes: Any, sizes: Any) -> None:
        """Which exponents the rows of a matrix have: bfloat16 bits (n, size) give notes (n, note_words(width)) and the
        words that each row takes, (n,).

        Of all that could be the least exponent that is taken which leaves the fewest blocks plain.
        """
        sources  # noqa: B018  # see llvm.SOURCES
        n, size = bits.shape
        blocks = (size + BLOCK - 1) // BLOCK
        gains = np.empty(129, np.int64)
        lowest, highest = np.empty(blocks, np.int64), np.empty(blocks, np.int64)
        for row in range(n):
            gains[:] = 0  # of each exponent, against the one before it
            for block in range(blocks):
                lowest[block], highest[block] = 127, 0
                for k in range(block * BLOCK, min((block + 1) * BLOCK, size)):
                    exponent = np.int64(bits[row, k]) >> 8 & 127
                    lowest[block] = min(lowest[block], exponent)
                    highest[block] = max(highest[block], exponent)
                if highest[block] - lowest[block] < STEPS:
                    gains[max(highest[block] - STEPS + 1, 0)] += 1
                    gains[lowest[block] + 1] -= 1
            low = fitting = most = 0
            for least in range(128):
                fitting += int(gains[least])
                if fitting > most:
                    low, most = least, fitting
            notes[row, :] = 0
            notes[row, 0] = low
            sizes[row] = WORDS * blocks
            for block in range(blocks):
                if lowest[block] < low or highest[block] >= low + STEPS:
                    notes[row, 1 + block // 16] |= 1 << block % 16
                    sizes[row] += FAR - WORDS

    return survey


def _kept_compress(sources: str) -> Any:
    @kernel
    def compress(bits: Any, notes: Any, starts: Any, out: Any) -> None:
        """Write the blocks of rows, which begin at word starts[row] of `out`, its bytes; the rest is survey's."""
        sources  # noqa: B018  # see llvm.SOURCES
        n, size = bits.shape
        for row in range(n):
            i, low = 4 * starts[row], np.int64(notes[row, 0])
            for block in range((size + BLOCK - 1) // BLOCK):
                far = np.int64(notes[row, 1 + block // 16]) >> block % 16 & 1
                for k in range(BLOCK):
                    column = block * BLOCK + k
                    x = np.int64(bits[row, column]) if column < size else 0 if far else low << 8
                    if far:
                        out[i + 2 * k], out[i + 2 * k + 1] = x & 255, x >> 8
                        continue
                    place, code = _place(k), x >> 15 << 3 | (x >> 8 & 127) - low
                    out[i + k // 64 * 64 + place] = x & 255
                    fours = i + BLOCK + place
                    out[fours] = out[fours] | code << 4 if k >= 64 else code
                i += 4 * (FAR if far else WORDS)

    return compress


survey, compress = _kept_survey(SOURCES), _kept_compress(SOURCES)
