"""The public model classes, with the names, arguments and fields of Hugging Face's, on NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import psutil

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.model.cache import KVCache
from minillama.model.decoder import Decoder
from minillama.model.engine import NumpyEngine
from minillama.model.heads import causal_lm_loss, check_labels, lm_logits
from minillama.model.mlp import activation
from minillama.model.ops import Tap, no_tap, scoped
from minillama.weights import Parameters, open_checkpoint
from minillama.weights.names import match_tensors
from minillama.weights.safetensors import ArrayTensor, Tensor

ENGINES = ("auto", "numpy", "numba")
DTYPES = ("auto", "float32", "float64")
COMPAT = (None, "hf4", "hf5")


@dataclass
class CausalLMOutput:
    """What a causal language model returns: by name, by index or as a tuple, absent items left out of the latter two.

    loss: nats a token, if labels were given. logits: (B, T, V). past_key_values: the cache, of one pair (k, v) a
    layer, each (B, G, S, K). hidden_states: L + 1 arrays (B, T, D), the embeddings first, the last one after the
    final norm. attentions: L arrays (B, H, T, S).
    """

    loss: float | None = None
    logits: Array | None = None
    past_key_values: KVCache | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if value is not None)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return {field.name: getattr(self, field.name) for field in fields(self)}[key]
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())


class LlamaForCausalLM:
    """LLaMA with a language-modelling head.

    weights: the tensors under their Hugging Face names, as arrays of float16, float32 or float64. dtype: what the
    model computes in, "float32" ("auto" is the same) or "float64", the oracle. engine: "numpy"; "numba" is not built
    yet; "auto" takes the best there is. compat: None, or "hf4" / "hf5" for the ways of transformers 4.34 / 5 with
    rotary scalings that depend on the length of the text (see minillama.model.rope).
    """

    def __init__(
        self,
        config: LlamaConfig,
        weights: Mapping[str, Array],
        *,
        engine: str = "auto",
        dtype: str = "float32",
        compat: str | None = None,
    ):
        tensors = {name: ArrayTensor(array) for name, array in weights.items()}
        self._build(config, match_tensors(config, tensors, {}, "weights"), engine, dtype, compat)

    def _build(
        self, config: LlamaConfig, tensors: Mapping[str, Tensor], engine: str, dtype: str, compat: str | None
    ) -> None:
        _check_choice("engine", engine, ENGINES)
        _check_choice("dtype", dtype, DTYPES)
        _check_choice("compat", compat, COMPAT)
        if engine == "numba":
            raise ValueError("engine 'numba' is not built yet: use 'numpy' or 'auto'")
        self.config, self.compat = config, compat
        self.weights = Parameters(tensors, config, np.float64 if dtype == "float64" else np.float32)
        self.model = Decoder(config, self.weights, compat)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        engine: str = "auto",
        dtype: str = "float32",
        compat: str | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Open a checkpoint: a folder as Hugging Face keeps it, a .safetensors file or an index of several.

        config: a config.json to use instead of the one beside the weights. Weights are mapped and widened as they
        are used. Raises FileNotFoundError, OSError or ValueError that names the file and what is wrong with it, and
        MemoryError before anything is loaded if the free memory cannot hold what `dtype` needs.
        """
        checkpoint = open_checkpoint(path, config)
        try:
            activation(checkpoint.config.hidden_act)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        model = cls.__new__(cls)
        model._build(checkpoint.config, checkpoint.tensors, engine, dtype, compat)
        _check_memory(model.weights, path)
        return model

    def new_engine(self) -> NumpyEngine:
        """What generation drives: this model with a cache of its own."""
        return NumpyEngine(self.model, self.weights)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: KVCache | None = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        *,
        tap: Tap = no_tap,
    ) -> CausalLMOutput:
        """Logits for every position.

        input_ids: (B, T) integers, or inputs_embeds: (B, T, D), exactly one of them. attention_mask: (B, past + T), 1
        keeps a token and 0 marks padding. position_ids: (B, T), by default counted on from the cached tokens, padding
        included. past_key_values: the cache of an earlier call, extended in place. labels: (B, T) ids or -100, for the
        loss. Flags that are None are as in the config. tap: called with the name and array of every intermediate (see
        docs/notation.md).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is not None:
            x = self.model.embed(_integers("input_ids", input_ids, 2))
        else:
            x = np.asarray(inputs_embeds, dtype=self.weights.dtype)
            if x.ndim != 3 or x.shape[2] != self.config.hidden_size:
                raise ValueError(f"inputs_embeds must have the shape (B, T, {self.config.hidden_size}), not {x.shape}")
        B, T, _ = x.shape
        if B == 0 or T == 0:
            raise ValueError(f"the input is empty: its shape is ({B}, {T})")
        if past_key_values is not None and not isinstance(past_key_values, KVCache):
            raise TypeError(
                f"past_key_values must be the cache an earlier call returned, not a {type(past_key_values)}"
            )
        cache = self.model.new_cache() if past_key_values is None else past_key_values
        mask = None
        if attention_mask is not None:
            mask = np.asarray(attention_mask)
            if mask.shape != (B, cache.length + T):
                raise ValueError(
                    f"attention_mask must have the shape {(B, cache.length + T)}, "
                    f"cached tokens included, not {mask.shape}"
                )
        positions = None
        if position_ids is not None:
            positions = _integers("position_ids", position_ids, 2)
            if positions.shape not in ((B, T), (1, T)) or (positions < 0).any():
                raise ValueError(
                    f"position_ids must be {(B, T)} integers of 0 or more, not of the shape {positions.shape}"
                )
            positions = np.broadcast_to(positions, (B, T))

        targets = None if labels is None else _integers("labels", labels, 2)
        if targets is not None:
            if targets.shape != (B, T):
                raise ValueError(f"labels must have the shape {(B, T)}, not {targets.shape}")
            check_labels(targets, self.config.vocab_size)

        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        watched = _Collector(tap, bool(output_hidden_states), bool(output_attentions))
        hidden = self.model(x, cache, mask, positions, scoped(watched, "model.") if watched.needed else no_tap)
        logits = lm_logits(hidden, self.weights.lm_head)
        tap("logits", logits)

        loss = None if targets is None else causal_lm_loss(logits, targets)
        keep = self.config.use_cache if use_cache is None else use_cache
        return CausalLMOutput(loss, logits, cache if keep else None, watched.hidden_states, watched.attentions)

    __call__ = forward


class _Collector:
    """A tap that picks out hidden states and attention probabilities, and passes everything on."""

    def __init__(self, tap: Tap, hidden_states: bool, attentions: bool):
        self.tap, self.needed = tap, hidden_states or attentions or tap is not no_tap
        self._hidden: list[Array] | None = [] if hidden_states else None
        self._attentions: list[Array] | None = [] if attentions else None

    def __call__(self, name: str, array: Array) -> None:
        self.tap(name, array)
        if self._hidden is not None and name in ("model.embed_tokens", "model.norm"):
            if name == "model.norm":
                self._hidden.pop()  # the last layer's output is listed after the norm only
            self._hidden.append(array)
        elif self._hidden is not None and name.endswith(".output"):
            self._hidden.append(array)
        elif self._attentions is not None and name.endswith(".self_attn.probs"):
            self._attentions.append(array)

    @property
    def hidden_states(self) -> tuple[Array, ...] | None:
        return None if self._hidden is None else tuple(self._hidden)

    @property
    def attentions(self) -> tuple[Array, ...] | None:
        return None if self._attentions is None else tuple(self._attentions)


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")


def _integers(name: str, values: Any, ndim: int) -> Array:
    array = np.asarray(values)
    if array.ndim != ndim or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"{name} must be a {ndim}-dimensional array of integers, not {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64)


def _check_memory(weights: Parameters, path: object) -> None:
    free = psutil.virtual_memory().available
    need = weights.working_size
    if need > free:
        halved = weights.dtype == np.float64 and need // 2 <= free
        hint = "float32 needs half of that" if halved else "free some, or use a smaller model"
        raise MemoryError(
            f"{path} needs about {need / 1e9:.1f} GB of memory in {weights.dtype} "
            f"and {free / 1e9:.1f} GB are free: {hint}"
        )
