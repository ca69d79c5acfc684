"""Models in several GGUF files, and GGUF files that are not models.

llama-gguf-split calls the parts NAME-00001-of-00003.gguf; the first has the metadata, and each says which one it is
(split.no, from 0), of how many (split.count), and how many tensors all have (split.tensors.count). Source:
tools/gguf-split and src/llama-model-loader.cpp of llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minillama.vocabulary import GGUF_PART
from minillama.weights.gguf_file import GGUF, field, read_gguf

_KINDS = {  # general.type -> what a file is, where it is not a model, and what to do
    "adapter": "a LoRA adapter: name it with --lora, and the file of its model here",
    "imatrix": "an importance matrix, by which others quantize, and holds no model: name the file of a model",
    "mmproj": "the part of a model that sees or hears: name the file of its language model",
    "vocab": "a vocabulary without weights: name it with --tokenizer, and the file of a model here",
}
_ARCHITECTURES = {"clip": "mmproj", "controlvector": "control vector"}


def open_whole(path: Path) -> GGUF:
    """The metadata and tensors of a model in one file, or in all parts of which this one is the first. ValueError or
    FileNotFoundError that names the file, for another part, a missing part, and a file that is not a model."""
    gguf = read_gguf(path)
    try:
        check_kind(gguf)
        number, count = _place(gguf.metadata)
        if count == 1:
            return gguf
        files = _part_files(path, number, count)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise FileNotFoundError(
            f"{path.parent} has {count - len(missing)} of {count} parts of the model: get {shown} too"
        )
    tensors, owners = dict(gguf.tensors), dict.fromkeys(gguf.tensors, gguf.file)
    for index, file in enumerate(files[1:], 1):
        part = read_gguf(file)
        try:
            if _place(part.metadata) != (index, count):
                raise ValueError(f"it is called part {index + 1} of {count} and is another: get it again")
            if twice := next((name for name in part.tensors if name in tensors), None):
                raise ValueError(f"it has the tensor {twice}, and so has an earlier part: get the parts of one model")
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        tensors |= part.tensors
        owners |= dict.fromkeys(part.tensors, part.file)
    stated = gguf.metadata.get("split.tensors.count", len(tensors))
    if stated != len(tensors):
        raise ValueError(f"{path}: its {count} parts have {len(tensors)} tensors, and it says {stated}: get them again")
    return GGUF(gguf.file, gguf.metadata, tensors, owners)


def check_kind(gguf: GGUF) -> None:
    """ValueError that says what a file is, where it is of no model."""
    metadata, tensors = gguf.metadata, gguf.tensors
    kind = metadata.get("general.type")
    architecture = metadata.get("general.architecture")
    if any(name.endswith(".in_sum2") for name in tensors):
        kind = "imatrix"
    elif isinstance(architecture, str) and architecture in _ARCHITECTURES:
        kind = _ARCHITECTURES[architecture]
    elif not tensors and "tokenizer.ggml.tokens" in metadata and "split.count" not in metadata:
        kind = "vocab"
    if isinstance(kind, str) and kind in _KINDS:
        raise ValueError(f"it is {_KINDS[kind]}")
    if kind == "control vector":
        raise ValueError("it is a control vector, which is not read: name the file of a model")


def _place(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """Which part a file is, from 0 on, and of how many."""
    number, count = field(metadata, "split.no", int, 0), field(metadata, "split.count", int, 1)
    count = count or 1  # as llama.cpp takes 0
    if not 0 <= number < count:
        raise ValueError(f"its split.no is {number} and its split.count {count}, which cannot be")
    return number, count


def _part_files(path: Path, number: int, count: int) -> list[Path]:
    """The files of all parts, by the name of the first. ValueError where this is another, or is not called so."""
    match = re.fullmatch(GGUF_PART, path.name)
    stem = match[1] if match else "NAME"
    first = f"{stem}-00001-of-{count:05}.gguf"
    if number:
        raise ValueError(f"it is part {number + 1} of {count} of a model: name the first, {first}")
    if match is None or (int(match[2]), int(match[3])) != (1, count):
        raise ValueError(f"it is the first of {count} parts of a model, and its name does not say so: call it {first}")
    return [path.with_name(f"{stem}-{index + 1:05}-of-{count:05}{path.suffix}") for index in range(count)]
