"""Tensors a few megabytes at a time, in their own format or in another, for what is larger than the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.weights.formats import QUANTS, STORAGE, narrow, widen
from minillama.weights.mapped import PIECE
from minillama.weights.safetensors import Tensor


@runtime_checkable
class Streamed(Protocol):
    """A tensor that can be had in pieces without being read as a whole."""

    def pieces(self) -> Iterator[Array]: ...


def pieces(tensor: Tensor) -> Iterator[Array]:
    """The stored numbers in their order, one-dimensional, about PIECE bytes at a time; each is good until the next."""
    if isinstance(tensor, Streamed):
        yield from tensor.pieces()
    elif len(tensor.shape) == 2 and tensor.dtype not in QUANTS:
        step = max(1, PIECE // max(1, tensor.shape[1] * STORAGE[tensor.dtype].itemsize))
        for start in range(0, tensor.shape[0], step):
            rows = np.arange(start, min(start + step, tensor.shape[0]))
            yield np.ascontiguousarray(tensor.stored(rows)).reshape(-1)
    else:
        stored = tensor.stored().reshape(-1)
        for start in range(0, stored.size, PIECE):
            yield stored[start : start + PIECE]


def floats(tensor: Tensor, dtype: DTypeLike = np.float32) -> Iterator[Array]:
    """The same, widened to floats of `dtype`."""
    if tensor.dtype not in QUANTS:
        for piece in pieces(tensor):
            yield widen(piece, tensor.dtype, dtype)
        return
    step = max(1, PIECE // (np.dtype(dtype).itemsize * tensor.shape[1]))
    for start in range(0, tensor.shape[0], step):
        yield tensor.read(dtype, np.arange(start, min(start + step, tensor.shape[0]))).reshape(-1)


class ConvertedTensor:
    """Another tensor's numbers in another format, F64, F32, F16 or BF16, rounded when they are read."""

    def __init__(self, tensor: Tensor, dtype: str, name: str = "a tensor"):
        self.tensor, self.dtype, self.name = tensor, dtype, name
        self._wide = np.float64 if "F64" in (dtype, tensor.dtype) else np.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    def pieces(self) -> Iterator[Array]:
        return (self._narrowed(x) for x in floats(self.tensor, self._wide))

    def stored(self, rows: Array | None = None) -> Array:
        if rows is not None:
            return self._narrowed(self.tensor.read(self._wide, rows))
        stored, end = np.empty(math.prod(self.shape), STORAGE[self.dtype]), 0
        for piece in self.pieces():
            begin, end = end, end + piece.size
            stored[begin:end] = piece
        return stored.reshape(self.shape)

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return widen(self.stored(rows), self.dtype, dtype)

    def _narrowed(self, x: Array) -> Array:
        with np.errstate(over="ignore"):
            narrowed = narrow(x, self.dtype)
        if self.dtype == "F16" and (np.isinf(narrowed) & np.isfinite(x)).any():
            raise ValueError(
                f"{self.name} holds {x.flat[np.abs(np.nan_to_num(x, posinf=0, neginf=0)).argmax()]:g}, too large for "
                "float16: use bf16 or f32"
            )
        return narrowed
