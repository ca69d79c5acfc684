"""The tokenizer of a model, wherever it is: in files of its own, or in the file of the weights."""

from __future__ import annotations

import os
from pathlib import Path

from minillama.tokenizer import AutoTokenizer, Tokenizer


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a folder (tokenizer.json, else tokenizer.model, else that of its GGUF file), or in a file
    (.json, .gguf, else sentencepiece). Where a GGUF file has none, files beside it are taken.

    Raises FileNotFoundError, OSError or ValueError that names the file.
    """
    place = Path(path)
    if place.is_dir() and not any((place / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        files = sorted(place.glob("*.gguf"))
        place = files[0] if len(files) == 1 else place
    if place.suffix != ".gguf":
        return AutoTokenizer.from_pretrained(place)
    from minillama.tokenizer.from_pieces import from_pieces
    from minillama.weights.gguf_vocabulary import gguf_vocabulary

    vocabulary = gguf_vocabulary(place)
    if vocabulary is None:
        return AutoTokenizer.from_pretrained(place.parent)
    try:
        return from_pieces(vocabulary)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
