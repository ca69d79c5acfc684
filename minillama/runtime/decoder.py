"""The fast model behind the public classes: called as model/decoder.py is, with masks and positions of any kind."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.layout import rounded_up
from minillama.model.cache import KVCache
from minillama.model.decoder import Decoder
from minillama.model.ops import Tap, no_tap
from minillama.model.rope import Rotary
from minillama.runtime.batch import Append
from minillama.runtime.cache import RowCache
from minillama.runtime.engine import CHUNK
from minillama.runtime.model import FastModel


@dataclass
class Detached:
    """What a cache knows of its model after a pickle."""

    rotary: Rotary
    cache_form: str

    @property
    def config(self) -> LlamaConfig:
        return self.rotary.config

    def new_cache(self) -> RowCache:
        c = self.config
        return RowCache(c.num_hidden_layers, c.num_key_value_heads, c.head_dim, self.cache_form)

    def fits(self, model: FastModel) -> bool:
        """Whether the model caches the same numbers in the same way."""
        ours, theirs = self.config, model.config
        sizes = ("num_hidden_layers", "num_key_value_heads", "head_dim")
        alike = all(getattr(ours, size) == getattr(theirs, size) for size in sizes)
        return alike and (self.cache_form, self.rotary.signature) == (model.cache_form, model.rotary.signature)


class BatchCache:
    """The caches of a batch of rows, used as model/cache.py's KVCache is; what is read of it is float32."""

    def __init__(self, model: FastModel | Detached, rows: list[RowCache] | None = None):
        self.model, self.rows = model, rows or []

    @property
    def length(self) -> int:
        """How many tokens are cached (S, padding included)."""
        return self.rows[0].length if self.rows else 0

    @property
    def rotary(self) -> Rotary | None:
        return self.model.rotary if self.model.rotary.by_length else None

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot cut a cache of {self.length} tokens back to {length}")
        for row in self.rows:
            row.length = length
        if length == 0:  # the next batch may have another size
            self.rows = []

    def select(self, rows: Array) -> None:
        """Keep only these rows of the batch, in this order."""
        self.rows = [self.rows[row].copy() for row in rows.tolist()]

    def fork(self) -> BatchCache:
        """An independent copy."""
        return BatchCache(self.model, [row.copy() for row in self.rows])

    def __copy__(self) -> BatchCache:
        return self.fork()

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchCache:
        return BatchCache(copy.deepcopy(self.model, memo), [row.copy() for row in self.rows])

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the model: the first of the same kind that is given it takes it."""
        return BatchCache, (Detached(self.model.rotary, self.model.cache_form), self.rows)

    def as_numpy(self) -> KVCache:
        """The same tokens in a cache of the NumPy model."""
        cache = KVCache(len(self), self.model.rotary)
        if self.rows:
            cache.add_positions(np.stack([row.positions[: row.length] for row in self.rows]))
            for layer, pairs in enumerate(zip(*(row.pairs() for row in self.rows), strict=True)):
                cache.append(layer, np.stack([k for k, _ in pairs]), np.stack([v for _, v in pairs]))
        return cache

    def take(self, cache: KVCache) -> None:
        """The tokens of a cache of the NumPy model that are not here yet."""
        start = self.length
        self.rows = self.rows or [self.model.new_cache() for _ in cache.positions]
        for layer, (k, v) in enumerate(cache.kept()):
            for b, row in enumerate(self.rows):
                row.put(layer, start, k[b, :, start:], v[b, :, start:], cache.positions[b, start:])
        for row in self.rows:
            row.length = cache.length

    def __len__(self) -> int:
        return self.model.config.num_hidden_layers

    def __getitem__(self, layer: int) -> tuple[Array, Array]:
        return self.as_numpy()[layer]

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return iter(self.as_numpy())


class FastDecoder:
    """Hidden states from embeddings. Whoever taps more than the stream between layers is served by the NumPy model."""

    def __init__(self, model: FastModel, numpy: Decoder):
        self.model, self.numpy = model, numpy
        self.config, self.rotary, self.embed = numpy.config, numpy.rotary, numpy.embed

    def new_cache(self) -> BatchCache:
        return BatchCache(self.model)

    def owns(self, past: object) -> bool:
        """Whether this is a cache of this decoder's kind; ValueError for that of another model."""
        if isinstance(past, BatchCache) and isinstance(past.model, Detached):
            if not past.model.fits(self.model):
                return False
            past.model = self.model
        if isinstance(past, BatchCache) and past.model is not self.model:
            raise ValueError("past_key_values is the cache of another model: pass on one that this model returned")
        return isinstance(past, BatchCache)

    def cache_of(self, pairs: Sequence[tuple[Array, Array]]) -> BatchCache:
        """A cache with what another one handed out."""
        cache = self.new_cache()
        cache.take(KVCache.from_pairs(pairs, self.rotary))
        return cache

    def __call__(
        self,
        x: Array,
        cache: BatchCache,
        attention_mask: Array | None = None,
        positions: Array | None = None,
        tap: Tap = no_tap,
    ) -> Array:
        """(B, T, D) -> normalized hidden states (B, T, D); what is new is appended to the cache. See Decoder."""
        B, T, _ = x.shape
        if cache.rows and len(cache.rows) != B:
            raise ValueError(f"the cache holds a batch of {len(cache.rows)} rows and the input has {B}")
        before = cache.length
        if tap is not no_tap and not getattr(tap, "only_stream", False):
            pairs = cache.as_numpy()
            hidden = self.numpy(x, pairs, attention_mask, positions, tap)
            cache.take(pairs)
            return hidden
        if positions is None:
            positions = np.broadcast_to(np.arange(before, before + T), (B, T))
        fresh = not cache.rows
        if fresh:
            cache.rows = [self.model.new_cache() for _ in range(B)]
        parts, states = [], []
        try:
            for start, stop in self._pieces(cache, positions):
                seen = None if attention_mask is None else np.asarray(attention_mask)[:, : before + stop]
                passed = self.model.run(
                    [
                        Append(row, x[b, start:stop], positions[b, start:stop], (), None if seen is None else seen[b])
                        for b, row in enumerate(cache.rows)
                    ],
                    hidden=True,
                    states=tap is not no_tap,
                )
                assert passed.hidden is not None
                parts.append(passed.hidden.reshape(B, stop - start, -1))
                if passed.states is not None:
                    states.append(passed.states.reshape(-1, B, stop - start, x.shape[2]))
        except BaseException:
            cache.cut(before)
            raise
        hidden = np.concatenate(parts, axis=1)
        if states:
            tap("embed_tokens", x)
            for layer, state in enumerate(np.concatenate(states, axis=2)):
                tap(f"layers.{layer}.output", state)
            tap("norm", hidden)
        return hidden

    def _pieces(self, cache: BatchCache, positions: Array) -> Iterator[tuple[int, int]]:
        """Columns that one pass computes: some, and no further than the rotary frequencies stay the same."""
        B, T = positions.shape
        ends = {point for b, row in enumerate(cache.rows) for point in self.model.runs(row, positions[b])} | {T}
        start, step = 0, max(1, rounded_up(CHUNK, B) // B)
        for end in sorted(ends):
            for first in range(start, end, step):
                yield first, min(first + step, end)
            start = end
