"""GenerationMixin: what gives a model `generate`, with the arguments of transformers' method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.generation.config import DEFAULTS, GenerationConfig
from minillama.generation.engine import Engine
from minillama.generation.loop import drive, room_after
from minillama.generation.processors import LogitsProcessor, logits_processors, with_custom
from minillama.generation.search import BeamSearch, GenerateOutput, Sampler, Streamer
from minillama.generation.stopping import (
    Decoder,
    EosTokenCriteria,
    MaxLengthCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from minillama.messages import shown

_PROCESSOR = "pass a function of (input_ids, scores) as logits_processor"
_STRATEGY = "use greedy search, sampling or beam search"
_CALL = "call the model itself on the ids that generate returns"
_ASSIST = "leave it out: no draft model is used"
# What transformers takes and this does not, and what to do about it
_INSTEAD = {
    "assistant_model": _ASSIST,
    "assistant_tokenizer": _ASSIST,
    "assistant_early_exit": _ASSIST,
    "prompt_lookup_num_tokens": _ASSIST,
    "use_mtp": _ASSIST,
    "inputs_embeds": "give input_ids, or call the model itself with inputs_embeds",
    "past_key_values": "give all of the text as input_ids: generate fills a cache of its own",
    "position_ids": "give attention_mask: positions are counted from it",
    "prefix_allowed_tokens_fn": _PROCESSOR,
    "negative_prompt_ids": _PROCESSOR,
    "negative_prompt_attention_mask": _PROCESSOR,
    "guidance_scale": _PROCESSOR,
    "sequence_bias": _PROCESSOR,
    "suppress_tokens": _PROCESSOR,
    "begin_suppress_tokens": _PROCESSOR,
    "forced_bos_token_id": _PROCESSOR,
    "forced_eos_token_id": _PROCESSOR,
    "exponential_decay_length_penalty": _PROCESSOR,
    "encoder_repetition_penalty": _PROCESSOR,
    "encoder_no_repeat_ngram_size": _PROCESSOR,
    "renormalize_logits": _PROCESSOR,
    "remove_invalid_values": _PROCESSOR,
    "watermarking_config": _PROCESSOR,
    "epsilon_cutoff": _PROCESSOR,
    "eta_cutoff": _PROCESSOR,
    "top_h": _PROCESSOR,
    "max_time": "pass a function of (input_ids, scores) as stopping_criteria",
    "token_healing": "cut the last token off the prompt before",
    "output_attentions": _CALL,
    "output_hidden_states": _CALL,
    "num_beam_groups": _STRATEGY,
    "diversity_penalty": _STRATEGY,
    "penalty_alpha": _STRATEGY,
    "dola_layers": _STRATEGY,
    "constraints": _STRATEGY,
    "force_words_ids": _STRATEGY,
    "custom_generate": _STRATEGY,
    "synced_gpus": "leave it out: there are none",
}
# Values of those that ask for nothing, beside None, False, 0 and what is empty
_NEUTRAL = {"num_beam_groups": 1, "encoder_repetition_penalty": 1, "guidance_scale": 1}


class GenerationMixin:
    """Gives `generate` to a class with a config, a generation_config and new_engine()."""

    config: LlamaConfig
    generation_config: GenerationConfig
    new_engine: Callable[[], Engine]

    def generate(
        self,
        input_ids: Any = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None,
        stopping_criteria: StoppingCriteria | Sequence[StoppingCriteria] | None = None,
        streamer: Streamer | None = None,
        tokenizer: Decoder | None = None,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> Array | GenerateOutput:
        """Continue each prompt: ids (B * num_return_sequences, L), the prompts first; or a GenerateOutput.

        input_ids: (B, T), an array or lists; without, one row of bos_token_id. attention_mask: (B, T), 1 keeps an id
        and 0 marks padding, wherever it stands: a row goes on as its real ids would alone. Without, ids equal to
        pad_token_id are padding, unless that is an end-of-text id too. generation_config: settings, before those of
        the model's own generation_config; further arguments are fields of GenerationConfig and come before both, None
        switching one off. logits_processor: a function (input_ids (B, T), scores (B, V)) -> scores, or several, that
        run before what is for sampling only; one of the class of a built-in one takes its place. stopping_criteria: a
        function (input_ids, scores) -> whether to stop, for all or for each row (B,), or several. Both see padding on
        the left, and with num_beams a row for each beam. streamer: shown the prompts and then each id as it comes, by
        put(ids) and end(). tokenizer: to find stop_strings with.

        Rows that have ended are filled with pad_token_id, or the first end-of-text id. A row whose text and new ids
        the context cannot hold is a ValueError, before any work.
        """
        if "inputs" in kwargs and input_ids is None:
            input_ids = kwargs.pop("inputs")
        if isinstance(input_ids, Mapping):
            raise ValueError("input_ids is a dictionary, such as a tokenizer returns: give it as **inputs")
        _check_kinds(generation_config, logits_processor, stopping_criteria, streamer, tokenizer)
        settings = self._settings(generation_config, kwargs)
        ends = settings.eos_token_id
        pad = settings.pad_token_id
        if pad is None and ends is not None:
            pad = ends[0] if isinstance(ends, list) else ends

        ids = self._prompts(input_ids, settings)
        mask = _mask(ids, attention_mask, pad, ends)
        rows = [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
        # With the padding of all rows on the left, processors and criteria need to know of no other
        aligned = np.take_along_axis(ids, np.argsort(mask, axis=1, kind="stable"), axis=1)

        B, T = ids.shape
        custom = _as_list(stopping_criteria)
        for criterion in custom:
            if isinstance(criterion, MaxLengthCriteria):  # it takes the place of what the settings say
                settings.max_length, settings.max_new_tokens = criterion.max_length, None
        settings.max_length = self._max_length(settings, rows, T)
        beams, copies = settings.num_beams, settings.num_return_sequences
        if copies > beams and (beams > 1 or not settings.do_sample):
            raise ValueError(
                f"num_return_sequences is {copies} and num_beams {beams}: without do_sample, or with beams, there are "
                "no more sequences than beams to return"
            )
        copies = beams if beams > 1 else copies
        if (custom or settings.stop_strings) and pad is None and B * copies > 1:
            raise ValueError(
                "rows may end at different lengths, and nothing says what to fill them with: give pad_token_id"
            )
        padding = np.repeat(T - np.array([len(row) for row in rows]), copies)
        processors = logits_processors(settings, padding, T, _as_list(logits_processor))
        criteria = _criteria(settings, tokenizer, custom)

        filler = 0 if pad is None else pad
        search: BeamSearch | Sampler
        if beams > 1:
            if streamer is not None:
                raise ValueError("a streamer cannot show several beams: use num_beams=1, or no streamer")
            search = BeamSearch(aligned, settings, processors, criteria, filler)
        else:
            search = Sampler(np.repeat(aligned, copies, axis=0), settings, processors, criteria, filler, streamer)
        if streamer is not None:
            streamer.put(np.repeat(ids, copies, axis=0))
        for _ in drive(self.new_engine(), rows, search.step, copies):
            pass
        if streamer is not None:
            streamer.end()
        output = search.output()
        output.sequences[:, :T] = np.repeat(ids, len(output.sequences) // B, axis=0)  # padding where it was
        return output if settings.return_dict_in_generate else output.sequences

    def _settings(self, config: GenerationConfig | None, kwargs: dict[str, Any]) -> GenerationConfig:
        """The model's settings, under those of `config`, under the arguments."""
        for name in kwargs:
            if name not in DEFAULTS and name not in _INSTEAD:
                near = get_close_matches(name, [*DEFAULTS, "input_ids", "attention_mask"], 1)
                hint = (
                    f"did you mean {near[0]}?"
                    if near
                    else "see minillama.generation.GenerationConfig for what it takes"
                )
                raise ValueError(f"generate() has no argument {name}: {hint}")
        own = {} if config is None else config.to_dict()
        merged = self.generation_config.to_dict() | own | kwargs
        for name in _INSTEAD:
            value = merged.get(name)
            if value is None or (isinstance(value, int | float | list) and value in (0, [], _NEUTRAL.get(name))):
                continue
            raise ValueError(f"generate() does not do {name}, which is {str(value)[:50]}: {_INSTEAD[name]}")
        if "top_k" in kwargs and kwargs["top_k"] is None:
            merged["top_k"] = 0  # off, and not the default
        settings = GenerationConfig(**merged)
        if not settings.return_dict_in_generate:
            settings.output_scores = settings.output_logits = False
        return settings

    def _prompts(self, input_ids: Any, settings: GenerationConfig) -> Array:
        """The ids (B, T), checked."""
        if input_ids is None:
            if settings.bos_token_id is None:
                raise ValueError("there are no input_ids, and no bos_token_id to begin with: give one of them")
            input_ids = [[settings.bos_token_id]]
        try:
            ids = np.asarray(input_ids)
        except ValueError:
            raise ValueError(
                "input_ids has rows of different lengths: pad them, and give attention_mask with 0 for padding"
            ) from None
        if ids.ndim != 2 or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                f"input_ids must be whole numbers of the shape (B, T), B and T above 0, not {ids.dtype} of the shape "
                f"{ids.shape}: one prompt is [ids]"
            )
        return ids.astype(np.int64)

    def _max_length(self, settings: GenerationConfig, rows: list[list[int]], T: int) -> int:
        """The length at which rows end, padding included. ValueError where the context has no room for it."""
        context = self.config.context_length
        if settings.max_new_tokens is not None:
            new = settings.max_new_tokens
        elif "max_length" in settings.to_dict():
            new = settings.max_length - T
            if new < 1:
                raise ValueError(
                    f"input_ids has {T} columns and max_length is {settings.max_length}: nothing can be added; raise "
                    "max_length, or give max_new_tokens"
                )
        else:
            new = min(settings.max_length, *(room_after(row, context, None) for row in rows))
        for row in rows:
            room_after(row, context, new)
        return T + int(new)


