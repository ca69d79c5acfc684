"""LoRA adapters (Hu et al. 2021, arXiv:2106.09685): what one has, and weights that are merged as they are read.

A matrix W with an adapter is W + scale B A, where A has r rows and B r columns. lora_peft.py and lora_gguf.py read
them, merging.py puts them into a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.weights.formats import STORAGE, narrow, widen
from minillama.weights.safetensors import Tensor

BLOCK = 64  # rows that are merged together: products of one shape, so that a row's bits never depend on its company


class Pair(NamedTuple):
    """An adapter of one matrix: A (rank, in) and B (out, rank), or of an embedding their transposes (transposed), and
    what their product is multiplied by. rank: as it is stated."""

    a: Tensor
    b: Tensor
    rank: int
    scale: float
    transposed: bool = False


class Contents(NamedTuple):
    """What an adapter's file has, by the model's names: copies of what was adapted (of tables whose size may have been
    changed), tensors that were trained whole, and the adapters proper."""

    bases: dict[str, Tensor]
    trained: dict[str, Tensor]
    pairs: dict[str, Pair]

    def without(self, *excluded: str) -> Contents:
        for part in self:
            for name in excluded:
                part.pop(name, None)
        return self


class UnfitError(ValueError):
    """An adapter that is of this model, and that cannot be merged as it is; the sentence says what to do."""


class MergedTensor:
    """base + scale B A, computed in float32 (float64 for a base of that) and rounded to the base's own format.

    The numbers are the same however they are read, and those of peft on a CPU, up to the order in which a product's
    terms are added. Where the pair is transposed, a is (r, rows) and b (columns, r), and scale (B A)^T is added.
    """

    def __init__(self, base: Tensor, pair: Pair):
        self.base, self.pair = base, pair
        self.dtype, self.shape = base.dtype, base.shape

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return widen(self.stored(rows), self.dtype, dtype)

    def stored(self, rows: Array | None = None) -> Array:
        if rows is None:
            out = np.empty(self.shape, STORAGE[self.dtype])
            for start in range(0, self.shape[0], BLOCK):
                out[start : start + BLOCK] = self._block(start)
            return out
        out = np.empty((*rows.shape, self.shape[1]), STORAGE[self.dtype])
        starts = rows // BLOCK * BLOCK
        for start in np.unique(starts).tolist():
            here = starts == start
            out[here] = self._block(start)[rows[here] - start]
        return out

    def pieces(self) -> Iterator[Array]:
        """The stored numbers in their order, a block at a time, each merged once."""
        return (self._block(start).reshape(-1) for start in range(0, self.shape[0], BLOCK))

    def _block(self, start: int) -> Array:
        """Rows start .. start + BLOCK - 1, as they are stored."""
        rows = np.arange(start, min(start + BLOCK, self.shape[0]))
        dtype = np.float64 if self.dtype == "F64" else np.float32
        if self.pair.transposed:
            left = widen(self.pair.a.stored()[:, rows], self.pair.a.dtype, dtype).T
            right = self.pair.b.read(dtype).T
        else:
            left, right = self.pair.b.read(dtype, rows), self.pair.a.read(dtype)
        added = (left @ right) * dtype(self.pair.scale)
        if self.pair.transposed:  # peft rounds what it adds to a table, not what it adds to other matrices
            added = widen(narrow(added, self.dtype), self.dtype, dtype)
        return narrow(self.base.read(dtype, rows) + added, self.dtype)
