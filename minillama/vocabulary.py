"""A vocabulary without files of its own, as some files of weights hold one beside the weights."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What a piece is, by the numbers of sentencepiece and of ggml
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
# How a vocabulary of tiktoken begins: a token in base64 and its rank
TIKTOKEN = re.compile(rb"[A-Za-z0-9+/=]+ +\d+\s")

# The name of one of several GGUF files that hold a model together: its stem, which part it is, and of how many
GGUF_PART = r"(.+)-(\d{5})-of-(\d{5})\.gguf"


def gguf_files(folder: Path) -> list[Path]:
    """The GGUF files of a folder by name; of a model that is all there in several, the first only."""
    files = sorted(folder.glob("*.gguf"))
    parts = [re.fullmatch(GGUF_PART, file.name) for file in files]
    if files and all(part is not None and (part[1], part[3]) == (parts[0][1], parts[0][3]) for part in parts):  # type: ignore[index]
        return files[:1]
    return files


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a file is GGUF, which may hold a vocabulary, by its first bytes, or by its name where it has others."""
    if os.path.isdir(path):
        return False
    named = str(path).lower().endswith(".gguf")
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        return named
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF" or named
    except OSError:  # opening it says why
        return named


@dataclass(frozen=True)
class Vocabulary:
    """What minillama.tokenizer.from_pieces makes a tokenizer of, and to_pieces takes out of one.

    kind: "llama", sentencepiece's byte pairs, joined by the scores of what they make ("▁" for a space, types BYTE for
    unknown characters); or "gpt2", byte-level pairs, joined by a list of `merges` ("a b") after a text has been cut
    into words, in the way that llama.cpp calls `pre`. types: one a piece; none where nobody knows. bos, eos, unk, pad:
    ids. add_bos, add_eos: what is put around a text; None for what is usual. space_prefix: whether a space is put
    before a text, of kind "llama". chat_template: one, or several by name.
    """

    kind: str
    pieces: Sequence[str]
    scores: Sequence[float] = ()
    types: Sequence[int] = ()
    merges: Sequence[str] = ()
    pre: str = ""
    bos: int | None = None
    eos: int | None = None
    unk: int | None = None
    pad: int | None = None
    add_bos: bool | None = None
    add_eos: bool | None = None
    space_prefix: bool = True
    chat_template: str | Mapping[str, str] | None = None
