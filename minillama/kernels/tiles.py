"""Blocks of ggml's formats rearranged into tiles; weights/tiles.py has the same in NumPy, and the way back."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types
from numba.extending import intrinsic

from minillama.kernels import llvm
from minillama.kernels.kept import kernel
from minillama.kernels.llvm import SOURCES
from minillama.layout import TILE


class Fields(NamedTuple):
    """Where a block has its parts, in bytes, and how many words of numbers there are: the lower bits or all, and the
    upper ones. flip: what is changed in every word. fifth: whether the upper bits are one word, a bit for each column.
    d, m: float16 scales, m -1 where there are none. parts: scales of parts; six_bits: whether they are 12 bytes of 6
    bits each, or else so many signed bytes. size: of a block; scales: bytes of all scales of a row."""

    size: int
    low: int
    low_words: int
    high: int
    high_words: int
    flip: int
    fifth: bool
    d: int
    m: int
    parts: int
    n_parts: int
    six_bits: bool
    scales: int


@intrinsic
def word_at(typing: Any, a: Any, i: Any) -> Any:
    """The four bytes a[i : i + 4], as one number."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, index = args
        return llvm.load_from(b, llvm.pointer(context, b, signature.args[0], array, index, llvm.I32), 1)

    return types.uint32(a, types.int64), build


def _kept(sources: str) -> Any:
    @kernel
    def fill_tiles(
        stored: Any, order: Any, blocks: int, f: Any, first: int, last: int, numbers: Any, scales: Any
    ) -> None:
        """Fill the tiles first .. last - 1 of `numbers` (uint32) and `scales` (uint8) from blocks in `stored` (uint8).

        order: which row of `stored` each row is; rows that only fill up have zeros. blocks: of a row.
        """
        sources  # noqa: B018  # see llvm.SOURCES
        words, halves = f.low_words + f.high_words, 2 if f.m >= 0 else 1
        for tile in range(first, last):
            for row in range(TILE):
                i = tile * TILE + row
                for block in range(blocks):
                    to = (tile * blocks + block) * words * TILE + row
                    beside = (tile * blocks + block) * f.scales * TILE
                    if i >= len(order):
                        for w in range(words):
                            numbers[to + w * TILE] = 0
                        for k in range(2 * halves):
                            scales[beside + k // 2 * 2 * TILE + 2 * row + k % 2] = 0
                        for k in range(2 * halves, f.scales):
                            scales[beside + k * TILE + row] = 0
                        continue
                    start = (order[i] * blocks + block) * f.size
                    for w in range(f.low_words):
                        numbers[to + w * TILE] = word_at(stored, start + f.low + 4 * w) ^ f.flip
                    to += f.low_words * TILE
                    for w in range(f.high_words):
                        numbers[to + w * TILE] = word_at(stored, start + f.high + 4 * w)
                    if f.fifth:
                        bits, moved = word_at(stored, start + f.high), 0
                        for k in range(8):
                            for c in range(4):
                                moved |= (bits >> (4 * k + c) & 1) << (8 * c + k)
                        numbers[to] = moved
                    for k in range(2):
                        scales[beside + 2 * row + k] = stored[start + f.d + k]
                        if f.m >= 0:
                            scales[beside + 2 * TILE + 2 * row + k] = stored[start + f.m + k]
                    parts, beside = start + f.parts, beside + 2 * halves * TILE + row
                    for p in range(f.n_parts):
                        scales[beside + p * TILE] = stored[parts + p]
                    if f.six_bits:
                        for p in range(4):
                            one, two, three = stored[parts + p], stored[parts + 4 + p], stored[parts + 8 + p]
                            scales[beside + p * TILE] = one & 63 | (two >> 4 & 3) << 6
                            scales[beside + (4 + p) * TILE] = three & 15 | one >> 6 << 4 | (two >> 6) << 6
                        for p in range(2):
                            two, other = stored[parts + 4 + 2 * p], stored[parts + 5 + 2 * p]
                            three, fourth = stored[parts + 8 + 2 * p], stored[parts + 9 + 2 * p]
                            scales[beside + (8 + p) * TILE] = two & 15 | (other & 15) << 4
                            scales[beside + (10 + p) * TILE] = three >> 4 | fourth >> 4 << 4

    return fill_tiles


fill_tiles = _kept(SOURCES)
