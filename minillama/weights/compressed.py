"""bfloat16 matrices in three quarters of their room, without loss: the format bf16z, arranged as minillama.layout says.

In a safetensors file a matrix NAME is two tensors, as they lie in memory: NAME.bf16z, words, and NAME.rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.layout import BLOCK, COMPRESSED, FAR, LEAST_ROWS, STEPS, WORDS, block_place, note_words, rounded_up
from minillama.weights.formats import widen
from minillama.weights.safetensors import Tensor

ROWS = "rows"
SOME = 1 << 14  # blocks that are read together
_PLACES = np.array([block_place(column) for column in range(64)])


class CompressedTensor:
    """A matrix (n_out, width) in bf16z: words, and what is known of its rows, in memory or mapped.

    source: what it was made of, if that was here and now. ValueError if the parts do not belong together: whoever
    reads a row goes where they say.
    """

    form, dtype = COMPRESSED, "BF16Z"

    def __init__(self, shape: tuple[int, int], numbers: Array, rows: Array, source: Tensor | None = None):
        self.shape, self.source = shape, source
        self.numbers, self.rows = numbers.reshape(-1), rows.reshape(-1)
        n, blocks = max(shape[0], LEAST_ROWS), rounded_up(shape[1], BLOCK) // BLOCK
        head = rounded_up(n, 16)
        if self.rows.size == n * note_words(shape[1]) and self.numbers.size >= head:
            notes = self.rows.reshape(n, -1)
            far = _bits(notes[:, 1:], blocks)
            ends = head + np.cumsum(WORDS * blocks + (FAR - WORDS) * far.sum(axis=1))
            self.starts = np.concatenate(([head], ends[:-1]))
            same = np.array_equal(self.starts, self.numbers[:n].astype(np.int64) + np.arange(n))
            if same and ends[-1] == self.numbers.size and ((notes[:, 0] >= 0) & (notes[:, 0] <= 128 - STEPS)).all():
                return
        raise ValueError(
            f"{self.numbers.size} words and what is said of their rows are no {COMPRESSED} matrix of {shape}"
        )

    @property
    def parts(self) -> dict[str, tuple[str, Array]]:
        """What a file has of it: the ends of the names, each with the number format and the array."""
        return {COMPRESSED: ("U32", self.numbers), ROWS: ("I16", self.rows)}

    def stored(self, rows: Array | None = None) -> Array:
        """The words, of which rows have no fixed number."""
        if rows is not None:
            raise ValueError("rows of a compressed matrix are not stored by themselves: read them")
        return self.numbers

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        """The whole, or some rows, as floats of `dtype`."""
        wanted = np.arange(self.shape[0])[slice(None) if rows is None else rows]
        out = np.empty((wanted.size, self.shape[1]), dtype)
        step = max(1, SOME * BLOCK // rounded_up(self.shape[1], BLOCK))
        for start in range(0, wanted.size, step):
            bits = self._bfloat16(wanted.reshape(-1)[start : start + step])
            out[start : start + step] = widen(bits[:, : self.shape[1]], "BF16", dtype)
        return out.reshape(*wanted.shape, self.shape[1])

    def _bfloat16(self, rows: Array) -> Array:
        """The bits of some rows (n,), (n, width) with whole blocks."""
        notes = self.rows.reshape(len(self.starts), -1)[rows]
        far = _bits(notes[:, 1:], rounded_up(self.shape[1], BLOCK) // BLOCK)
        sizes = np.where(far, FAR, WORDS)
        places = self.starts[rows, None] + np.cumsum(sizes, axis=1) - sizes
        bits = np.empty((*far.shape, BLOCK), np.uint16)
        bits[far] = self.numbers[places[far][:, None] + np.arange(FAR)].view(np.uint16)
        near = ~far
        stored = self.numbers[places[near][:, None] + np.arange(WORDS)].view(np.uint8)
        fours = stored[:, BLOCK + _PLACES]
        codes = np.concatenate((fours & 15, fours >> 4), axis=1).astype(np.uint16)
        low = np.broadcast_to(notes[:, :1].astype(np.uint16), far.shape)[near][:, None]
        upper = (codes >> 3 << 7) + (codes & STEPS - 1) + low
        bits[near] = upper << 8 | np.concatenate((stored[:, _PLACES], stored[:, 64 + _PLACES]), axis=1)
        return bits.reshape(len(rows), -1)


def _bits(words: Array, count: int) -> Array:
    """The first `count` bits of each row (n, words) of int16, the lowest bit of a word first, as truth values."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, count=count, bitorder="little").view(bool)
