"""The public model classes, with the names, arguments and fields of Hugging Face's, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

import numpy as np

from minillama.arrays import Array, as_array, floats, integers
from minillama.compat import COMPAT
from minillama.config import LlamaConfig
from minillama.fields import ModelOutput
from minillama.generation import GenerationConfig, GenerationMixin
from minillama.generation.config import FILE as GENERATION_CONFIG
from minillama.generation.engine import Engine
from minillama.messages import shown
from minillama.model.cache import KVCache
from minillama.model.decoder import Decoder
from minillama.model.engine import NumpyEngine
from minillama.model.heads import (
    causal_lm_loss,
    check_class_labels,
    check_labels,
    classification_loss,
    infer_problem_type,
    pooled_tokens,
)
from minillama.model.ops import Tap, linear, no_tap, scoped
from minillama.outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from minillama.pretrained import LlamaPreTrainedModel
from minillama.weights.names import LM_HEAD, SCORE

Past = KVCache | Sequence[tuple[Array, Array]]


class LlamaModel(LlamaPreTrainedModel):
    """The decoder of LLaMA: token ids to hidden states."""

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Past | None = None,
        inputs_embeds: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        tap: Tap = no_tap,
    ) -> BaseModelOutputWithPast:
        """The hidden state of every position.

        input_ids: (B, T) integers, or inputs_embeds: (B, T, D), exactly one of them. attention_mask: (B, past + T), 1
        keeps a token and 0 marks padding. position_ids: (B, T), or (T,) for all rows alike, by default counted on from
        the cached tokens, padding included. past_key_values: the cache of an earlier call, which is extended in place,
        or a plain sequence of a pair (k, v) a layer, each (B, G, S, K) with rotated keys, which is not.
        return_dict=False: a plain tuple. Flags that are None are as in the config. tap: called with the name and array
        of every intermediate (see docs/notation.md). ValueError for inputs that do not fit each other or the config.
        """
        B, T = _shape(input_ids, inputs_embeds)
        x = self._embedded(input_ids, inputs_embeds)
        cache = self._cache(past_key_values, B)
        S = cache.length
        mask = _mask(attention_mask, (B, S + T))
        positions = _positions(position_ids, (B, T))
        moved = positions is not None and (positions[:, 0] != S).any()
        padded = mask is not None and not mask[:, :S].all()
        if cache is not past_key_values and S and cache.rotary is not None and (moved or padded):
            raise ValueError(
                "past_key_values as plain pairs do not say where padded tokens stood, which matters to "
                f"{self.config.rope_type} scaling: pass on the cache that an earlier call returned"
            )
        config = self.config
        watched = _Collector(
            tap,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            config.output_attentions if output_attentions is None else output_attentions,
        )
        with _undone_if_it_fails(past_key_values):
            hidden = self.decoder(x, cache, mask, positions, watched if watched.needed else no_tap)
            keep = config.use_cache if use_cache is None else use_cache
            out = BaseModelOutputWithPast(hidden, cache if keep else None, watched.hidden_states, watched.attentions)
            return _as_asked(out, config, return_dict)

    __call__ = forward

    def _embedded(self, input_ids: Any, inputs_embeds: Any) -> Array:
        if input_ids is not None:
            return self.decoder.embed(input_ids)
        x = floats("inputs_embeds", inputs_embeds, self.dtype)
        if x.shape[2] != self.config.hidden_size:
            raise ValueError(f"inputs_embeds must have the shape (B, T, {self.config.hidden_size}), not {x.shape}")
        return x

    def _cache(self, past: Past | None, batch: int) -> Any:
        """A cache of the decoder's own kind; that of another engine is taken as pairs."""
        if past is None or self.decoder.owns(past):
            return self.decoder.new_cache() if past is None else past
        c = self.config
        wanted = f"{c.num_hidden_layers} pairs of arrays ({batch}, {c.num_key_value_heads}, S, {c.head_dim})"
        try:
            given = [(k, v) for k, v in past]
        except (TypeError, ValueError):
            raise ValueError(f"past_key_values must be a cache that an earlier call returned, or {wanted}") from None
        name, dtype = "past_key_values", self.dtype
        pairs = [(floats(name, k, dtype), floats(name, v, dtype)) for k, v in given]
        S = pairs[0][0].shape[2] if pairs and pairs[0][0].ndim == 4 else 0
        shape = (batch, c.num_key_value_heads, S, c.head_dim)
        if len(pairs) != c.num_hidden_layers or any(x.shape != shape for pair in pairs for x in pair) or S == 0:
            raise ValueError(f"past_key_values must be {wanted}, all of the same S above 0")
        return self.decoder.cache_of(pairs)


