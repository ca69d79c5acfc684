"""q and k projections that a file has in Meta's rotary layout."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.weights.names import interleaved_to_halves
from minillama.weights.safetensors import Tensor


class InterleavedTensor:
    """The rows of a q or k projection in Hugging Face's rotary layout, from a tensor that has them in Meta's."""

    def __init__(self, tensor: Tensor, heads: int):
        self.tensor, self.heads = tensor, heads
        self.dtype, self.shape = tensor.dtype, tensor.shape

    def stored(self, rows: Array | None = None) -> Array:
        return self.tensor.stored(self._place(rows))

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return self.tensor.read(dtype, self._place(rows))

    def _place(self, rows: Array | None) -> Array:
        """Where the rows are in the file."""
        order = interleaved_to_halves(np.arange(self.shape[0]), self.heads)
        return order if rows is None else order[rows]
