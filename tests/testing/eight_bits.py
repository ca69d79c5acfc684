"""An adapter that works as kernels for quantized weights do: every product with weights is one of numbers that have
been rounded to 8 bits in groups of 32."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.layout import GROUP
from minillama.model.decoder import Decoder
from minillama.model.heads import lm_logits
from minillama.model.mlp import mlp as feed_forward
from minillama.model.mlp import silu
from minillama.weights import names

level = "quantized"


class EightBits:
    """What `x @ weights.T` rounds both sides of."""

    __array_ufunc__ = None  # so that NumPy asks this class for the product

    def __init__(self, w: Array):
        self.w = in_groups(w)

    @property
    def T(self) -> EightBits:  # noqa: N802  # NumPy's name
        return self

    def __rmatmul__(self, x: Array) -> Array:
        return in_groups(x) @ self.w.T


def in_groups(x: Array) -> Array:
    """The nearest numbers of 8 bits times the scale of their group."""
    groups = x.reshape(-1, GROUP)
    scale = np.abs(groups).max(axis=1, keepdims=True) / 127
    return (np.rint(groups / np.where(scale == 0, 1, scale)) * scale).reshape(x.shape).astype(np.float32)


def mlp(x: Array, gate: Array, up: Array, down: Array) -> Array:
    matrices = {"gate_proj": EightBits(gate), "up_proj": EightBits(up), "down_proj": EightBits(down)}
    return feed_forward(x, SimpleNamespace(**matrices, gate_bias=None, up_bias=None, down_bias=None), silu)


def model(config: LlamaConfig, weights: dict[str, Array]) -> Any:
    def weight(name: str) -> Any:
        w = weights.get(name)
        return w if w is None or w.ndim == 1 else EightBits(w)

    layers = [
        SimpleNamespace(**{attribute: weight(names.layer_name(i, attribute)) for attribute in names.LAYER})
        for i in range(config.num_hidden_layers)
    ]
    embedding = weights[names.EMBED_TOKENS]
    decoder = Decoder(config, SimpleNamespace(embed_tokens=embedding, layers=layers, norm=weight(names.NORM)))
    head = weight(names.EMBED_TOKENS if config.tie_word_embeddings else names.LM_HEAD)

    def run(ids: Array, mask: Array | None = None) -> Array:
        return lm_logits(decoder(decoder.embed(ids), decoder.new_cache(), mask), head)

    return run
