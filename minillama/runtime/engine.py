"""The numba engine: a fast model and a cache for each row, driven as generation drives any engine."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from minillama.arrays import Array
from minillama.runtime.batch import Append
from minillama.runtime.cache import RowCache
from minillama.runtime.model import FastModel

CHUNK = 256  # tokens of a prompt that one pass computes; bounds the room it needs


class _Step:
    """One token for each row of a batch: the arrays of all such passes over it."""

    def __init__(self, model: FastModel, rows: Sequence[RowCache]):
        B = len(rows)
        self.x = np.zeros((B, model.config.hidden_size), np.float32)
        self.logits = np.zeros((B, model.config.vocab_size), np.float32)
        self.appends = [Append(row, self.x[b : b + 1], np.zeros(1, np.int64), (0,)) for b, row in enumerate(rows)]


class NumbaEngine:
    """Rows of token ids, each with a cache of its own and without any padding; see minillama.generation.engine."""

    def __init__(self, model: FastModel):
        self.model = model
        self.vocab_size = model.config.vocab_size
        self.context_length = model.config.context_length
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self._rows: list[RowCache] = []
        self._step: _Step | None = None

    def __copy__(self) -> NumbaEngine:
        """An engine with copies of the caches."""
        twin = NumbaEngine(self.model)
        twin._rows = [row.copy() for row in self._rows]
        return twin

    def __deepcopy__(self, memo: object) -> NumbaEngine:
        return copy.copy(self)

    def prefill(self, rows: Sequence[Sequence[int]]) -> Array:
        """Append a row of ids, none empty, to each sequence; the logits (B, V) after the last of each."""
        self._begin(len(rows))
        logits = np.empty((len(rows), self.vocab_size), np.float32)
        left = [np.asarray(row, np.int64) for row in rows]
        while any(map(len, left)):
            share = max(CHUNK // sum(len(ids) > 0 for ids in left), 1)
            appends, numbers = [], []
            for number, ids in enumerate(left):
                if not len(ids):
                    continue
                cache = self._rows[number]
                positions = np.arange(cache.length, cache.length + min(share, len(ids)))
                count = min([len(positions), *self.model.runs(cache, positions)[:1]])
                last = [count - 1] if count == len(ids) else []
                appends.append(Append(cache, self.model.embed(ids[:count]), positions[:count], last))
                numbers += [number] * len(last)
                left[number] = ids[count:]
            logits[numbers] = self.model.run(appends).logits
        return logits

    def decode(self, ids: Array) -> Array:
        """Append one id (B,) to each sequence; the logits (B, V) after it, in an array of the engine's own: the next
        decode overwrites them."""
        self._begin(len(ids))
        if self._step is None:
            self._step = _Step(self.model, self._rows)
        step = self._step
        self.model.embed(np.asarray(ids), step.x)
        for append in step.appends:
            append.positions[0] = append.cache.length
        return self.model.run(step.appends, logits=step.logits).logits

    def _begin(self, count: int) -> None:
        """Have a sequence for each of so many rows. ValueError if there are others."""
        if not self._rows:
            self._rows = [self.model.new_cache() for _ in range(count)]
        if count != len(self._rows):
            raise ValueError(f"the cache holds a batch of {len(self._rows)} rows and the input has {count}")

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these sequences of the batch only, in this order; one may come several times."""
        kept, taken = [], set[int]()
        for row in np.arange(len(self._rows))[list(rows)].tolist():
            kept.append(self._rows[row].copy() if row in taken else self._rows[row])
            taken.add(row)
        if kept != self._rows:
            self._rows, self._step = kept, None

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens of rows that are all of the same length."""
        if len({cache.length for cache in self._rows}) > 1:
            raise ValueError("rows of different lengths cannot be cut back together")
        for cache in self._rows:
            if not 0 <= length <= cache.length:
                raise ValueError(f"cannot cut a cache of {cache.length} tokens back to {length}")
            cache.length = length
        if length == 0:  # the next batch may have another size
            self.reset()
