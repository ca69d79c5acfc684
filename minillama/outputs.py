"""What the models return."""

from __future__ import annotations

from dataclasses import dataclass

from minillama.arrays import Array
from minillama.fields import ModelOutput
from minillama.model.cache import KVCache


@dataclass(eq=False)
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


@dataclass(eq=False)
class CausalLMOutputWithPast(ModelOutput):
    """What LlamaForCausalLM returns. loss: nats a token, if labels were given. logits: (B, T, V), before any softmax.
    The others are those of LlamaModel."""

    loss: float | None
    logits: Array
    past_key_values: KVCache | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


@dataclass(eq=False)
class SequenceClassifierOutputWithPast(ModelOutput):
    """What LlamaForSequenceClassification returns. loss: if labels were given. logits: (B, num_labels), before any
    softmax or sigmoid. The others are those of LlamaModel."""

    loss: float | None
    logits: Array
    past_key_values: KVCache | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None
