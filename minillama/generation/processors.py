"""Logits processors: what changes the scores of the next id before one is chosen.

Each is called with the ids so far (B, T), padding on the left included, and scores (B, V), and returns new scores. The
names are those of transformers; so is the order in which `logits_processors` puts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minillama.arrays import Array
from minillama.generation.config import GenerationConfig, check_field
from minillama.generation.sampling import (
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    penalize_repetition,
    seen_ids,
)
from minillama.messages import shown

LogitsProcessor: TypeAlias = Callable[[Array, Array], Array]
T = TypeVar("T")


class LogitsProcessorList(list[LogitsProcessor]):
    """Several processors, run one after the other. ValueError if one returns scores of another shape."""

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        shape = scores.shape
        for processor in self:
            scores = np.asarray(processor(input_ids, scores))
            if scores.shape != shape:
                raise ValueError(
                    f"the logits processor {shown(processor)} returned scores of the shape {scores.shape}: it "
                    f"must return {shape}, as it was given"
                )
        return scores


class RepetitionPenaltyLogitsProcessor:
    """Scores of ids that a row already has are divided by `penalty` if positive, else multiplied (Keskar et al. 2019).

    prompt_ignore_length: how many ids at the start of the rows do not count, one number or one for each row (B,).
    """

    def __init__(self, penalty: float, prompt_ignore_length: int | Array = 0):
        check_field("repetition_penalty", penalty)
        self.penalty, self.prompt_ignore_length = penalty, np.asarray(prompt_ignore_length)

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        V = scores.shape[-1]
        ignored = np.arange(input_ids.shape[1]) < self.prompt_ignore_length[..., None]
        return penalize_repetition(scores, seen_ids(np.where(ignored, V, input_ids), V), self.penalty)


class NoRepeatNGramLogitsProcessor:
    """No run of `ngram_size` ids comes twice in a row of the batch, the prompt included."""

    def __init__(self, ngram_size: int):
        check_field("no_repeat_ngram_size", ngram_size)
        self.ngram_size = ngram_size

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        n, V = self.ngram_size, scores.shape[-1]
        if n == 0 or input_ids.shape[1] < n:
            return scores
        begun = input_ids[:, input_ids.shape[1] - n + 1 :]  # what the next id would complete
        runs = sliding_window_view(input_ids, n, axis=1)  # (B, T - n + 1, n)
        again = (runs[:, :, :-1] == begun[:, None]).all(axis=2)
        return np.where(seen_ids(np.where(again, runs[:, :, -1], V), V), -math.inf, scores)


class NoBadWordsLogitsProcessor:
    """None of the words, each a list of ids, is completed. Words that are one end-of-text id alone do not count."""

    def __init__(self, bad_words_ids: list[list[int]], eos_token_id: int | Sequence[int] | None = None):
        check_field("bad_words_ids", bad_words_ids)
        ends = [[index] for index in _as_list(eos_token_id)]
        self.words = [word for word in bad_words_ids if word not in ends]

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        scores = scores.copy()
        for word in self.words:
            *begin, last = word
            if max(word) >= scores.shape[-1]:
                raise ValueError(
                    f"bad_words_ids has the id {max(word)}, outside the vocabulary 0..{scores.shape[-1] - 1}"
                )
            if len(begin) <= input_ids.shape[1]:
                begun = (input_ids[:, input_ids.shape[1] - len(begin) :] == np.array(begin, int)).all(axis=1)
                scores[begun, last] = -math.inf
        return scores


class MinLengthLogitsProcessor:
    """No end-of-text while a row has fewer than `min_length` ids, prompt and padding included."""

    def __init__(self, min_length: int, eos_token_id: int | Sequence[int]):
        check_field("min_length", min_length)
        self.min_length, self.eos_token_id = min_length, _as_list(eos_token_id)

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        if input_ids.shape[1] >= self.min_length:
            return scores
        ends = seen_ids(np.array(self.eos_token_id, int), scores.shape[-1])
        return np.where(ends, -math.inf, scores)


class MinNewTokensLengthLogitsProcessor(MinLengthLogitsProcessor):
    """No end-of-text before `min_new_tokens` ids have followed the `prompt_length_to_skip` of the prompt."""

    def __init__(self, prompt_length_to_skip: int, min_new_tokens: int, eos_token_id: int | Sequence[int]):
        check_field("min_new_tokens", min_new_tokens)
        super().__init__(prompt_length_to_skip + min_new_tokens, eos_token_id)


class TemperatureLogitsWarper:
    """Scores are divided by `temperature`: below 1 the likely become likelier, above 1 less so."""

    def __init__(self, temperature: float):
        check_field("temperature", temperature)
        if temperature == 0:
            raise ValueError("temperature must be above 0 to sample: for the likeliest each time, use do_sample=False")
        self.temperature = temperature

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        return scores / self.temperature


class _Warper:
    """What those have in common that keep some ids only: what the others get, and how many stay at least."""

    def __init__(self, name: str, value: float, filter_value: float, min_tokens_to_keep: int):
        check_field(name, value)
        if min_tokens_to_keep < 1:
            raise ValueError(f"min_tokens_to_keep must be at least 1, not {min_tokens_to_keep}")
        self.filter_value, self.min_tokens_to_keep = filter_value, min_tokens_to_keep


class TopKLogitsWarper(_Warper):
    """Only the `top_k` likeliest stay, and ties with the last of them; 0 keeps all."""

    def __init__(self, top_k: int, filter_value: float = -math.inf, min_tokens_to_keep: int = 1):
        super().__init__("top_k", top_k, filter_value, min_tokens_to_keep)
        self.top_k = max(top_k, min_tokens_to_keep) if top_k else 0

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        return keep_top_k(scores, self.top_k, self.filter_value) if self.top_k else scores


class TopPLogitsWarper(_Warper):
    """Only the fewest stay whose probabilities sum to at least `top_p` (Holtzman et al. 2019)."""

    def __init__(self, top_p: float, filter_value: float = -math.inf, min_tokens_to_keep: int = 1):
        super().__init__("top_p", top_p, filter_value, min_tokens_to_keep)
        self.top_p = top_p

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        return keep_top_p(scores, self.top_p, self.min_tokens_to_keep, self.filter_value)


class MinPLogitsWarper(_Warper):
    """Only those stay that are at least `min_p` times as likely as the likeliest (Nguyen et al. 2024)."""

    def __init__(self, min_p: float, filter_value: float = -math.inf, min_tokens_to_keep: int = 1):
        super().__init__("min_p", min_p, filter_value, min_tokens_to_keep)
        self.min_p = min_p

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        return keep_min_p(scores, self.min_p, self.min_tokens_to_keep, self.filter_value)


class TypicalLogitsWarper(_Warper):
    """Only the fewest stay whose probabilities sum to at least `mass`, taken by how near their surprise, -log p, is to
    the expected one, the entropy (Meister et al. 2023)."""

    def __init__(self, mass: float = 0.9, filter_value: float = -math.inf, min_tokens_to_keep: int = 1):
        super().__init__("typical_p", mass, filter_value, min_tokens_to_keep)
        self.mass = mass

    def __call__(self, input_ids: Array, scores: Array) -> Array:
        return keep_typical(scores, self.mass, self.min_tokens_to_keep, self.filter_value)


def logits_processors(
    config: GenerationConfig, padding: Array, prompt_length: int, custom: Sequence[LogitsProcessor] = ()
) -> LogitsProcessorList:
    """Those that a config asks for, in their order, and the caller's own before what is for sampling only.

    padding: how many ids at the start of each row (B,) stand for none. prompt_length: of the rows, padding included.
    One of the caller's takes the place of one of the same class.
    """
    ends = _as_list(config.eos_token_id)
    default: list[LogitsProcessor] = []
    if config.repetition_penalty != 1:
        default.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty, padding))
    if config.no_repeat_ngram_size:
        default.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.bad_words_ids:
        default.append(NoBadWordsLogitsProcessor(config.bad_words_ids, ends))
    if config.min_length and config.min_new_tokens is None and ends:
        default.append(MinLengthLogitsProcessor(config.min_length, ends))
    if config.min_new_tokens and ends:
        default.append(MinNewTokensLengthLogitsProcessor(prompt_length, config.min_new_tokens, ends))
    processors = LogitsProcessorList(with_custom(default, custom))
    if not config.do_sample:
        return processors
    least = 1 if config.num_beams == 1 else len(ends) + 1 if ends else 2  # a beam must be able to go on
    if config.temperature != 1:
        processors.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k:
        processors.append(TopKLogitsWarper(config.top_k, min_tokens_to_keep=least))
    if config.top_p < 1:
        processors.append(TopPLogitsWarper(config.top_p, min_tokens_to_keep=least))
    if config.min_p is not None:
        processors.append(MinPLogitsWarper(config.min_p, min_tokens_to_keep=least))
    if config.typical_p < 1:
        processors.append(TypicalLogitsWarper(config.typical_p, min_tokens_to_keep=least))
    return processors


def with_custom(default: Sequence[T], custom: Sequence[T]) -> list[T]:
    """The default ones, the caller's in the place of those of the same class, then the rest of the caller's."""
    chosen = [next((own for own in custom if type(own) is type(one)), one) for one in default]
    return chosen + [own for own in custom if not any(own is one for one in chosen)]


def _as_list(eos_token_id: int | Sequence[int] | None) -> list[int]:
    if eos_token_id is None:
        return []
    return [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)
