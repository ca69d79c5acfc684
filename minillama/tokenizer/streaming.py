"""Text that is printed while it is made."""

from __future__ import annotations

from collections.abc import Iterable

from minillama.growing_text import GrowingText, spelled_out
from minillama.tokenizer.base import Tokenizer


class StreamDecoder:
    """Decodes ids as they come, to the text that their tokens spell, without special tokens: never half a character,
    never a lost space. clean_up_tokenization_spaces changes nothing here.

    before: the ids of the text that the new ids continue, so that the first of them keeps its space.
    """

    def __init__(self, tokenizer: Tokenizer, before: Iterable[int] = ()):
        self._text = GrowingText(spelled_out(tokenizer, skip_special_tokens=True), before)

    def push(self, index: int) -> str:
        """The text that is certain once `index` has come; may be empty."""
        return self._text.push([index])

    def finish(self) -> str:
        """What was held back: an unfinished character becomes U+FFFD."""
        return self._text.finish()
