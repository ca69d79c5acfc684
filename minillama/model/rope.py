"""Rotary position embeddings (Su et al. 2021, RoFormer).

Component j and component j + K/2 of a head form a pair (the *duplicated halves* layout of Hugging Face; Meta's own
files interleave pairs and are converted when they are read). At position p the pair turns by the angle
p * inv_freq[j], so the dot product of a query and a key depends on the distance of their positions only. Which
frequencies, and how they are changed for longer contexts, is said in rope_scaling.py.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.model.rope_scaling import attention_factor, inverse_frequencies


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
