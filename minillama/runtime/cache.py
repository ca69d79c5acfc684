"""The cache of one sequence, laid out for kernels/attention.py; a batch has one for each of its rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.kernels.attention import KEYS
from minillama.kernels.llvm import LANES
from minillama.layout import rounded_up
from minillama.runtime.angles import KeyAngles
from minillama.runtime.packing import KINDS, STORED, aligned
from minillama.weights.formats import narrow


class RowCache:
    """Keys and values of one sequence in all layers, with the positions of its tokens.

    keys: [L][G][capacity / 16][K][16], values: [L][G][capacity][K, rounded up], in float16, bfloat16 or float32.
    addresses: of both. key_angles: by which unturned keys are turned.
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, form: str, capacity: int = KEYS):
        self.layers, self.kv_heads, self.head_dim, self.form = layers, kv_heads, head_dim, form
        self.width = rounded_up(head_dim, LANES)
        self.length, self.capacity = 0, 0
        self.positions = np.zeros(0, np.int64)
        self.key_angles = KeyAngles()
        self._hold(np.zeros(0, KINDS[form]), np.zeros(0, KINDS[form]))
        self.reserve(capacity)

    def reserve(self, length: int) -> None:
        """Make room for a text of this length; at least twice what there was, so that it is seldom needed."""
        if length <= self.capacity:
            return
        capacity = rounded_up(max(length, 2 * self.capacity), KEYS)
        heads, kind, used = self.layers * self.kv_heads, KINDS[self.form], rounded_up(self.length, LANES)
        keys, values = aligned(heads * capacity * self.head_dim, kind), aligned(heads * capacity * self.width, kind)
        if used:
            for old, new, size in ((self.keys, keys, self.head_dim), (self.values, values, self.width)):
                new.reshape(heads, -1)[:, : used * size] = old.reshape(heads, -1)[:, : used * size]
        positions = np.zeros(capacity, np.int64)
        positions[: self.length] = self.positions[: self.length]
        self.positions, self.capacity = positions, capacity
        self._hold(keys, values)

    def _hold(self, keys: Array, values: Array) -> None:
        self.keys, self.values = keys, values
        self.addresses = keys.ctypes.data, values.ctypes.data

    def copy(self) -> RowCache:
        """An independent copy."""
        twin = RowCache(self.layers, self.kv_heads, self.head_dim, self.form, 0)
        twin.length, twin.capacity = self.length, self.capacity
        twin._hold(aligned(self.keys.size, self.keys.dtype), aligned(self.values.size, self.values.dtype))
        twin.keys[:], twin.values[:] = self.keys, self.values
        twin.positions = self.positions.copy()
        return twin

    def __copy__(self) -> RowCache:
        return self.copy()

    def __deepcopy__(self, memo: object) -> RowCache:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return _with, (
            (self.layers, self.kv_heads, self.head_dim, self.form),
            self.pairs(),
            self.positions[: self.length],
        )

    def pairs(self) -> list[tuple[Array, Array]]:
        """Keys and values of each layer, float32 (G, S, K) twice, keys as they are cached."""
        shape = (self.layers, self.kv_heads)
        keys = self.keys.reshape(*shape, -1, self.head_dim, LANES).swapaxes(3, 4)
        keys = keys.reshape(*shape, self.capacity, self.head_dim)[:, :, : self.length]
        values = self.values.reshape(*shape, self.capacity, self.width)[:, :, : self.length, : self.head_dim]
        return list(zip(self._floats(keys), self._floats(values), strict=True))

    def put(self, layer: int, start: int, k: Array, v: Array, positions: Array) -> None:
        """Write keys and values (G, T, K) of one layer from place `start` on; the length stays as it is."""
        stop = start + k.shape[1]
        self.reserve(stop)
        self.positions[start:stop] = positions
        self.key_angles.forget(start)
        shape = (self.layers, self.kv_heads, self.capacity)
        values = self.values.reshape(*shape, self.width)
        values[layer, :, start:stop, : self.head_dim] = self._stored(v)
        keys = self.keys.reshape(self.layers, self.kv_heads, -1, self.head_dim, LANES)
        places = np.arange(start, stop)
        keys[layer, :, places // LANES, :, places % LANES] = self._stored(k).swapaxes(0, 1)

    def _stored(self, x: Array) -> Array:
        name = STORED[self.form]
        x = np.where(np.isinf(x), x, np.clip(x, -65504, 65504)) if name == "F16" else x  # as `put` of kernels/simd.py
        return narrow(x, name).view(KINDS[self.form])

    def _floats(self, x: Array) -> Array:
        if self.form == "bf16":
            return (np.ascontiguousarray(x).astype(np.uint32) << 16).view(np.float32)
        return np.ascontiguousarray(x).view(np.float16 if self.form == "f16" else np.float32).astype(np.float32)


def _with(kind: tuple[int, int, int, str], pairs: list[tuple[Array, Array]], positions: Array) -> RowCache:
    """A cache from its pickle: addresses are another process's."""
    cache = RowCache(*kind)
    for layer, (k, v) in enumerate(pairs):
        cache.put(layer, 0, k, v, positions)
    cache.length = len(positions)
    return cache