class _WithHead(LlamaPreTrainedModel):
    """A decoder with a head on it."""

    def _build(self, *args: Any) -> None:
        super()._build(*args)
        decoder = LlamaModel.__new__(LlamaModel)  # by itself, on the same weights
        decoder.__dict__ |= self.__dict__
        self.model = decoder


class LlamaForCausalLM(_WithHead, GenerationMixin):
    """LLaMA with a language-modelling head: the scores of every token to come next, and texts continued with them.

    generation_config: how `generate` goes about it; that of the checkpoint's generation_config.json where there is one.
    """

    head: ClassVar[str | None] = LM_HEAD

    def _build(self, *args: Any) -> None:
        super()._build(*args)
        self.generation_config = GenerationConfig.from_model_config(self.config)

    def _opened(self, folder: Path) -> None:
        if (folder / GENERATION_CONFIG).exists():
            self.generation_config = GenerationConfig.from_pretrained(folder)

    def _more_files(self, folder: Path) -> dict[Path, bytes | Callable[[BinaryIO], None]]:
        return {folder / GENERATION_CONFIG: self.generation_config.to_json_string().encode()}

    def new_engine(self) -> Engine:
        """What generation drives: this model with a cache of its own."""
        if self.engine == "numba":
            from minillama.runtime import NumbaEngine

            return NumbaEngine(self._runner.fast)
        assert isinstance(self.decoder, Decoder)
        return NumpyEngine(self.decoder, self.weights)

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Past | None = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Sequence[int] | Array = 0,
        *,
        tap: Tap = no_tap,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V) for every position, and the loss if there are labels.

        labels: (B, T) ids of the same positions as the input (they are shifted here), -100 where none counts.
        logits_to_keep: how many of the last positions get logits (0: all), or the numbers of those that do; not
        together with labels. All else is as in LlamaModel.forward.
        """
        shape = _shape(input_ids, inputs_embeds)
        kept = _kept(logits_to_keep, shape[1])
        targets = None if labels is None else integers("labels", labels, 2)
        if targets is not None:
            if targets.shape != shape:
                raise ValueError(f"labels must have the shape {shape}, not {targets.shape}")
            check_labels(targets, self.config.vocab_size)
            if np.ndim(logits_to_keep) or logits_to_keep:
                raise ValueError("labels need the logits of all positions: leave logits_to_keep out")
        with _undone_if_it_fails(past_key_values):
            out = self.model.forward(
                input_ids, attention_mask, position_ids, past_key_values, inputs_embeds,
                use_cache, output_attentions, output_hidden_states, True, tap=scoped(tap, "model."),
            )  # fmt: skip
            logits = self._runner.lm_logits(out.last_hidden_state[:, kept])
            tap("logits", logits)
            loss = None if targets is None else causal_lm_loss(logits, targets)
            result = CausalLMOutputWithPast(loss, logits, out.past_key_values, out.hidden_states, out.attentions)
            return _as_asked(result, self.config, return_dict)

    __call__ = forward


class LlamaForSequenceClassification(_WithHead):
    """LLaMA with a linear head on one token of every row: scores of config.num_labels classes, or numbers."""

    head: ClassVar[str | None] = SCORE

    @property
    def num_labels(self) -> int:
        return self.config.num_labels

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Past | None = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        tap: Tap = no_tap,
    ) -> SequenceClassifierOutputWithPast:
        """Logits (B, num_labels), read at the last token of each row that is not padding, and the loss if there are
        labels.

        Padding is known by config.pad_token_id: several rows without one are a ValueError. With inputs_embeds, in which
        it cannot be seen, the last position is read. labels: by config.problem_type (see
        minillama.model.heads.classification_loss); where that is None, the first labels decide, and it is noted in the
        config. All else is as in LlamaModel.forward.
        """
        B, T = _shape(input_ids, inputs_embeds)
        if B > 1 and self.config.pad_token_id is None:
            raise ValueError(
                "several rows need a padding token, to find the last token of each: set config.pad_token_id"
            )
        last = np.full(B, T - 1)
        if input_ids is not None:
            rule = COMPAT[self.compat].pooled_token
            last = pooled_tokens(integers("input_ids", input_ids), self.config.pad_token_id, rule)
        targets = None if labels is None else as_array("labels", labels)
        problem = self.config.problem_type
        if targets is not None:
            problem = problem or infer_problem_type(self.num_labels, targets)
            check_class_labels(targets, B, self.num_labels, problem)
        with _undone_if_it_fails(past_key_values):
            out = self.model.forward(
                input_ids, attention_mask, position_ids, past_key_values, inputs_embeds,
                use_cache, output_attentions, output_hidden_states, True, tap=scoped(tap, "model."),
            )  # fmt: skip
            logits = linear(out.last_hidden_state[np.arange(B), last], self.weights.score)
            tap("logits", logits)
            loss = None if targets is None or problem is None else classification_loss(logits, targets, problem)
            past, states, attentions = out.past_key_values, out.hidden_states, out.attentions
            result = SequenceClassifierOutputWithPast(loss, logits, past, states, attentions)
            self.config.problem_type = problem  # noted when nothing can fail any more
            return _as_asked(result, self.config, return_dict)

    __call__ = forward


Output = TypeVar("Output", bound=ModelOutput)


def _as_asked(out: Output, config: LlamaConfig, return_dict: bool | None) -> Output:
    wanted = config.return_dict if return_dict is None else return_dict
    return out if wanted else out.to_tuple()  # type: ignore[return-value]  # who asks for a tuple knows it is one


# -- inputs -------------------------------------------------------------------------------------------------------


def _shape(input_ids: Any, inputs_embeds: Any) -> tuple[int, int]:
    """(B, T) of the input, which must be exactly one of the two, and not empty."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give exactly one of input_ids and inputs_embeds")
    if input_ids is not None:
        shape = integers("input_ids", input_ids, 2).shape
    else:
        shape = as_array("inputs_embeds", inputs_embeds).shape
        if len(shape) != 3:
            raise ValueError(f"inputs_embeds must have the shape (B, T, D), not {shape}")
    if 0 in shape:
        raise ValueError(f"the input is empty: its shape is {shape}")
    return shape[0], shape[1]


