"""What generation needs of a model, and all it knows of one."""

from collections.abc import Sequence
from typing import Protocol

from minillama.arrays import Array


class Engine(Protocol):
    """A model with a cache: a batch of token rows that grow, each as it would alone."""

    vocab_size: int
    context_length: int  # the most tokens a row may have

    def reset(self) -> None:
        """Forget all tokens."""

    def prefill(self, rows: Sequence[Sequence[int]]) -> Array:
        """Append ids to each row, none empty; the logits (B, V) after the last of each."""
        ...

    def decode(self, ids: Array) -> Array:
        """Append one id (B,) to each row; the logits (B, V) after it, in an array that the next decode may overwrite:
        who keeps them copies them. Those of prefill stay as they are."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows of the batch only, in this order; one may come several times."""

    def cut(self, length: int) -> None:
        """Forget all but the first `length` columns."""


class Decodes(Protocol):
    """What generation needs of a tokenizer that decodes as it streams."""

    def push(self, index: int) -> str: ...
    def finish(self) -> str: ...
