"""What the models return: fields by name, by index or in a row, those that are absent left out of the latter two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from minillama.arrays import Array
from minillama.model.cache import KVCache


class ModelOutput:
    """A dataclass that can be read as a tuple and as a mapping too."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in their order."""
        return tuple(getattr(self, name) for name in self.keys())

    def keys(self) -> list[str]:
        """The names of the fields that are not None."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # every subclass is a dataclass
        return [name for name in names if getattr(self, name) is not None]

    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in (field.name for field in fields(self)):  # type: ignore[arg-type]
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __len__(self) -> int:
        return len(self.keys())


@dataclass
class BaseModelOutputWithPast(ModelOutput):
    """What LlamaModel returns.

    last_hidden_state: (B, T, D), after the final norm. past_key_values: the cache, of one pair (k, v) a layer, each
    (B, G, S, K), keys rotated. hidden_states: L + 1 arrays (B, T, D), the embeddings first, the last one after the
    final norm. attentions: L arrays (B, H, T, S), each query's probabilities over the keys.
    """

    last_hidden_state: Array
    past_key_values: KVCache | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass
class CausalLMOutputWithPast(ModelOutput):
    """What LlamaForCausalLM returns. loss: nats a token, if labels were given. logits: (B, T, V), before any softmax.
    The others are those of LlamaModel."""

    loss: float | None
    logits: Array
    past_key_values: KVCache | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass
class SequenceClassifierOutputWithPast(ModelOutput):
    """What LlamaForSequenceClassification returns. loss: if labels were given. logits: (B, num_labels), before any
    softmax or sigmoid. The others are those of LlamaModel."""

    loss: float | None
    logits: Array
    past_key_values: KVCache | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
