"""What the model reads its weights through: attributes that widen the stored numbers at the moment they are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.weights import names
from minillama.weights.safetensors import Tensor

KEEP_BELOW = 1 << 30  # bytes: models that are smaller than this when widened are widened once and kept


def count(tensors: Mapping[str, Tensor]) -> int:
    """How many numbers some tensors are, those of one that has several names counted once."""
    unique = {id(tensor): tensor for tensor in tensors.values()}
    return sum(math.prod(tensor.shape) for tensor in unique.values())


class Parameters:
    """The weights of a decoder and its head, if it has one, as floats of one dtype.

    A large checkpoint stays on disk: each matrix is widened when the model asks for it and forgotten after use, so
    memory holds one at a time. A small one is kept as it was first widened.
    """

    def __init__(self, tensors: Mapping[str, Tensor], config: LlamaConfig, dtype: DTypeLike = np.float32):
        self.tensors, self.dtype = dict(tensors), np.dtype(dtype)
        self.keep = self.widened_size <= KEEP_BELOW
        self.on_read: Callable[[int], object] | None = None  # is told the bytes of every tensor that is read from disk
        self._kept: dict[str, Array] = {}
        self.layers = [Layer(self, i) for i in range(config.num_hidden_layers)]
        self.embed_tokens = Table(self, names.EMBED_TOKENS)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is read again."""
        return vars(self) | {"_kept": {}, "on_read": None}

    @property
    def norm(self) -> Array:
        return self.read(names.NORM)

    @property
    def lm_head(self) -> Array:
        return self.read(names.LM_HEAD)

    @property
    def score(self) -> Array:
        return self.read(names.SCORE)

    def count(self) -> int:
        """How many numbers there are, those of a tied head counted once."""
        return count(self.tensors)

    @property
    def widened_size(self) -> int:
        """Bytes that all of them together take in `dtype`."""
        return self.count() * self.dtype.itemsize

    @property
    def pass_size(self) -> int:
        """Bytes that one forward pass widens: everything but an embedding that is not the head too."""
        embedding, head = self.tensors[names.EMBED_TOKENS], self.tensors.get(names.LM_HEAD)
        looked_up = 0 if embedding is head else math.prod(embedding.shape) * self.dtype.itemsize
        return self.widened_size - looked_up

    @property
    def working_size(self) -> int:
        """Bytes of memory that reading them takes at most: everything if kept, else the two largest at a time."""
        largest = max(math.prod(tensor.shape) for tensor in self.tensors.values())
        return self.widened_size if self.keep else 2 * largest * self.dtype.itemsize

    def replace(self, name: str, tensor: Tensor) -> None:
        """Read another tensor by this name from now on."""
        self.tensors[name] = tensor
        self._kept.pop(name, None)

    def read(self, name: str) -> Array:
        kept = self._kept.get(name)
        if kept is None:
            kept = self.tensors[name].read(self.dtype)
            if self.on_read:
                self.on_read(kept.nbytes)
            if self.keep:
                self._kept[name] = kept
        return kept


class Layer:
    """One decoder layer's weights, by the model's own names; a bias that the config has not is None."""

    def __init__(self, parameters: Parameters, index: int):
        self._parameters, self._index = parameters, index

    def __getattr__(self, attribute: str) -> Any:
        if attribute not in names.LAYER:
            raise AttributeError(attribute)
        name = names.layer_name(self._index, attribute)
        return self._parameters.read(name) if name in self._parameters.tensors else None


class Table:
    """The embedding table: only the rows that are asked for are widened."""

    def __init__(self, parameters: Parameters, name: str):
        self._parameters, self._name = parameters, name

    def __getitem__(self, ids: Array) -> Array:
        return self._parameters.tensors[self._name].read(self._parameters.dtype, rows=ids)
