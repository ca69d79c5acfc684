"""Rotary position embeddings (Su et al. 2021, RoFormer), and the ways to stretch them to longer contexts.

Component j and component j + K/2 of a head form a pair (the *duplicated halves* layout of Hugging Face; Meta's own
files interleave pairs and are converted when they are read). At position p the pair turns by the angle
p * inv_freq[j], so the dot product of a query and a key depends on the distance of their positions only.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turn every pair (a, b) of each head into (a cos - b sin, b cos + a sin).

    x: (B, heads, T, K); cos, sin: (B, T, K/2), the angle of each pair at each position.
    """
    cos, sin = cos[:, None], sin[:, None]  # the same for every head
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)


class Rotary:
    """The angles of one model: which frequency each pair turns with, and by how much cos and sin are scaled.

    With the types "dynamic" and "longrope" the frequencies depend on the length of the text so far. Here each
    token turns its own query and all keys before it with the frequencies of *its* length, position + 1, so that a
    text gives the same numbers in one pass, in pieces and token by token. compat="hf4" and "hf5" instead do what
    transformers 4.34 and 5 do: one length for a whole call, keys cached as they were turned then (so results depend
    on how the text was cut into calls).
    """

    def __init__(self, config: LlamaConfig, compat: str | None = None):
        self.config, self.compat = config, compat
        self.depends_on_length = config.rope_type in ("dynamic", "longrope") and compat is None
        self.scale = attention_factor(config)
        self._longest = config.max_position_embeddings  # compat: the longest call so far

    def inv_freq(self, positions: Array, key_length: int) -> Array:
        """The frequency of each pair, for queries at `positions` (B, T) that see `key_length` keys: (K/2,), or
        (B, T, K/2) where every token has its own length."""
        if self.depends_on_length:
            return inverse_frequencies(self.config, positions + 1)
        return inverse_frequencies(self.config, np.asarray(self._length_of_call(positions, key_length)))

    def _length_of_call(self, positions: Array, key_length: int) -> int:
        """The one length the compat modes use; the other types of scaling ignore it."""
        length = key_length if self.compat == "hf4" else int(positions.max()) + 1
        if self.config.rope_type != "dynamic":
            return length
        limit = self.config.max_position_embeddings
        longest = max(self._longest, length)
        # transformers 4.34 keeps the table of its longest call; 5 goes back to the unscaled one for a shorter text
        self._longest = limit if self.compat == "hf5" and length < limit else longest
        return self._longest

    def angles(self, positions: Array, inv_freq: Array, dtype: Any) -> tuple[Array, Array]:
        """cos and sin, times the scale, at positions (B, S) with inv_freq (K/2,) or (B, 1, K/2): (B, S, K/2).

        Angles are computed in float64: in float32, position 100,000 would be off by up to 0.004 radians.
        """
        theta = positions[..., None] * inv_freq
        return (np.cos(theta) * self.scale).astype(dtype), (np.sin(theta) * self.scale).astype(dtype)


def inverse_frequencies(config: LlamaConfig, length: Array) -> Array:
    """Radians a position for each of the K/2 pairs: theta^(-2j/K), changed by config.rope_scaling.

    length: array of text lengths, any shape; it matters to "dynamic" and "longrope" only, which return
    (*length.shape, K/2); the others return (K/2,).
    """
    K, scaling = config.head_dim, config.rope_scaling or {}
    exponents = np.arange(0, K, 2) / K
    inv_freq: Array = config.rope_theta**-exponents
    match config.rope_type:
        case "linear":  # position interpolation, Chen et al. 2023
            return inv_freq / scaling["factor"]
        case "dynamic":  # the base grows with the text, so that the slowest pair spans it (bloc97, emozilla 2023)
            factor, limit = scaling["factor"], config.max_position_embeddings
            stretch = factor * np.maximum(length, limit) / limit - (factor - 1)
            base = config.rope_theta * stretch ** (K / (K - 2))
            return np.asarray(base[..., None] ** -exponents)
        case "llama3":
            return _llama3(inv_freq, config.original_max_position_embeddings, scaling)
        case "yarn":
            return _yarn(inv_freq, config, scaling)
        case "longrope":  # Ding et al. 2024: searched factors, one set up to the trained length, one beyond
            long = (length > config.original_max_position_embeddings)[..., None]
            return inv_freq / np.where(long, scaling["long_factor"], scaling["short_factor"])
        case _:
            return inv_freq


def _llama3(inv_freq: Array, original: int, scaling: dict[str, Any]) -> Array:
    """Slow pairs, which turn less than low_freq_factor times in the trained context, are divided by the factor;
    fast ones, more than high_freq_factor times, are left; between, the two blend linearly (Llama 3.1)."""
    turns = original * inv_freq / (2 * math.pi)  # in the trained context
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return keep * inv_freq + (1 - keep) * inv_freq / scaling["factor"]


def _yarn(inv_freq: Array, config: LlamaConfig, scaling: dict[str, Any]) -> Array:
    """As llama3, but the blend is linear in the index of the pair: from the pair that turns beta_fast times in the
    trained context to the one that turns beta_slow times (Peng et al. 2023, section 3.2)."""
    K, original = config.head_dim, config.original_max_position_embeddings

    def pair_turning(times: float) -> float:
        return K * math.log(original / (times * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    first = pair_turning(scaling.get("beta_fast") or 32)
    last = pair_turning(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, K - 1)
    interpolate = np.clip((np.arange(K // 2) - first) / max(last - first, 0.001), 0, 1)
    return (1 - interpolate) * inv_freq + interpolate * inv_freq / scaling["factor"]


def attention_factor(config: LlamaConfig) -> float:
    """What cos and sin are multiplied by: yarn and longrope sharpen the softmax of stretched contexts."""
    scaling, original = config.rope_scaling or {}, config.original_max_position_embeddings
    if config.rope_type not in ("yarn", "longrope"):
        return 1.0
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    factor = scaling.get("factor") or config.max_position_embeddings / original
    if factor <= 1:
        return 1.0
    if config.rope_type == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(original))
    per_mscale = 0.1 * math.log(factor)  # Peng et al. 2023, equation 22
    mscale, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return (per_mscale * mscale + 1) / (per_mscale * all_dim + 1) if mscale and all_dim else per_mscale + 1


class Turns(NamedTuple):
    """How to turn one run of query columns, and the keys they look at."""

    columns: slice  # of the T queries
    query: tuple[Array, Array]  # cos, sin: (B, columns, K/2)
    keys: tuple[Array, Array] | None  # cos, sin: (B, S, K/2); None: as the queries, once, before they are cached


def turns(rotary: Rotary, positions: Array, key_positions: Array, dtype: Any) -> list[Turns]:
    """The queries cut into runs of columns that share their frequencies: one run, unless those depend on the length
    and the text is longer than the model was trained for.

    positions: (B, T) of the queries, key_positions: (B, S) of all keys, theirs included.
    """
    inv_freq = rotary.inv_freq(positions, key_positions.shape[1])
    if not rotary.depends_on_length:
        return [Turns(slice(None), rotary.angles(positions, inv_freq, dtype), None)]
    changes = np.flatnonzero((inv_freq[:, 1:] != inv_freq[:, :-1]).any(axis=(0, 2))) + 1
    edges = [0, *changes.tolist(), positions.shape[1]]
    runs = []
    for start, stop in pairwise(edges):
        here = inv_freq[:, start : start + 1]  # (B, 1, K/2)
        query = rotary.angles(positions[:, start:stop], here, dtype)
        runs.append(Turns(slice(start, stop), query, rotary.angles(key_positions, here, dtype)))
    return runs
