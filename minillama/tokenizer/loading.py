"""Finding the tokenizer of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from minillama.tokenizer.base import Tokenizer
from minillama.tokenizer.json_file import LlamaTokenizerFast
from minillama.tokenizer.sentencepiece_model import LlamaTokenizer

__all__ = ["Tokenizer", "load_tokenizer"]


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a folder (tokenizer.json, else tokenizer.model), or in a file (.json, else sentencepiece).

    Raises FileNotFoundError, OSError or ValueError that names the file.
    """
    place = Path(path)
    if place.is_dir():
        if (place / "tokenizer.json").exists():
            return LlamaTokenizerFast.from_pretrained(place)
        if (place / "tokenizer.model").exists():
            return LlamaTokenizer.from_pretrained(place)
        raise FileNotFoundError(f"{place} has no tokenizer.json and no tokenizer.model: name one with --tokenizer")
    if place.suffix == ".json":
        return LlamaTokenizerFast.from_pretrained(place)
    return LlamaTokenizer.from_pretrained(place)
