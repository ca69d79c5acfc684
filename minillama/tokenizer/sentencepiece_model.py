"""The tokenizer of Llama 1 and 2: a sentencepiece model (byte-pair merges, unknown characters as bytes)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import sentencepiece

from minillama.tokenizer.base import SpecialTokens, Tokenizer

MARKER = "▁"  # U+2581, how sentencepiece writes a space
# Appended to a serialized model, these bytes set normalizer_spec.add_dummy_prefix (field 3 in field 3) to false:
# a message that stands twice is merged, the last value wins (the protocol buffers encoding).
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class LlamaTokenizer(Tokenizer):
    """A sentencepiece `.model` file with the special tokens of the files beside it.

    legacy=True (the default) encodes every stretch of text between special tokens by itself, with a space put before
    it. legacy=False puts one before the whole text only. add_bos_token is True unless the files say otherwise.
    """

    def __init__(
        self, vocab_file: str | os.PathLike[str], special: SpecialTokens | None = None, legacy: bool | None = None
    ):
        self.special = SpecialTokens() if special is None else special
        stated = self.special.legacy if legacy is None else legacy
        self.legacy = True if stated is None else stated
        self.add_bos_token = self.special.add_bos_token is not False
        self.add_eos_token = self.special.add_eos_token is True
        try:
            model = Path(vocab_file).read_bytes()
        except OSError as error:
            raise OSError(f"{vocab_file} cannot be read: {error.strerror}") from None
        if not model:
            raise ValueError(f"{vocab_file} is empty: get the tokenizer model again")
        try:
            self.sp_model = sentencepiece.SentencePieceProcessor(
                model_proto=model if self.legacy else model + _NO_DUMMY_PREFIX
            )
        except RuntimeError:
            raise ValueError(f"{vocab_file} is not a sound sentencepiece model: get it again") from None
        sp = self.sp_model
        self.vocab = {sp.id_to_piece(i): i for i in range(len(sp))}
        for token, index in self.special.added.items():
            if index >= len(sp):
                self.vocab[token] = index
        self._pieces = {index: token for token, index in self.vocab.items()}
        known = [token for token in {*self.special.named, *self.special.added} if token in self.vocab]
        self._split = re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True))) or "(?!)")
        self._known = {self.vocab[token] for token in known}

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> LlamaTokenizer:
        """Read a folder with a tokenizer.model, or a sentencepiece file by any name."""
        file = Path(path)
        file = file / "tokenizer.model" if file.is_dir() else file
        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist: a sentencepiece model is expected there")
        return cls(file, SpecialTokens.from_folder(file.parent))

    def _encode(self, text: str) -> list[int]:
        if not text:
            return []
        if not self.legacy:
            text = MARKER + text.replace(MARKER, " ")
        ids, start = [], 0
        for match in self._split.finditer(text):
            ids += self._encode_stretch(text[start : match.start()])
            ids.append(self.vocab[match.group()])
            start = match.end()
        ids += self._encode_stretch(text[start:])
        if not self.legacy and len(ids) > 1 and ids[0] == self.vocab.get(MARKER) and ids[1] in self._known:
            ids = ids[1:]  # the marker before a special token marks nothing
        return ids

    def _encode_stretch(self, text: str) -> list[int]:
        if self.legacy or not text.startswith((MARKER, " ")):
            return list(self.sp_model.encode(text))
        # Without a dummy prefix sentencepiece strips a leading space: put something before it and take that off again
        shield = self.special.unk_token or "<unk>"
        return list(self.sp_model.encode(shield + text))[len(self.sp_model.encode(shield)) :]

    def _decode(self, ids: list[int]) -> str:
        text = ""
        stretch: list[int] = []
        for index in ids:
            if index in self._known or index >= len(self.sp_model):
                text += self.sp_model.decode(stretch) + self._pieces.get(index, "")
                stretch = []
            else:
                stretch.append(index)
        text += str(self.sp_model.decode(stretch))
        # A legacy model drops the marker before each stretch by itself; else only encode's, before the whole text, goes
        prefixed = not self.legacy and ids and self._pieces.get(ids[0], "").startswith(MARKER)
        return text[1:] if prefixed else text
