"""minillama's own NumPy model, as the conformance suite calls it:

pytest --pyargs minillama.testing.suite --impl minillama.testing.adapters.numpy_model
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.generation.sampling import Sampling
from minillama.model import mlp as feed_forward
from minillama.model.attention import grouped_context, grouped_scores, visible_keys
from minillama.model.cache import KVCache
from minillama.model.decoder import Decoder
from minillama.model.heads import lm_logits
from minillama.model.norm import rms_norm as rms_norm
from minillama.model.ops import softmax
from minillama.model.rope import Rotary, rotate
from minillama.weights import Parameters, names
from minillama.weights.safetensors import ArrayTensor

level, layout = "float32", "halves"


def rope(x: Array, positions: Array, theta: float, scaling: dict[str, Any] | None) -> Array:
    head: dict[str, Any] = {"hidden_size": x.shape[-1], "num_attention_heads": 1}
    rotary = Rotary(LlamaConfig(**head, rope_theta=theta, rope_scaling=scaling))
    return rotate(x, *rotary.angles(positions, rotary.inv_freq(positions, positions.shape[1]), x.dtype))


def attention(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    seen = visible_keys(q.shape[2], k.shape[2]) if mask is None else mask
    scores = grouped_scores(q, k) / math.sqrt(q.shape[3])
    return grouped_context(softmax(np.where(seen, scores, -math.inf)), v)


class _Cache(KVCache):
    """A cache that is cut by the tokens it has, not by the positions that a decoder notes."""

    def cut(self, length: int) -> None:
        self._lengths = [length] * len(self)


def kv_cache(num_layers: int, shape: tuple[int, ...]) -> KVCache:
    return _Cache(num_layers)


def mlp(x: Array, gate: Array, up: Array, down: Array) -> Array:
    weights = SimpleNamespace(gate_proj=gate, up_proj=up, down_proj=down, gate_bias=None, up_bias=None, down_bias=None)
    return feed_forward.mlp(x, weights, feed_forward.silu)


class Model:
    """Makes logits of ids, and goes on from what a cache holds."""

    def __init__(self, config: LlamaConfig, weights: Mapping[str, Array]):
        arrays = {name: ArrayTensor(array) for name, array in weights.items()}
        self.weights = Parameters(names.match_tensors(config, arrays, {}, "weights"), config)
        self.decoder = Decoder(config, self.weights)

    def __call__(self, ids: Array, mask: Array | None = None) -> Array:
        return self._logits(ids, self.decoder.new_cache(), mask)

    def cached(self, ids: Array, past: KVCache | None) -> tuple[Array, KVCache]:
        past = self.decoder.new_cache() if past is None else past
        return self._logits(ids, past, None), past

    def _logits(self, ids: Array, cache: KVCache, mask: Array | None) -> Array:
        return lm_logits(self.decoder(self.decoder.embed(ids), cache, mask), self.weights.lm_head)


model = Model


def sampler(logits: Array, settings: Sampling, seen: Sequence[int]) -> Array:
    return settings.probabilities(logits, seen)


def draw(logits: Array, settings: Sampling, seen: Sequence[int], seed: int) -> int:
    return settings.choose(logits, seen, np.random.default_rng(seed))
