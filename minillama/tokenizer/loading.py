"""Finding the tokenizer of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from minillama.config import read_json_object
from minillama.tokenizer.base import Tokenizer
from minillama.tokenizer.json_file import LlamaTokenizerFast
from minillama.tokenizer.llama2c_bin import open_tokenizer_bin
from minillama.tokenizer.sentencepiece_model import LlamaTokenizer
from minillama.tokenizer.tiktoken_file import is_tiktoken, open_tiktoken
from minillama.vocabulary import is_gguf

__all__ = ["AutoTokenizer", "Tokenizer"]
# What a tokenizer is kept in
TOKENIZER_FILES = (
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "tokenizer.bin",
)  # fmt: skip


class AutoTokenizer:
    """Not a tokenizer itself: from_pretrained gives one of the class that the files ask for."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer has no instances: call AutoTokenizer.from_pretrained(path)")

    @staticmethod
    def from_pretrained(path: str | os.PathLike[str], *, use_fast: bool = True, **overrides: Any) -> Tokenizer:
        """The tokenizer in a folder, or in a file (.json, llama2.c's .bin, else a tokenizer.model).

        LlamaTokenizerFast where there is a tokenizer.json, or where tokenizer_config.json names that class; with only a
        tokenizer.model, or with use_fast=False where there is one, LlamaTokenizer, and so with only llama2.c's
        tokenizer.bin. A tokenizer.model of Llama 3, which is no sentencepiece model, makes a LlamaTokenizerFast.
        overrides: arguments of the class that come before what the files say. FileNotFoundError, OSError or ValueError
        that names the file.
        """
        place = Path(path)
        if not place.is_dir():
            if is_gguf(place):
                raise ValueError(f"{place} is a GGUF file: minillama.load_tokenizer reads the vocabulary in it")
            if is_tiktoken(place):
                return open_tiktoken(place, **overrides)
            if place.suffix == ".bin":
                return open_tokenizer_bin(place, **overrides)
            kind = LlamaTokenizerFast if place.suffix == ".json" else LlamaTokenizer
            return kind.from_pretrained(place, **overrides)
        if (place / "params.json").exists() and not _has_vocabulary(place) and _has_vocabulary(place.parent):
            place = place.parent  # where Meta keeps one for models of all sizes
        has_json, has_model = (place / "tokenizer.json").exists(), (place / "tokenizer.model").exists()
        if not has_json and not has_model and (place / "tokenizer.bin").exists():
            return open_tokenizer_bin(place / "tokenizer.bin", **overrides)
        if not has_json and not has_model:
            raise FileNotFoundError(f"{place} has no tokenizer.json and no tokenizer.model: name one with --tokenizer")
        if has_model and not (use_fast and has_json) and is_tiktoken(place / "tokenizer.model"):
            return open_tiktoken(place / "tokenizer.model", **overrides)
        config = place / "tokenizer_config.json"
        named = read_json_object(config, "settings of a tokenizer").get("tokenizer_class") if config.exists() else None
        fast = use_fast and (has_json or (named == "LlamaTokenizerFast"))
        return (LlamaTokenizerFast if fast or not has_model else LlamaTokenizer).from_pretrained(place, **overrides)


def _has_vocabulary(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model"))
