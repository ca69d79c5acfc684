"""The NumPy engine: a decoder, its head and one cache, driven a batch of token rows at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from minillama.arrays import Array
from minillama.model.cache import KVCache
from minillama.model.decoder import Decoder
from minillama.model.heads import lm_logits
from minillama.model.ops import Tap, no_tap, scoped
from minillama.model.weights import CausalLMWeights

CHUNK = 512  # columns of a prompt computed at once; bounds the (T, S) score matrices of a long prompt


class NumpyEngine:
    """Runs rows of token ids, each as it would run alone: shorter rows are padded on the left and masked.

    It is what generation drives; see minillama.generation.engine for the interface.
    """

    def __init__(self, decoder: Decoder, weights: CausalLMWeights):
        self.decoder, self.weights = decoder, weights
        self.tap: Tap = no_tap  # is handed the intermediates of every pass
        self.vocab_size = decoder.config.vocab_size
        self.context_length = decoder.config.context_length
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self._cache: KVCache = self.decoder.new_cache()
        self._mask: Array | None = None  # (B, S), 1 for a token, 0 for padding

    def __copy__(self) -> NumpyEngine:
        """An engine with a copy of the cache."""
        twin = NumpyEngine(self.decoder, self.weights)
        twin.tap, twin._cache, twin._mask = self.tap, self._cache.fork(), self._mask
        return twin

    def __deepcopy__(self, memo: object) -> NumpyEngine:
        return copy.copy(self)

    def prefill(self, rows: Sequence[Sequence[int]]) -> Array:
        """Append a row of ids, none empty, to each sequence; the logits (B, V) after the last of each."""
        T = max(map(len, rows))
        ids = np.array([[0] * (T - len(row)) + list(row) for row in rows])
        mask = np.array([[0] * (T - len(row)) + [1] * len(row) for row in rows])
        for start in range(0, T, CHUNK):
            logits = self._append(ids[:, start : start + CHUNK], mask[:, start : start + CHUNK])
        return logits

    def decode(self, ids: Array) -> Array:
        """Append one id (B,) to each sequence; the logits (B, V) after it."""
        return self._append(np.asarray(ids)[:, None], np.ones((len(ids), 1), np.int64))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these sequences of the batch only."""
        if self._mask is not None and list(rows) != list(range(len(self._mask))):
            self._mask = self._mask[list(rows)]
            self._cache.select(np.array(rows, dtype=int))

    def cut(self, length: int) -> None:
        """Forget all but the first `length` columns."""
        self._cache.cut(length)
        self._mask = None if self._mask is None or length == 0 else self._mask[:, :length]

    def _append(self, ids: Array, mask: Array) -> Array:
        T = ids.shape[1]
        self._mask = mask if self._mask is None else np.concatenate((self._mask, mask), axis=1)
        positions = np.maximum(self._mask.cumsum(axis=1) - 1, 0)[:, -T:]
        padded = None if self._mask.all() else self._mask
        hidden = self.decoder(self.decoder.embed(ids), self._cache, padded, positions, scoped(self.tap, "model."))
        logits = lm_logits(hidden[:, -1], self.weights.lm_head)
        self.tap("logits", logits[:, None])
        return logits
