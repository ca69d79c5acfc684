"""Writing checkpoints in the way of Hugging Face: one safetensors file, or several with an index."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, TypeAlias

from minillama.layout import PACKED
from minillama.messages import shown
from minillama.weights.formats import STORAGE
from minillama.weights.quantized import PackedLater, Part, empty_provenance, parts, provenance, spelled_out
from minillama.weights.safetensors import Tensor, nbytes
from minillama.weights.streaming import pieces

DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # as config.json has them
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
Progress: TypeAlias = Callable[[int], object]
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def unwatched(written: int) -> None:
    """The progress that nobody looks at."""


def weight_files(
    folder: Path, tensors: Mapping[str, Tensor], max_shard_size: int | str, progress: Progress = unwatched
) -> dict[Path, bytes | Callable[[BinaryIO], None]]:
    """The files that hold `tensors`, each with its bytes or a function that writes them, for write_files.

    Tensors go into shards in their order; one that is larger than a whole shard gets its own. Each is written in the
    format it is stored in, quantized ones as two. progress is told the bytes that have been written.
    """
    limit = parse_size(max_shard_size)
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = written_bytes({name: tensor})
        if shards[-1] and filled + size > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    if len(shards) == 1:
        return {folder / SINGLE: partial(write_safetensors, shards[0], progress=progress)}
    files: dict[Path, bytes | Callable[[BinaryIO], None]] = {}
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        files[folder / file] = partial(write_safetensors, shard, progress=progress)
        weight_map |= {part: file for name, tensor in shard.items() for part in parts(name, tensor)}
    index = {"metadata": {"total_size": written_bytes(tensors)}, "weight_map": weight_map}
    files[folder / INDEX] = (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()
    return files


def written_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors in a file, its header aside."""
    return sum(part.nbytes for name, tensor in tensors.items() for part in parts(name, tensor).values())


def other_weight_files(folder: Path, written: Mapping[Path, object]) -> list[Path]:
    """Files of an earlier checkpoint in the folder, which would be read instead of those written or beside them."""
    name = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
    return [file for file in folder.glob("model*") if name.fullmatch(file.name) and file not in written]


def write_safetensors(tensors: Mapping[str, Tensor], out: BinaryIO, progress: Progress = unwatched) -> None:
    """The safetensors format, a few megabytes at a time. Quantized numbers, whose sizes are multiples of 64 bytes, come
    first, and then tensors with the largest numbers, so that all are aligned."""
    spelled = {part: what for name, tensor in tensors.items() for part, what in parts(name, tensor).items()}
    order = sorted(spelled, key=lambda part: (part.rpartition(".")[2] not in PACKED, -_width(spelled[part])))
    ends = list(accumulate((spelled[part].nbytes for part in order), initial=0))
    spans = {part: (start, end) for part, start, end in zip(order, ends, ends[1:], strict=False)}
    notes = empty_provenance(tensors)
    begin = write_header(out, spelled, spans, notes)
    for name in sorted(tensors, key=lambda name: spans[next(iter(parts(name, tensors[name])))]):
        tensor = tensors[name]
        if isinstance(tensor, PackedLater):
            tensor = tensor.made()
        notes |= provenance({name: tensor})
        for part, numbers in spelled_out({name: tensor}).items():
            out.seek(begin + spans[part][0])
            for piece in pieces(numbers):
                out.write(piece.data)
                progress(piece.nbytes)
    if notes:  # which are known only now
        out.seek(0)
        write_header(out, spelled, spans, notes)


def write_header(
    out: BinaryIO, spelled: Mapping[str, Part], spans: Mapping[str, tuple[int, int]], notes: Mapping[str, str]
) -> int:
    """Write the header; where the data begins."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"} | dict(notes)}  # transformers wants the format
    for part, span in spans.items():
        header[part] = {"dtype": spelled[part].dtype, "shape": spelled[part].shape, "data_offsets": span}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)  # tiles of quantized numbers then begin where a cache line does
    out.write(len(text).to_bytes(8, "little") + text)
    return 8 + len(text)


def _width(part: Part) -> int:
    """Bytes of one number."""
    return int(STORAGE[part.dtype].itemsize)


def main_dtype(tensors: Mapping[str, Tensor]) -> str:
    """The format that most of the numbers are stored in, by the name it has in config.json."""
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype in DTYPE_NAMES:  # quantized numbers have no name there
            counts[tensor.dtype] += nbytes(tensor)
    return DTYPE_NAMES[counts.most_common(1)[0][0]]


def parse_size(size: int | str) -> int:
    """Bytes from a number or a text such as "5GB" or "200MiB"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?I?B?)\s*", str(size).upper())
    unit = match[2] if match else None
    if match is None or unit not in _UNITS or not 1 <= float(match[1]) * _UNITS[unit] < 1e18:
        raise ValueError(f"max_shard_size must be a number of bytes or a text such as '5GB', not {shown(size)}")
    return int(float(match[1]) * _UNITS[unit])
