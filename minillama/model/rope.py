"""Rotary position embeddings (Su et al. 2021, RoFormer).

Component j and component j + K/2 of a head form a pair (the *duplicated halves* layout of Hugging Face; Meta's own
files interleave pairs and are converted when they are read). At position p the pair turns by the angle
p * inv_freq[j], so the dot product of a query and a key depends on the distance of their positions only. Which
frequencies, and how they are changed for longer contexts, is said in rope_scaling.py.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.model.rope_scaling import attention_factor, inverse_frequencies

Angles: TypeAlias = tuple[Array, Array]  # cos and sin


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turn every pair (a, b) of each head into (a cos - b sin, b cos + a sin).

    x: (B, heads, T, K); cos, sin: (B, T, K/2), the angle of each pair at each position.
    """
    cos, sin = cos[:, None], sin[:, None]  # the same for every head
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)


class Rotary:
    """The angles of one model: which frequency each pair turns with, and by how much cos and sin are scaled.

    With the types "dynamic" and "longrope" the frequencies depend on the length of the text so far. Each token then
    turns its own query and all keys before it with the frequencies of *its* length, position + 1, so that a text gives
    the same numbers in one pass, in pieces and token by token.
    """

    def __init__(self, config: LlamaConfig):
        self.config = config
        self.by_length = config.rope_type in ("dynamic", "longrope")
        self.scale = attention_factor(config)
        # What tells it from others, so that the keys they have turned are not mixed
        self.signature: tuple[Any, ...] = (self.scale, inverse_frequencies(config, np.asarray(1)).tolist())
        if self.by_length:
            lengths = (config.max_position_embeddings, config.original_max_position_embeddings)
            self.signature += ("token", config.rope_parameters, lengths)

    def inv_freq(self, positions: Array, key_length: int) -> Array:
        """The frequency of each pair, for queries at `positions` (B, T) that see `key_length` keys: (K/2,), or
        (B, T, K/2) where every token has its own."""
        return inverse_frequencies(self.config, positions + 1)

    def angles(self, positions: Array, inv_freq: Array, dtype: Any) -> tuple[Array, Array]:
        """cos and sin, times the scale, at positions (B, S) with inv_freq (K/2,) or (B, 1, K/2): (B, S, K/2).

        Angles are computed in float64: in float32, position 100,000 would be off by up to 0.004 radians.
        """
        theta = positions[..., None] * inv_freq
        return (np.cos(theta) * self.scale).astype(dtype), (np.sin(theta) * self.scale).astype(dtype)


class Rotations:
    """How one forward pass turns its queries, at positions (B, T), and all keys, at key_positions (B, S).

    angles: cos and sin (B, T, K/2) for the queries and for the new keys, which are turned once and cached so. Where
    frequencies depend on the length there are runs() instead, and keys are cached unturned.
    """

    def __init__(self, rotary: Rotary, positions: Array, key_positions: Array, dtype: Any):
        self._rotary, self._positions, self._key_positions, self._dtype = rotary, positions, key_positions, dtype
        self._inv_freq = rotary.inv_freq(positions, key_positions.shape[1])
        self.by_length = rotary.by_length
        if not self.by_length:
            self.angles = rotary.angles(positions, self._inv_freq, dtype)

    def runs(self) -> Iterator[tuple[slice, Angles, Angles]]:
        """Runs of query columns that share their frequencies, each with its angles and those of all keys (B, S, K/2):
        one run up to the trained length, several for a longer text."""
        inv_freq = self._inv_freq  # (B, T, K/2)
        changes = np.flatnonzero((inv_freq[:, 1:] != inv_freq[:, :-1]).any(axis=(0, 2))) + 1
        for start, stop in pairwise([0, *changes.tolist(), inv_freq.shape[1]]):
            here = inv_freq[:, start : start + 1]  # (B, 1, K/2)
            query = self._rotary.angles(self._positions[:, start:stop], here, self._dtype)
            yield slice(start, stop), query, self._rotary.angles(self._key_positions, here, self._dtype)
