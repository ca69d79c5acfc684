"""Text that is printed while it is made: never half a character, never a lost space."""

from __future__ import annotations

from collections.abc import Iterable

from minillama.tokenizer.base import Tokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what the bytes of an unfinished character decode to


class StreamDecoder:
    """Decodes ids as they come. A token alone cannot be decoded: the space before it shows only after another token,
    and a character may be spread over four. So each step decodes the latest tokens with and without the new ones and
    gives out the difference, and holds it back while it ends in an unfinished character.

    before: the ids of the text that the new ids continue, so that the first of them keeps its space.
    """

    def __init__(self, tokenizer: Tokenizer, before: Iterable[int] = ()):
        self._tokenizer = tokenizer
        self._ids = list(before)  # some whose text is out, then those whose text is not
        self._given = len(self._ids)  # how many are of the first kind

    def push(self, index: int) -> str:
        """The text that is certain once `index` has come; may be empty."""
        self._ids.append(index)
        new = self._new_text()
        if new.endswith(REPLACEMENT):
            return ""
        if new.strip():  # what has just been given out is context enough: of spaces alone some would be dropped
            self._ids = self._ids[self._given :]
        if new:
            self._given = len(self._ids)
        return new

    def finish(self) -> str:
        """What was held back: an unfinished character becomes U+FFFD."""
        new, self._given = self._new_text(), len(self._ids)
        return new

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._ids[: self._given], skip_special_tokens=True)
        return self._tokenizer.decode(self._ids, skip_special_tokens=True)[len(before) :]
