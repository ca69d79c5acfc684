"""A tensor that is made of several others when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.weights.formats import STORAGE
from minillama.weights.safetensors import Tensor


class JoinedTensor:
    """Tensors of one shape and dtype, one after the other along an axis, 0 or 1."""

    def __init__(self, parts: Sequence[Tensor], axis: int):
        self.parts, self.axis, self.dtype = list(parts), axis, parts[0].dtype
        sides = list(parts[0].shape)
        self._step = sides[axis]  # what each part has of that side
        sides[axis] *= len(parts)
        self.shape = tuple(sides)

    def stored(self) -> Array:
        joined = np.empty(self.shape, STORAGE[self.dtype])
        for place, part in self._places(joined):
            place[...] = part.stored()
        return joined

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        if rows is None:
            joined = np.empty(self.shape, dtype)
            for place, part in self._places(joined):
                place[...] = part.read(dtype)
            return joined
        if self.axis == 1:
            return np.concatenate([part.read(dtype, rows) for part in self.parts], axis=-1)
        wanted = np.empty((*rows.shape, *self.shape[1:]), dtype)
        rows = rows % self.shape[0] if (rows < 0).any() else rows
        for number in np.unique(rows // self._step).tolist():
            here = rows // self._step == number
            wanted[here] = self.parts[number].read(dtype, rows[here] - number * self._step)
        return wanted

    def _places(self, joined: Array) -> Any:
        """Each part with the place it has in the whole."""
        along = joined.swapaxes(0, self.axis)
        for number, part in enumerate(self.parts):
            yield along[number * self._step : (number + 1) * self._step].swapaxes(0, self.axis), part
