"""A tensor that is made of several others when it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

    def stored(self, rows: Array | None = None) -> Array:
        return self._put_together(lambda part, rows: part.stored(rows), STORAGE[self.dtype], rows)

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return self._put_together(lambda part, rows: part.read(dtype, rows), dtype, rows)

    def _put_together(self, of: Callable[[Tensor, Array | None], Array], dtype: DTypeLike, rows: Array | None) -> Array:
        """The whole or some rows, of what `of` gives of each part."""
        if rows is None:
            joined = np.empty(self.shape, dtype)
            along = joined.swapaxes(0, self.axis)
            for number, part in enumerate(self.parts):
                place = along[number * self._step : (number + 1) * self._step]
                place.swapaxes(0, self.axis)[...] = of(part, None)
            return joined
        if self.axis == 1:
            return np.concatenate([of(part, rows) for part in self.parts], axis=-1)
        wanted = np.empty((*rows.shape, *self.shape[1:]), dtype)
        rows = rows % self.shape[0] if (rows < 0).any() else rows
        for number in np.unique(rows // self._step).tolist():
            here = rows // self._step == number
            wanted[here] = of(self.parts[number], rows[here] - number * self._step)
        return wanted