def _mask(attention_mask: Any, shape: tuple[int, int]) -> Array | None:
    if attention_mask is None:
        return None
    mask = as_array("attention_mask", attention_mask)
    if mask.shape != shape:
        raise ValueError(f"attention_mask must have the shape {shape}, cached tokens included, not {mask.shape}")
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise ValueError("attention_mask must hold 1 for tokens and 0 for padding, and nothing else")
    return mask


def _positions(position_ids: Any, shape: tuple[int, int]) -> Array | None:
    if position_ids is None:
        return None
    positions = integers("position_ids", np.atleast_2d(as_array("position_ids", position_ids)), 2)
    if positions.shape not in (shape, (1, shape[1])) or (positions < 0).any():
        raise ValueError(f"position_ids must be {shape} integers of 0 or more, not of the shape {positions.shape}")
    return np.broadcast_to(positions, shape)


def _kept(logits_to_keep: Any, T: int) -> slice | Array:
    """Which of T positions are to get logits."""
    if isinstance(logits_to_keep, int | np.integer) and not isinstance(logits_to_keep, bool) and logits_to_keep >= 0:
        return slice(-int(logits_to_keep), None)
    if isinstance(logits_to_keep, str) or not np.iterable(logits_to_keep):
        raise ValueError(
            f"logits_to_keep must be 0 (all), a number of positions or a list of them, not {shown(logits_to_keep)}"
        )
    wanted = integers("logits_to_keep", logits_to_keep, 1)
    if ((wanted < -T) | (wanted >= T)).any():
        raise ValueError(f"logits_to_keep has {wanted[(wanted < -T) | (wanted >= T)][0]}, and there are {T} positions")
    return wanted


@contextmanager
def _undone_if_it_fails(past: Past | None) -> Iterator[None]:
    """If what is done here fails or is interrupted, a cache that was passed in is cut back to what it held before."""
    before = getattr(past, "length", 0)
    try:
        yield
    except BaseException:
        if past is not None and hasattr(past, "cut"):
            past.cut(before)
        raise


class _Collector:
    """A tap that picks out hidden states and attention probabilities, and passes everything on."""

    def __init__(self, tap: Tap, hidden_states: bool, attentions: bool):
        self.tap, self.needed = tap, hidden_states or attentions or tap is not no_tap
        self.only_stream = tap is no_tap and not attentions  # nothing from within the layers
        self._hidden: list[Array] | None = [] if hidden_states else None
        self._attentions: list[Array] | None = [] if attentions else None

    def __call__(self, name: str, array: Array) -> None:
        self.tap(name, array)
        if self._hidden is not None and name in ("embed_tokens", "norm"):
            if name == "norm":
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
