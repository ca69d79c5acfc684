"""TextStreamer: text on the screen as it is generated."""

from __future__ import annotations

from typing import Any

from minillama.arrays import Array
from minillama.generation.stopping import Decoder


class TextStreamer:
    """Prints the text of one row as it becomes certain; pass it to `generate` as streamer.

    skip_prompt: print what is new only. Further arguments go to the tokenizer's `decode`. Override on_finalized_text
    to do something else with the text. transformers prints whole words; this, whole characters.
    """

    def __init__(self, tokenizer: Decoder, skip_prompt: bool = False, **decode_kwargs: Any):
        self.tokenizer, self.skip_prompt, self.decode_kwargs = tokenizer, skip_prompt, decode_kwargs
        self._start()

    def _start(self) -> None:
        self._ids: list[int] = []  # those shown last, and those not shown yet
        self._shown = 0  # how many of them the text that was printed stands for
        self._prompt = True

    def put(self, value: Array) -> None:
        """Take the prompt (1, T), then each new id (1,). ValueError for more than one row."""
        if len(value) > 1:
            raise ValueError(f"a TextStreamer prints one row, and there are {len(value)}: generate them one by one")
        prompt, self._prompt = self._prompt, False
        self._ids += value.ravel().tolist()
        if prompt and self.skip_prompt:
            self._shown = len(self._ids)
        text = self._new_text()
        if not text.endswith("\ufffd"):  # else bytes of a character are still to come
            self._flush(text)

    def end(self) -> None:
        """Print what was held back, and a newline."""
        text = self._new_text()
        self._start()
        self.on_finalized_text(text, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called with each new piece of text."""
        print(text, end="\n" if stream_end else "", flush=True)

    def _new_text(self) -> str:
        """What the ids not shown yet add to the text of those shown last, whose company decides about spaces."""
        before: str = self.tokenizer.decode(self._ids[: self._shown], **self.decode_kwargs)
        return self.tokenizer.decode(self._ids, **self.decode_kwargs)[len(before) :]

    def _flush(self, text: str) -> None:
        if text.strip():  # of spaces alone, as company, some would be lost
            self._ids = self._ids[self._shown :]
        if text:
            self.on_finalized_text(text)
            self._shown = len(self._ids)
