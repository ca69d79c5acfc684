"""The numba engine: a fast model and a cache for each row, driven as generation drives any engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minillama.arrays import Array
from minillama.runtime.cache import RowCache
from minillama.runtime.model import Append, FastModel

CHUNK = 256  # tokens of a prompt that one pass computes; bounds the room it needs


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

    def prefill(self, rows: Sequence[Sequence[int]]) -> Array:
        """Append a row of ids, none empty, to each sequence; the logits (B, V) after the last of each."""
        if not self._rows:
            self._rows = [self.model.new_cache() for _ in rows]
        if len(rows) != len(self._rows):
            raise ValueError(f"the cache holds a batch of {len(self._rows)} rows and the input has {len(rows)}")
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
        """Append one id (B,) to each sequence; the logits (B, V) after it."""
        return self.prefill(np.asarray(ids)[:, None].tolist())

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these sequences of the batch only, in this order; one may come several times."""
        kept, taken = [], set[int]()
        for row in np.arange(len(self._rows))[list(rows)].tolist():
            kept.append(self._rows[row].copy() if row in taken else self._rows[row])
            taken.add(row)
        self._rows = kept

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
