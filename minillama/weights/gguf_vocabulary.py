"""The vocabulary in the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minillama.vocabulary import CONTROL, Vocabulary
from minillama.weights.gguf_file import field, read_gguf
from minillama.weights.gguf_special import known_ends, special_id

TEMPLATE = "tokenizer.chat_template"  # with .NAME, others than the default


def gguf_vocabulary(path: Path) -> Vocabulary | None:
    """The pieces of a file, and how they are used; None if it has none. ValueError that names the file."""
    metadata = read_gguf(path).metadata
    try:
        return _vocabulary(metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _vocabulary(metadata: Mapping[str, Any]) -> Vocabulary | None:
    prefix = "tokenizer.ggml."
    kind = field(metadata, f"{prefix}model", str, "no_vocab")
    if kind in ("no_vocab", "none"):
        return None
    add_bos, add_eos = (
        field(metadata, f"{prefix}add_{which}_token", bool) if f"{prefix}add_{which}_token" in metadata else None
        for which in ("bos", "eos")
    )
    pieces = [
        piece or f"[EMPTY_{index}]"  # llama.cpp's name of it
        for index, piece in enumerate(_texts(metadata, f"{prefix}tokens", required=True))
    ]
    types = _numbers(metadata, f"{prefix}token_type", "iu")[: len(pieces)]
    for index in known_ends(pieces[: len(types)]):
        types[index] = CONTROL  # whatever their type, as in llama.cpp
    return Vocabulary(
        kind=kind,
        pieces=pieces,
        scores=[float(score) for score in _numbers(metadata, f"{prefix}scores", "fiu")[: len(pieces)]],
        types=types,
        merges=_texts(metadata, f"{prefix}merges"),
        pre=field(metadata, f"{prefix}pre", str, ""),
        bos=special_id(metadata, "bos"),
        eos=special_id(metadata, "eos"),
        unk=special_id(metadata, "unknown"),
        pad=special_id(metadata, "padding"),
        add_bos=add_bos,
        add_eos=add_eos,
        space_prefix=field(metadata, f"{prefix}add_space_prefix", bool, True),
        chat_template=_templates(metadata),
    )


def _texts(metadata: Mapping[str, Any], key: str, required: bool = False) -> list[str]:
    texts = metadata.get(key)
    if texts is None and not required:
        return []
    if not isinstance(texts, list):
        raise ValueError(f"its metadata have no {key}, or it is not an array of texts")
    return texts


def _numbers(metadata: Mapping[str, Any], key: str, kinds: str) -> list[Any]:
    numbers = metadata.get(key, np.zeros(0, kinds[0]))
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in kinds:
        raise ValueError(f"its {key} is not an array of {'' if 'f' in kinds else 'whole '}numbers")
    return numbers.tolist()


def _templates(metadata: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The chat template, or if there are others than the default, all of them by name."""
    named = {
        key.removeprefix(f"{TEMPLATE}."): field(metadata, key, str)
        for key in metadata
        if key.startswith(f"{TEMPLATE}.")
    }
    if TEMPLATE not in metadata:
        return named or None
    default = field(metadata, TEMPLATE, str)
    return {"default": default, **named} if named else default
