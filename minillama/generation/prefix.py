"""Going on with a cache: of a text that begins as the last one did, only the rest is computed."""

from __future__ import annotations

from collections.abc import Sequence

from minillama.arrays import Array
from minillama.generation.engine import Engine


class PrefixEngine:
    """An engine for one row that keeps its cache over a reset: the next prefill cuts it back to what the new text and
    the old one have in common. Drives another engine, and is driven as one.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.vocab_size, self.context_length = engine.vocab_size, engine.context_length
        self._held: list[int] = []  # what the engine surely holds; after an interruption it may hold more
        self._fresh = True

    def reset(self) -> None:
        """Begin a new text. What is held is forgotten by the next prefill, as far as it must be."""
        self._fresh = True

    def common(self, ids: Sequence[int]) -> int:
        """How many ids a text has in common with what is held; less than all, for its last one gives the logits."""
        pairs = zip(self._held, ids[:-1], strict=False)
        return next((n for n, (old, new) in enumerate(pairs) if old != new), min(len(self._held), len(ids) - 1))

    def prefill(self, rows: Sequence[Sequence[int]]) -> Array:
        """Append a row of ids, or after a reset the part of it that is not yet held; the logits (1, V) after it."""
        if len(rows) != 1:
            raise ValueError(f"a kept prefix is that of one row, not of {len(rows)}")
        ids = list(rows[0])
        if self._fresh:
            kept = self.common(ids)
            self.cut(kept)
            ids = ids[kept:]
            self._fresh = False
        logits = self.engine.prefill([ids])
        self._held += ids
        return logits

    def decode(self, ids: Array) -> Array:
        """Append one id (1,); the logits (1, V) after it."""
        logits = self.engine.decode(ids)
        self._held += map(int, ids)
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, of which there is one."""
        self.engine.keep(rows)

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        del self._held[length:]
        if length:
            self.engine.cut(length)
        else:
            self.engine.reset()
