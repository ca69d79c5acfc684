"""Multi-head, multi-query and grouped-query attention: one function, because the three are one idea.

H query heads share G key/value heads, H / G of them to each: G = H is multi-head attention (Vaswani et al. 2017),
G = 1 multi-query (Shazeer 2019), anything between grouped-query (Ainslie et al. 2023).
"""

import math

import numpy as np

from minillama.arrays import Array
from minillama.model.cache import KVCache
from minillama.model.ops import Tap, linear, no_tap, softmax
from minillama.model.rope import Rotations, rotate
from minillama.model.weights import AttentionWeights


def self_attention(
    x: Array,
    w: AttentionWeights,
    head_dim: int,
    rotations: Rotations,
    visible: Array,
    cache: KVCache,
    layer: int,
    tap: Tap = no_tap,
    *,
    unseen: Array | float = -math.inf,
    parts: int = 1,
) -> Array:
    """softmax(Q K^T / sqrt(head_dim)) V for every head, over what is cached and what is new.

    x: (B, T, D); visible: bool (B, 1, T, S), which keys each query may see -> (B, T, D). Appends to the cache.
    A query that may see no key gets zeros from every head. unseen: what stands for the score of a key that may not be
    seen; compat modes have something else here. parts: see linear.
    """
    q = split_heads(linear(x, w.q_proj, w.q_bias), head_dim)  # (B, H, T, K)
    k = split_heads(linear(x, w.k_proj, w.k_bias), head_dim)  # (B, G, T, K)
    v = split_heads(linear(x, w.v_proj, w.v_bias), head_dim)  # (B, G, T, K)
    tap("q_proj", q)
    tap("k_proj", k)
    tap("v_proj", v)

    if rotations.by_length:
        k, v = cache.append(layer, k, v)  # (B, G, S, K), unrotated
        scores = scores_by_length(q, k, rotations, tap)
    else:
        q, k = rotate(q, *rotations.angles), rotate(k, *rotations.angles)
        tap("q_rope", q)
        tap("k_rope", k)
        k, v = cache.append(layer, k, v)  # (B, G, S, K)
        scores = grouped_scores(q, k)
    scores = scores / math.sqrt(head_dim)  # (B, H, T, S)
    tap("scores", scores)

    probs = softmax(np.where(visible, scores, unseen))
    tap("probs", probs)
    context = merge_heads(grouped_context(probs, v))  # (B, T, H K)
    tap("context", context)
    out = linear(context, w.o_proj, w.o_bias, parts)
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


def scores_by_length(q: Array, k: Array, rotations: Rotations, tap: Tap = no_tap) -> Array:
    """grouped_scores where the rotary frequencies depend on the length of the text: each run of queries that share
    theirs turns all keys with them. q: (B, H, T, K), k: (B, G, S, K), neither rotated yet -> (B, H, T, S)"""
    rotated, scores = [], []
    for columns, query_angles, key_angles in rotations.runs():
        rotated.append(rotate(q[:, :, columns], *query_angles))
        scores.append(grouped_scores(rotated[-1], rotate(k, *key_angles)))
    tap("q_rope", np.concatenate(rotated, axis=2))
    return np.concatenate(scores, axis=2)


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
