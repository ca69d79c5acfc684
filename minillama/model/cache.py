"""The key/value cache: what makes one more token cost one token's work (Shazeer 2019, section 2.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.model.rope import Rotary, rotate


class KVCache:
    """Keys and values of every layer for the tokens seen so far.

    Indexing and iterating give each layer's pair (k, v), both (B, G, S, K), keys rotated: what transformers calls
    past_key_values. `rotary` is what turns the keys; where its frequencies depend on the length of the text, keys are
    kept unrotated, and rotated for the length at hand when they are handed out.
    """

    def __init__(self, num_layers: int, rotary: Rotary | None = None):
        self.turned_by = rotary
        self.rotary = rotary if rotary is not None and rotary.by_length else None
        self._keys: list[Array | None] = [None] * num_layers  # (B, G, capacity, K)
        self._values: list[Array | None] = [None] * num_layers
        self._lengths = [0] * num_layers
        self._positions: Array | None = None  # (B, S)

    @classmethod
    def from_pairs(cls, pairs: Sequence[tuple[Array, Array]], rotary: Rotary | None = None) -> KVCache:
        """A cache of what another one handed out: a pair (k, v) a layer, each (B, G, S, K), keys rotated.

        The pairs do not say at which positions their tokens stood; where that matters, with a `rotary` whose
        frequencies depend on the length of the text, it is taken to be 0 .. S - 1.
        """
        cache = cls(len(pairs), rotary)
        B, _, S, _ = pairs[0][0].shape
        positions = cache.add_positions(np.broadcast_to(np.arange(S), (B, S)))
        for layer, (k, v) in enumerate(pairs):
            if cache.rotary is not None:
                at_hand = cache.rotary.inv_freq(positions[:, -1:], S)
                cos, sin = cache.rotary.angles(positions, at_hand, k.dtype)
                k = rotate(k, cos, -sin) / k.dtype.type(cache.rotary.scale**2)  # turned back, and its scale taken off
            cache.append(layer, k, v)
        return cache

    @property
    def length(self) -> int:
        """How many tokens are cached (S, padding included)."""
        return 0 if self._positions is None else int(self._positions.shape[1])

    def add_positions(self, positions: Array) -> Array:
        """Note the positions (B, T) of the tokens about to be appended; all positions (B, S + T)."""
        if self._positions is not None:
            if len(self._positions) != len(positions):
                raise ValueError(
                    f"the cache holds a batch of {len(self._positions)} rows and the input has {len(positions)}"
                )
            positions = np.concatenate((self._positions, positions), axis=1)
        self._positions = positions
        return positions

    def check(
        self, num_layers: int, num_key_value_heads: int, head_dim: int, rotary: Rotary, dtype: np.dtype[Any]
    ) -> None:
        """ValueError if this is the cache of another kind of model."""
        keys = self._keys[0] if self._keys else None
        ours = (len(self), *(() if keys is None else keys.shape[1::2]))
        theirs = (num_layers, num_key_value_heads, head_dim)
        alike = not rotary.by_length if self.turned_by is None else self.turned_by.signature == rotary.signature
        if ours != theirs[: len(ours)] or not alike:
            raise ValueError(
                f"past_key_values is the cache of another model: this one has {num_layers} layers, "
                f"{num_key_value_heads} key/value heads of {head_dim} and its own rotary frequencies"
            )
        if keys is not None and keys.dtype != dtype:
            raise ValueError(
                f"past_key_values holds {keys.dtype} and the model computes in {dtype}: use one of its own"
            )

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Add k, v (B, G, T, K) to a layer; everything it holds now: (B, G, S + T, K) twice."""
        start = self._lengths[layer]
        stop = start + k.shape[2]
        self._keys[layer] = keys = _with_room(self._keys[layer], stop, start, k)
        self._values[layer] = values = _with_room(self._values[layer], stop, start, v)
        keys[:, :, start:stop], values[:, :, start:stop] = k, v
        self._lengths[layer] = stop
        return keys[:, :, :stop], values[:, :, :stop]

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot cut a cache of {self.length} tokens back to {length}")
        self._lengths = [min(length, n) for n in self._lengths]
        if length == 0:  # the next batch may have another size
            self._keys, self._values, self._positions = [None] * len(self), [None] * len(self), None
        elif self._positions is not None:
            self._positions = self._positions[:, :length]

    def select(self, rows: Array) -> None:
        """Keep only these rows of the batch, in this order."""
        self._keys = [None if k is None else k[rows] for k in self._keys]
        self._values = [None if v is None else v[rows] for v in self._values]
        if self._positions is not None:
            self._positions = self._positions[rows]

    def fork(self) -> KVCache:
        """An independent copy, to try several continuations of one beginning."""
        twin = KVCache(len(self), self.turned_by)
        twin._keys = [None if k is None else k[:, :, :n].copy() for k, n in zip(self._keys, self._lengths, strict=True)]
        twin._values = [
            None if v is None else v[:, :, :n].copy() for v, n in zip(self._values, self._lengths, strict=True)
        ]
        twin._lengths = list(self._lengths)
        twin._positions = self._positions
        return twin

    def __copy__(self) -> KVCache:
        """As fork: a cache that shared its arrays would be written over."""
        return self.fork()

    def kept(self) -> Iterator[tuple[Array, Array]]:
        """Keys and values of each layer as they are cached: unrotated, where the frequencies depend on the length."""
        for k, v, n in zip(self._keys, self._values, self._lengths, strict=True):
            if k is not None and v is not None:
                yield k[:, :, :n], v[:, :, :n]

    @property
    def positions(self) -> Array:
        """Where each token stands, (B, S)."""
        return np.zeros((0, 0), np.int64) if self._positions is None else self._positions

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, layer: int) -> tuple[Array, Array]:
        k, v, n = self._keys[layer], self._values[layer], self._lengths[layer]
        if k is None or v is None:
            raise ValueError("the cache is empty: nothing has been appended yet")
        k, v = k[:, :, :n], v[:, :, :n]
        if self.rotary is not None and self._positions is not None:
            at_hand = self.rotary.inv_freq(self._positions[:, -1:], n)  # (B, 1, K/2)
            k = rotate(k, *self.rotary.angles(self._positions, at_hand, k.dtype))
        return k, v

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return (self[layer] for layer in range(len(self)))


def _with_room(buffer: Array | None, length: int, used: int, like: Array) -> Array:
    """`buffer`, or where it is shorter than `length`, a copy of its used part in one twice as long."""
    if buffer is not None and buffer.shape[2] >= length:
        return buffer
    B, G, _, K = like.shape
    capacity = length if buffer is None else max(length, 2 * buffer.shape[2])
    grown = np.empty((B, G, capacity, K), like.dtype)
    if buffer is not None:
        grown[:, :, :used] = buffer[:, :, :used]
    return grown
