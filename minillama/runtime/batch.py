"""What kernels/decoder.py is told of a pass: in arrays that are used again while passes have the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minillama.arrays import Array
from minillama.kernels.attention import KEYS, QUERIES
from minillama.kernels.llvm import LANES
from minillama.kernels.state import Batch
from minillama.layout import rounded_up
from minillama.model.rope import Rotary
from minillama.runtime.angles import Angles
from minillama.runtime.cache import RowCache
from minillama.runtime.packing import KINDS

TASK_ROWS = 32  # of attention: about as many rows of one key/value head are a task


@dataclass
class Append:
    """Tokens that one pass appends to a sequence."""

    cache: RowCache
    x: Array  # (T, D), their embeddings
    positions: Array  # (T,)
    wanted: Sequence[int] = ()  # which of them get logits
    seen: Array | None = None  # (S + T,), 0 for a key that no query may see


class Shape(NamedTuple):
    """What passes that can use the same arrays have in common."""

    counts: tuple[int, ...]  # tokens of each sequence
    wanted: tuple[tuple[int, ...], ...]
    masked: bool


def shape_of(appends: Sequence[Append]) -> Shape:
    return Shape(
        tuple(len(append.x) for append in appends),
        tuple(tuple(append.wanted) for append in appends),
        any(append.seen is not None for append in appends),
    )


class Description:
    """The Batch of passes of one shape."""

    def __init__(self, rotary: Rotary, cache_form: str, shape: Shape):
        c, counts = rotary.config, shape.counts
        N, B, half = sum(counts), len(counts), c.head_dim // 2
        self.rotary, self.shape, self.angles = rotary, shape, Angles(rotary)
        self.inv_freq = rotary.inv_freq(np.zeros((1, 1), np.int64), 1)
        self.starts = [sum(counts[:b]) for b in range(B)]
        self._within = np.concatenate([np.arange(0), *map(np.arange, counts)])
        self._cos, self._sin = np.zeros((2, N, half), np.float32)
        self._flags: list[Array] = []
        group = c.num_attention_heads // c.num_key_value_heads
        step = rounded_up(max(TASK_ROWS, group), QUERIES)
        tasks = [
            (b, g, row, min(row + step, T * group))
            for b, T in enumerate(counts)
            for row in range(0, T * group, step)
            for g in range(c.num_key_value_heads)
        ]
        chosen = [start + t for start, wanted in zip(self.starts, shape.wanted, strict=True) for t in wanted]
        past, capacity, keys, values, flags, key_cos, key_sin = np.zeros((7, B), np.int64)
        self.batch = Batch(
            np.repeat(np.arange(B), counts), np.zeros(N, np.int64), self._cos.reshape(-1), self._sin.reshape(-1),
            keys, values, flags, key_cos, key_sin, np.array(self.starts, np.int64), past, capacity,
            np.array(tasks, np.int64).reshape(-1, 4), np.array(chosen, np.int64),
            np.zeros(1, KINDS[cache_form]), shape.masked, rotary.by_length,
        )  # fmt: skip

    def fill(self, appends: Sequence[Append]) -> Batch:
        """The Batch of a pass. Caches get room for it, and the positions of its tokens."""
        batch = self.batch
        self._flags.clear()
        for b, append in enumerate(appends):
            cache, T, start = append.cache, self.shape.counts[b], self.starts[b]
            past, S, rows = cache.length, cache.length + T, slice(start, start + T)
            cache.reserve(S)
            cache.positions[past:S] = append.positions
            np.add(self._within[rows], past, out=batch.place[rows])
            batch.past[b], batch.capacity[b] = past, cache.capacity
            batch.keys[b], batch.values[b] = cache.addresses
            if batch.masked:
                batch.flags[b] = self._seen(append, S)
            inv_freq = self.inv_freq
            if batch.turned:  # all tokens of a pass have the same frequencies: see FastModel.runs
                inv_freq = self.rotary.inv_freq(append.positions[None, :1], S)[0, 0]
                cache.key_angles.forget(past)
                where = cache.key_angles.extend(self.angles, cache.positions, S, inv_freq)
                batch.key_cos[b], batch.key_sin[b] = where
            for first in range(0, T, KEYS):
                some = slice(start + first, start + min(first + KEYS, T))
                positions = append.positions[first : first + KEYS]
                self.angles.write(positions, inv_freq, self._cos[some], self._sin[some])
        return batch

    def _seen(self, append: Append, length: int) -> int:
        """The address of a byte for each key, 0 where no query may see it."""
        flags = np.ones(rounded_up(length, LANES), np.uint8)
        flags[:length] = True if append.seen is None else append.seen
        self._flags.append(flags)
        return flags.ctypes.data
