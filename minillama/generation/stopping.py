"""When a text ends: criteria on ids, named as in transformers, and stop strings in a stream of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.growing_text import REPLACEMENT, Decode, spelled_out
from minillama.messages import shown

# Called with the ids so far (B, T) and the scores of each step, (B, V) each, or None if they are not kept: whether to
# stop, for each row (B,) or for all
StoppingCriteria: TypeAlias = Callable[[Array, "tuple[Array, ...] | None"], Any]


class StoppingCriteriaList(list[StoppingCriteria]):
    """Several criteria: a row ends when one of them says so. ValueError if one answers with another shape."""

    def __call__(self, input_ids: Array, scores: tuple[Array, ...] | None = None) -> Array:
        done = np.zeros(len(input_ids), bool)
        for criterion in self:
            answer = np.asarray(criterion(input_ids, scores), bool)
            if answer.shape not in ((), done.shape):
                raise ValueError(
                    f"the stopping criterion {shown(criterion)} answered with the shape {answer.shape}: it must be one "
                    f"truth value, or one for each of the {len(done)} rows"
                )
            done |= answer
        return done


class MaxLengthCriteria:
    """Rows end with `max_length` ids, prompt and padding included."""

    def __init__(self, max_length: int):
        self.max_length = max_length

    def __call__(self, input_ids: Array, scores: tuple[Array, ...] | None = None) -> bool:
        return input_ids.shape[1] >= self.max_length


class EosTokenCriteria:
    """Rows end with an end-of-text id."""

    def __init__(self, eos_token_id: int | Sequence[int]):
        self.eos_token_id = eos_token_id

    def __call__(self, input_ids: Array, scores: tuple[Array, ...] | None = None) -> Array:
        return np.isin(input_ids[:, -1], self.eos_token_id)


class Decoder(Protocol):
    """What criteria and streamers need of a tokenizer."""

    def decode(self, ids: list[int]) -> str: ...
    def __len__(self) -> int: ...


class StopStringCriteria:
    """Rows end with the id that completes one of the texts, wherever in the text of that id it ends. The text is what
    the tokens spell: clean_up_tokenization_spaces changes nothing."""

    def __init__(self, tokenizer: Decoder, stop_strings: str | Sequence[str]):
        self.tokenizer = tokenizer
        self.stop_strings = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
        # An id stands for a byte or more; the text of the first two may have lost a space each (LlamaTokenizer, legacy)
        self._window = max(len(stop.encode()) for stop in self.stop_strings) + 2

    def __call__(self, input_ids: Array, scores: tuple[Array, ...] | None = None) -> Array:
        return np.array([self._completed(row.tolist()) for row in input_ids[:, -self._window :]], bool)

    def _completed(self, ids: list[int]) -> bool:
        size, decode = len(self.tokenizer), spelled_out(self.tokenizer)
        if not 0 <= ids[-1] < size:
            return False
        known = [index for index in ids if 0 <= index < size]
        text = decode(known)
        # The window may cut a character, or a byte belong to none. The tokenizers library then makes the whole run of
        # byte tokens U+FFFD, and a stop string in it shows from a later token on
        later = len(known) if REPLACEMENT in text else 1
        return any(self._ends_in_last(known[start:], decode) for start in range(later))

    def _ends_in_last(self, ids: list[int], decode: Decode) -> bool:
        text = decode(ids)
        if not any(stop in text for stop in self.stop_strings):
            return False
        # The text before the last id, without the bytes that this completes to a character
        befores = (decode(ids[:end]) for end in range(len(ids) - 1, 0, -1))
        before = next((before for before in befores if text.startswith(before)), "")
        return any(text.find(stop, max(0, len(before) - len(stop) + 1)) >= 0 for stop in self.stop_strings)


class StopStrings:
    """Lets text through up to the stop string that is complete first, holding back whatever may be the start of one."""

    def __init__(self, stops: Sequence[str]):
        if "" in stops:
            raise ValueError("a stop string is empty: it would stop everything at once")
        self._stops = list(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that may be shown now. Once a stop string is complete, `found` is set and nothing follows."""
        if self.found:
            return ""
        text = self._held + text
        places = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stops if stop in text]
        if places:
            self.found, self._held = True, ""
            _, start = min(places)  # of several, the first to be complete: the same however the text was cut
            return text[:start]
        longest = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - longest :]
        return text[: len(text) - longest]

    def finish(self) -> str:
        """What was held back, now that no more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are a beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
