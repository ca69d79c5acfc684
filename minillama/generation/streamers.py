"""TextStreamer: text on the screen as it is generated."""

from __future__ import annotations

from typing import Any

from minillama.arrays import Array
from minillama.generation.stopping import Decoder
from minillama.growing_text import GrowingText, spelled_out


class TextStreamer:
    """Prints the text of one row as it becomes certain; pass it to `generate` as streamer.

    skip_prompt: print what is new only. Further arguments go to the tokenizer's `decode`, but the text is always what
    the tokens spell: clean_up_tokenization_spaces changes nothing. Override on_finalized_text to do something else
    with the text. transformers prints whole words; this, whole characters.
    """

    def __init__(self, tokenizer: Decoder, skip_prompt: bool = False, **decode_kwargs: Any):
        self.tokenizer, self.skip_prompt, self.decode_kwargs = tokenizer, skip_prompt, decode_kwargs
        self._text: GrowingText | None = None  # None: the prompt is still to come

    def put(self, value: Array) -> None:
        """Take the prompt (1, T), then each new id (1,). ValueError for more than one row."""
        if len(value) > 1:
            raise ValueError(f"a TextStreamer prints one row, and there are {len(value)}: generate them one by one")
        ids = value.ravel().tolist()
        if self._text is None:
            decode = spelled_out(self.tokenizer, **self.decode_kwargs)
            self._text = GrowingText(decode, ids if self.skip_prompt else ())
            ids = [] if self.skip_prompt else ids
        if text := self._text.push(ids):
            self.on_finalized_text(text)

    def end(self) -> None:
        """Print what was held back, and a newline."""
        text, self._text = "" if self._text is None else self._text.finish(), None
        self.on_finalized_text(text, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called with each new piece of text."""
        print(text, end="\n" if stream_end else "", flush=True)
