"""Fewer key/value heads than a checkpoint has: a grouped-query model from a multi-head one.

As in GQA (Ainslie et al. 2023, section 2.1, https://arxiv.org/abs/2305.13245): the projections of each group of heads
are averaged. A model made so is a beginning for further training, not as good as the one it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array, plain
from minillama.config import LlamaConfig
from minillama.messages import listed, shown
from minillama.weights import names
from minillama.weights.formats import QUANTS, narrow, widen
from minillama.weights.safetensors import Tensor


class PooledTensor:
    """A key or value projection (heads K, in), or its bias, with each group of neighbouring heads averaged.

    heads: how many there are, kv_heads: how many are wanted. Row (g, i) is the mean of the rows (h, i) of the heads h
    that belong to group g, rounded to the format of the stored numbers.
    """

    def __init__(self, tensor: Tensor, heads: int, kv_heads: int):
        self.tensor, self.dtype = tensor, tensor.dtype
        self._size, self._group = tensor.shape[0] // heads, heads // kv_heads
        self.shape = (kv_heads * self._size, *tensor.shape[1:])

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return widen(self.stored(rows), self.dtype, dtype)

    def stored(self, rows: Array | None = None) -> Array:
        rows = np.arange(self.shape[0]) if rows is None else rows
        wide = np.float64 if self.dtype == "F64" else np.float32
        first = rows // self._size * self._group * self._size + rows % self._size  # of the group's first head
        total = np.zeros((*rows.shape, *self.shape[1:]), wide)
        for head in range(self._group):
            total += self.tensor.read(wide, first + head * self._size)
        return narrow(total / wide(self._group), self.dtype)


def mean_pooled(
    tensors: Mapping[str, Tensor], config: LlamaConfig, kv_heads: int
) -> tuple[dict[str, Tensor], LlamaConfig]:
    """The tensors and the config of the same model with `kv_heads` key/value heads; nothing is read yet.

    Query head h, which read key/value head h // (H / G), reads the mean that this head went into. The rows may be in
    either rotary layout: heads are averaged row by row. ValueError if G is no multiple of kv_heads, or for quantized
    weights.
    """
    heads = config.num_key_value_heads
    kv_heads = plain(kv_heads)
    if type(kv_heads) is not int or not 1 <= kv_heads <= heads or heads % kv_heads:
        raise ValueError(
            f"the model's {heads} key/value heads cannot be pooled to {shown(kv_heads)}: "
            f"use one of {listed(str(n) for n in range(1, heads + 1) if heads % n == 0)}"
        )
    made = dict(tensors)
    for layer in range(config.num_hidden_layers):
        for attribute in ("k_proj", "v_proj", "k_bias", "v_bias"):
            name = names.layer_name(layer, attribute)
            if name in made and kv_heads < heads:
                if made[name].dtype in QUANTS:
                    raise ValueError(f"{name} is quantized and cannot be averaged: use the weights it was made from")
                made[name] = PooledTensor(made[name], heads, kv_heads)
    return made, LlamaConfig.from_dict(config.to_dict() | {"num_key_value_heads": kv_heads})
