"""Text that grows id by id: what new ids add to it, never half a character, never a lost space."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what the bytes of an unfinished character decode to
Decode: TypeAlias = Callable[[list[int]], str]


def spelled_out(tokenizer: Any, **how: Any) -> Decode:
    """The tokenizer's decode, which takes `how` too, without its clean-up: that would take spaces away which are out
    already, and looks at more than one token at a time."""
    if hasattr(tokenizer, "clean_up_tokenization_spaces"):
        how["clean_up_tokenization_spaces"] = False
    return partial(tokenizer.decode, **how)


class GrowingText:
    """Decodes ids as they come. A token alone cannot be decoded: the space before it shows only after another token,
    and a character may be spread over four. So each step decodes the latest tokens with and without the new ones and
    gives out the difference, and holds it back while it ends in an unfinished character.

    before: the ids of the text that the new ids continue, so that the first of them keeps its space.
    """

    def __init__(self, decode: Decode, before: Iterable[int] = ()):
        self._decode = decode
        self._ids = list(before)  # some whose text is out, then those whose text is not
        self._given = len(self._ids)  # how many are of the first kind

    def push(self, ids: Iterable[int]) -> str:
        """The text that is certain once `ids` have come; may be empty."""
        self._ids += ids
        new = self._added(len(self._ids))
        if new.endswith(REPLACEMENT):
            new = self._behind_stray_bytes()
        if new.strip():  # what has just been given out is context enough: of spaces alone some would be dropped
            self._ids = self._ids[self._given :]
        if new:
            self._given = len(self._ids)
        return new

    def finish(self) -> str:
        """What was held back: an unfinished character becomes U+FFFD."""
        new, self._given = self._added(len(self._ids)), len(self._ids)
        return new

    def _added(self, end: int) -> str:
        """What the ids up to `end` whose text is not out add to the text of those before."""
        before, text = self._decode(self._ids[: self._given]), self._decode(self._ids[:end])
        if text.startswith(before):
            return text[len(before) :]
        if text.startswith(complete := before.rstrip(REPLACEMENT)):  # its last character goes on
            return text[len(complete) :]
        # The tokenizers library makes every byte of a run of byte tokens U+FFFD if one is wrong, those that are out too
        return self._decode(self._ids[self._given : end])

    def _behind_stray_bytes(self) -> str:
        """The new text where its last character is complete, but lost among bytes that belong to none; else nothing."""
        end = len(self._ids)
        for start in range(max(self._given, end - 4), end):  # a character has four bytes at most
            tail = self._decode(self._ids[start:])
            if tail and REPLACEMENT not in tail:
                return self._added(start) + tail
        return ""
