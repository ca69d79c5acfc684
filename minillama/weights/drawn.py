"""Weights that nobody has trained: drawn at random, and only when they are read."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.weights import names
from minillama.weights.formats import STORAGE, narrow, widen
from minillama.weights.safetensors import Tensor

BLOCK = 1 << 16  # numbers that are drawn together, so that a few rows of a large table are soon had


class DrawnTensor:
    """Normal numbers of mean 0 and standard deviation `std`, the same at every reading: they follow from the seed."""

    dtype = "F32"

    def __init__(self, shape: tuple[int, int], std: float, seed: list[int], zero_row: int | None = None):
        self.shape, self.std, self.seed, self.zero_row = shape, std, seed, zero_row
        self._rows = max(1, BLOCK // shape[1])  # of a block

    def stored(self, rows: Array | None = None) -> Array:
        return self.read(np.float32, rows)

    def pieces(self) -> Iterator[Array]:
        """The numbers in their order, some at a time."""
        return (self._block(number).reshape(-1) for number in range(math.ceil(self.shape[0] / self._rows)))

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        if rows is None:
            return np.concatenate(list(self.pieces())).reshape(self.shape).astype(dtype, copy=False)
        wanted = np.empty((*rows.shape, self.shape[1]), dtype)
        of = rows // self._rows
        for number in np.unique(of).tolist():
            wanted[of == number] = self._block(number)[rows[of == number] % self._rows]
        return wanted

    def _block(self, number: int) -> Array:
        start = number * self._rows
        size = (min(self._rows, self.shape[0] - start), self.shape[1])
        block = np.random.default_rng([*self.seed, number]).standard_normal(size, np.float32) * np.float32(self.std)
        if self.zero_row is not None and start <= self.zero_row < start + size[0]:
            block[self.zero_row - start] = 0
        return block


class ConstantTensor:
    """The same number everywhere."""

    dtype = "F32"

    def __init__(self, shape: tuple[int, ...], value: float):
        self.shape, self.value = shape, value

    def stored(self, rows: Array | None = None) -> Array:
        return self.read(np.float32, rows)

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return np.full(self.shape, self.value, dtype)


class ResizedTensor:
    """The first rows of a matrix, and further ones from a second matrix if the first has too few; in its format."""

    def __init__(self, first: Tensor, further: Tensor, rows: int):
        self.first, self.further = first, further
        self.dtype, self.shape = first.dtype, (rows, first.shape[1])

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return widen(self.stored(rows), self.dtype, dtype)

    def stored(self, rows: Array | None = None) -> Array:
        kept, rows = self.first.shape[0], np.arange(self.shape[0]) if rows is None else rows
        wanted, old = np.empty((*rows.shape, self.shape[1]), STORAGE[self.dtype]), rows < kept
        wanted[old] = self.first.stored(rows[old])
        wanted[~old] = narrow(self.further.read(np.float32, rows[~old] - kept), self.dtype)
        return wanted


def draw_tensors(config: LlamaConfig, seed: int, head: str | None) -> dict[str, Tensor]:
    """Every tensor of a new model: matrices normal with standard deviation initializer_range, norms 1, biases 0, the
    row of the padding token 0. What a tensor holds depends on the seed and its own name, not on what is beside it."""
    tensors: dict[str, Tensor] = {}
    for name, shape in names.expected_shapes(config, head).items():
        if len(shape) == 1:
            tensors[name] = ConstantTensor(shape, 0 if name.endswith("bias") else 1)
        else:
            tensors[name] = draw_matrix(config, seed, name, shape)
    if config.tie_word_embeddings and head == names.LM_HEAD:
        tensors[names.LM_HEAD] = tensors[names.EMBED_TOKENS]
    return tensors


def draw_matrix(config: LlamaConfig, seed: int, name: str, shape: tuple[int, ...]) -> DrawnTensor:
    """One new matrix."""
    padding = config.pad_token_id if name == names.EMBED_TOKENS else None
    return DrawnTensor((shape[0], shape[1]), config.initializer_range, [seed, zlib.crc32(name.encode())], padding)