def _mask(ids: Array, attention_mask: Any, pad: int | None, ends: int | list[int] | None) -> Array:
    """Which ids (B, T) are no padding. ValueError for a row of nothing else."""
    if attention_mask is not None:
        mask = np.asarray(attention_mask)
        if mask.shape != ids.shape:
            raise ValueError(f"attention_mask must have the shape {ids.shape} of input_ids, not {mask.shape}")
        mask = mask != 0
    elif pad is None or (ends is not None and pad in np.atleast_1d(ends)):
        mask = np.ones(ids.shape, bool)
    else:
        mask = ids != pad
    if not mask.any(axis=1).all():
        row = int(np.argmin(mask.any(axis=1)))
        raise ValueError(f"row {row} of input_ids is nothing but padding: there is no text to continue")
    return mask


def _criteria(
    settings: GenerationConfig, tokenizer: Decoder | None, custom: Sequence[StoppingCriteria]
) -> StoppingCriteriaList:
    """When rows end: by length, by a stop string, by an end-of-text id, or when the caller's say so."""
    default: list[StoppingCriteria] = [MaxLengthCriteria(settings.max_length)]
    if settings.stop_strings:
        if tokenizer is None:
            raise ValueError("stop_strings are looked for in text: give the tokenizer too, as tokenizer=")
        default.append(StopStringCriteria(tokenizer, settings.stop_strings))
    if settings.eos_token_id is not None:
        default.append(EosTokenCriteria(settings.eos_token_id))
    return StoppingCriteriaList(with_custom(default, custom))


def _check_kinds(config: Any, processors: Any, criteria: Any, streamer: Any, tokenizer: Any) -> None:
    """ValueError for an argument of generate() that is not of its kind."""
    if not isinstance(config, GenerationConfig | None):
        raise ValueError(f"generation_config must be a GenerationConfig, not a {type(config).__name__}")
    for name, functions in (("logits_processor", processors), ("stopping_criteria", criteria)):
        if not all(callable(function) for function in _as_list(functions)):
            raise ValueError(
                f"{name} must be a function of (input_ids, scores), or a list of them, not {shown(functions)}"
            )
    if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
        raise ValueError(f"streamer must have put(ids) and end(), and a {type(streamer).__name__} has not")
    if tokenizer is not None and not hasattr(tokenizer, "decode"):
        raise ValueError(f"tokenizer must have decode(ids), and a {type(tokenizer).__name__} has not")


def _as_list(given: Any) -> list[Any]:
    """None, one function, or several."""
    if given is None:
        return []
    return list(given) if isinstance(given, Sequence) else [given]
