"""The decoder: embeddings, a stack of identical layers, a final norm."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minillama.arrays import Array, check_ids, integers
from minillama.compat import COMPAT, Compat
from minillama.config import LlamaConfig
from minillama.model.attention import self_attention, visible_keys
from minillama.model.cache import KVCache
from minillama.model.mask_compat import unseen_scores
from minillama.model.mlp import Activation, activation, mlp
from minillama.model.norm import rms_norm
from minillama.model.ops import Tap, no_tap, scoped
from minillama.model.rope import Rotary, Rotations
from minillama.model.rope_compat import UpstreamRotary
from minillama.model.weights import DecoderWeights, LayerWeights


def decoder_layer(
    x: Array,
    w: LayerWeights,
    config: LlamaConfig,
    act: Activation,
    rotations: Rotations,
    visible: Array,
    cache: KVCache,
    layer: int,
    tap: Tap = no_tap,
    *,
    unseen: Array | float = -math.inf,
    parts: int = 1,
) -> Array:
    """x + attention(norm(x)), then + mlp(norm(that)): (B, T, D) -> (B, T, D). Norms come first (pre-norm)."""
    h = rms_norm(x, w.input_norm, config.rms_norm_eps)
    tap("input_norm", h)
    attention_tap = scoped(tap, "self_attn.")
    x = x + self_attention(
        h, w, config.head_dim, rotations, visible, cache, layer, attention_tap, unseen=unseen, parts=parts
    )
    tap("residual", x)
    h = rms_norm(x, w.post_attention_norm, config.rms_norm_eps)
    tap("post_attention_norm", h)
    x = x + mlp(h, w, act, scoped(tap, "mlp."), parts)
    tap("output", x)
    return x


class Decoder:
    """The stack of layers, with the weights it reads and the rotary angles it turns by."""

    def __init__(self, config: LlamaConfig, weights: DecoderWeights, compat: Compat = COMPAT[None]):
        self.config, self.weights, self.compat = config, weights, compat
        length = compat.rope_length
        self.rotary = Rotary(config) if length == "token" else UpstreamRotary(config, length)
        self.parts = config.pretraining_tp if compat.pretraining_tp else 1
        self.act = activation(config.hidden_act)

    def new_cache(self) -> KVCache:
        return KVCache(self.config.num_hidden_layers, self.rotary)

    def owns(self, past: object) -> bool:
        """Whether this is a cache of this decoder's kind; ValueError for that of another model."""
        if not isinstance(past, KVCache):
            return False
        c = self.config
        dtype = self.weights.norm.dtype
        past.check(c.num_hidden_layers, c.num_key_value_heads, c.head_dim, self.rotary, dtype)
        return True

    def cache_of(self, pairs: Sequence[tuple[Array, Array]]) -> KVCache:
        """A cache with what another one handed out."""
        return KVCache.from_pairs(pairs, self.rotary)

    def embed(self, input_ids: Any) -> Array:
        """Integers in 0 .. V - 1, (B, T) or any shape -> (B, T, D)"""
        input_ids = integers("input_ids", input_ids)
        check_ids("input_ids", input_ids, self.config.vocab_size)
        return self.weights.embed_tokens[input_ids]

    def __call__(
        self,
        x: Array,
        cache: KVCache,
        attention_mask: Array | None = None,
        positions: Array | None = None,
        tap: Tap = no_tap,
    ) -> Array:
        """Embeddings (B, T, D) -> normalized hidden states (B, T, D); what is new is appended to the cache.

        attention_mask: (B, past + T), 1 for a token and 0 for padding. positions: (B, T), by default counted from
        the length of the cache on, padding included.
        """
        B, T, _ = x.shape
        S = cache.length + T
        if positions is None:
            positions = np.broadcast_to(np.arange(S - T, S), (B, T))
        rotations = Rotations(self.rotary, positions, cache.add_positions(positions), x.dtype)
        visible = visible_keys(T, S, attention_mask)
        unseen = unseen_scores(visible, attention_mask, self.compat.blind_queries)
        tap("embed_tokens", x)
        for i, w in enumerate(self.weights.layers):
            here = scoped(tap, f"layers.{i}.")
            x = decoder_layer(
                x, w, self.config, self.act, rotations, visible, cache, i, here, unseen=unseen, parts=self.parts
            )
        x = rms_norm(x, self.weights.norm, self.config.rms_norm_eps)
        tap("norm", x)
        return x
