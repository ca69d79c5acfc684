"""Multi-head, multi-query and grouped-query attention: one function, because the three are one idea.

H query heads share G key/value heads, H / G of them to each: G = H is multi-head attention (Vaswani et al. 2017),
G = 1 multi-query (Shazeer 2019), anything between grouped-query (Ainslie et al. 2023).
"""

import math
from typing import Protocol

import numpy as np

from minillama.arrays import Array
from minillama.model.cache import KVCache
from minillama.model.ops import Tap, linear, no_tap, softmax
from minillama.model.rope import Turns, rotate


class AttentionWeights(Protocol):
    """The four matrices, stored as (out, in), and their biases (None where the model has none)."""

    @property
    def q_proj(self) -> Array: ...  # (H K, D)
    @property
    def k_proj(self) -> Array: ...  # (G K, D)
    @property
    def v_proj(self) -> Array: ...  # (G K, D)
    @property
    def o_proj(self) -> Array: ...  # (D, H K)
    @property
    def q_bias(self) -> Array | None: ...
    @property
    def k_bias(self) -> Array | None: ...
    @property
    def v_bias(self) -> Array | None: ...
    @property
    def o_bias(self) -> Array | None: ...


def self_attention(
    x: Array,
    w: AttentionWeights,
    head_dim: int,
    turns: list[Turns],
    visible: Array,
    cache: KVCache,
    layer: int,
    tap: Tap = no_tap,
) -> Array:
    """softmax(Q K^T / sqrt(head_dim)) V for every head, over what is cached and what is new.

    x: (B, T, D); visible: bool (B, 1, T, S), which keys each query may see -> (B, T, D). Appends to the cache.
    A query that may see no key gets zeros from every head.
    """
    q = split_heads(linear(x, w.q_proj, w.q_bias), head_dim)  # (B, H, T, K)
    k = split_heads(linear(x, w.k_proj, w.k_bias), head_dim)  # (B, G, T, K)
    v = split_heads(linear(x, w.v_proj, w.v_bias), head_dim)  # (B, G, T, K)
    tap("q_proj", q)
    tap("k_proj", k)
    tap("v_proj", v)

    if turns[0].keys is None:
        k = rotate(k, *turns[0].query)
        tap("k_rope", k)
    k, v = cache.append(layer, k, v)  # (B, G, S, K)

    # One run of queries, unless the rotary frequencies depend on the length of the text
    q_runs = [rotate(q[:, :, run.columns], *run.query) for run in turns]
    k_runs = (k if run.keys is None else rotate(k, *run.keys) for run in turns)
    tap("q_rope", np.concatenate(q_runs, axis=2))
    scores = np.concatenate([*map(grouped_scores, q_runs, k_runs)], axis=2) / math.sqrt(head_dim)  # (B, H, T, S)
    tap("scores", scores)

    probs = softmax(np.where(visible, scores, -np.inf))
    tap("probs", probs)
    context = merge_heads(grouped_context(probs, v))  # (B, T, H K)
    tap("context", context)
    out = linear(context, w.o_proj, w.o_bias)
    tap("o_proj", out)
    return out


def grouped_scores(q: Array, k: Array) -> Array:
    """Dot products of each query with the keys of its group: (B, H, T, K), (B, G, S, K) -> (B, H, T, S).

    The H / G query heads of a group are laid one below the other as one tall matrix, so no key is ever repeated.
    """
    B, H, T, K = q.shape
    G, S = k.shape[1:3]
    scores: Array = q.reshape(B, G, H // G * T, K) @ k.swapaxes(2, 3)  # (B, G, H/G T, S)
    return scores.reshape(B, H, T, S)


def grouped_context(probs: Array, v: Array) -> Array:
    """Averages of the values of each head's group: (B, H, T, S), (B, G, S, K) -> (B, H, T, K)."""
    B, H, T, S = probs.shape
    G, K = v.shape[1], v.shape[3]
    context: Array = probs.reshape(B, G, H // G * T, S) @ v  # (B, G, H/G T, K)
    return context.reshape(B, H, T, K)


def split_heads(x: Array, head_dim: int) -> Array:
    """(B, T, heads K) -> (B, heads, T, K)"""
    B, T, width = x.shape
    return x.reshape(B, T, width // head_dim, head_dim).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:
    """(B, heads, T, K) -> (B, T, heads K)"""
    B, heads, T, K = x.shape
    return x.swapaxes(1, 2).reshape(B, T, heads * K)


def visible_keys(T: int, S: int, attention_mask: Array | None = None) -> Array:
    """Which of S keys each of the last T tokens may see: itself and what came before, but no padding.

    attention_mask: (B, S), 1 for a token and 0 for padding -> bool (B or 1, 1, T, S)
    """
    causal: Array = np.arange(S) <= np.arange(S - T, S)[:, None]  # (T, S)
    if attention_mask is None:
        return causal[None, None]
    return causal & (attention_mask[:, None, None, :] != 0)
