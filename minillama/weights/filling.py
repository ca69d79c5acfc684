"""A safetensors file whose header is written first, and whose tensors come one by one, as they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import BinaryIO

import numpy as np

from minillama.arrays import Array
from minillama.files import reserve
from minillama.weights.formats import STORAGE
from minillama.weights.quantized import Part
from minillama.weights.saving import write_header


class Filling:
    """A file on its way. shapes: of every tensor there will be, in its order in the file; all are of one dtype, F64 or
    F32. notes: the metadata."""

    def __init__(self, out: BinaryIO, shapes: Mapping[str, tuple[int, ...]], dtype: str, notes: Mapping[str, str]):
        self._out, self._parts = out, {name: Part(dtype, shape) for name, shape in shapes.items()}
        ends = list(accumulate((part.nbytes for part in self._parts.values()), initial=0))
        self._spans = dict(zip(self._parts, pairwise(ends), strict=True))
        self._begin = write_header(out, self._parts, self._spans, notes)
        reserve(out, self._begin + ends[-1])
        self._missing = set(self._parts)

    def put(self, name: str, array: Array) -> None:
        """Write a tensor. ValueError if it has another shape than was said."""
        part = self._parts[name]
        if array.shape != part.shape:
            raise ValueError(f"{name} has the shape {array.shape} and not {part.shape}")
        self._out.seek(self._begin + self._spans[name][0])
        self._out.write(np.ascontiguousarray(array, STORAGE[part.dtype]).data)
        self._missing.discard(name)

    def finish(self, notes: Mapping[str, str]) -> None:
        """Write the metadata once more, which must be as long as before. ValueError if a tensor has not come."""
        if self._missing:
            raise ValueError(f"{min(self._missing)} has not been computed")
        self._out.seek(0)
        if write_header(self._out, self._parts, self._spans, notes) != self._begin:
            raise ValueError("the metadata must be as long as before")
