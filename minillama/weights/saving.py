"""Writing checkpoints in the way of Hugging Face: one safetensors file, or several with an index."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minillama.layout import QUANTIZED
from minillama.weights.formats import STORAGE
from minillama.weights.quantized import spelled_out
from minillama.weights.safetensors import Tensor, nbytes

DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # as config.json has them
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def weight_files(
    folder: Path, tensors: Mapping[str, Tensor], max_shard_size: int | str, metadata: Mapping[str, str] | None = None
) -> dict[Path, bytes | Callable[[BinaryIO], None]]:
    """The files that hold `tensors`, each with its bytes or a function that writes them, for write_files.

    Tensors go into shards in their order; one that is larger than a whole shard gets its own. Each is written in the
    format it is stored in, quantized ones as spelled_out says. metadata: for the header of every file.
    """
    tensors = spelled_out(tensors)
    limit = parse_size(max_shard_size)
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(map(nbytes, shards[-1].values())) + nbytes(tensor) > limit:
            shards.append({})
        shards[-1][name] = tensor
    if len(shards) == 1:
        return {folder / SINGLE: partial(write_safetensors, shards[0], metadata=metadata)}
    files: dict[Path, bytes | Callable[[BinaryIO], None]] = {}
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        files[folder / file] = partial(write_safetensors, shard, metadata=metadata)
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": sum(map(nbytes, tensors.values()))}, "weight_map": weight_map}
    files[folder / INDEX] = (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()
    return files


def other_weight_files(folder: Path, written: Mapping[Path, object]) -> list[Path]:
    """Files of an earlier checkpoint in the folder, which would be read instead of those written or beside them."""
    name = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
    return [file for file in folder.glob("model*") if name.fullmatch(file.name) and file not in written]


def write_safetensors(tensors: Mapping[str, Tensor], out: BinaryIO, metadata: Mapping[str, str] | None = None) -> None:
    """The safetensors format, a tensor at a time. Quantized numbers, whose sizes are multiples of 64 bytes, come first,
    and then those with the largest numbers, so that all are aligned."""
    order = sorted(tensors, key=lambda name: (name.rpartition(".")[2] not in QUANTIZED, -nbytes_of_one(tensors[name])))
    header: dict[str, object] = {"__metadata__": {"format": "pt"} | dict(metadata or {})}  # transformers wants it so
    end = 0
    for name in order:
        start, end = end, end + nbytes(tensors[name])
        header[name] = {
            "dtype": tensors[name].dtype,
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)  # tiles of quantized numbers then begin where a cache line does
    out.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        out.write(np.ascontiguousarray(tensors[name].stored(), STORAGE[tensors[name].dtype]).data)


def nbytes_of_one(tensor: Tensor) -> int:
    """Bytes of one number."""
    return int(STORAGE[tensor.dtype].itemsize)


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
    if match is None or unit not in _UNITS or float(match[1]) * _UNITS[unit] < 1:
        raise ValueError(f"max_shard_size must be a number of bytes or a text such as '5GB', not {size!r}")
    return int(float(match[1]) * _UNITS[unit])
