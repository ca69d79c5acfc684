"""A trace: the intermediates of one run of a model, by name, with what is needed to compute them again.

The file is a safetensors file, one tensor an intermediate under its name (minillama/debug/names.py). Its metadata:

    minillama.trace   the version of this format, "1"
    input_ids         JSON: the ids (B, T) of each call
    config            JSON: the model's config, as in config.json
    weights           where the weights were read from
    names             JSON: the patterns of what was chosen to be kept
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.files import write_files
from minillama.weights.filling import Filling
from minillama.weights.formats import STORAGE

VERSION, STAMP = "1", "minillama.trace"
EVERYTHING = ("*",)
DTYPES = {np.dtype(np.float32): "F32", np.dtype(np.float64): "F64"}


@dataclass
class Trace:
    """What was recorded. tensors: name -> array. input_ids: (B, T) of every call, recorded or not, the first being
    step 0. config, weights: of the model, where they are known."""

    tensors: Mapping[str, Array]
    input_ids: list[Array] = field(default_factory=list)
    config: LlamaConfig | None = None
    weights: str | None = None
    names: Sequence[str] = EVERYTHING
    source: str = "the trace"  # what messages call it

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __len__(self) -> int:
        return len(self.tensors)

    def past(self, step: int) -> int:
        """How many tokens stood before those of a call."""
        return sum(ids.shape[1] for ids in self.input_ids[:step])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as a file, whole or not at all. OSError that names it."""
        kinds = {array.dtype for array in self.tensors.values()}
        form = "F32" if kinds <= {np.dtype(np.float32), np.dtype(np.float16)} else "F64"
        shapes = {name: array.shape for name, array in self.tensors.items()}

        def write(out: BinaryIO) -> None:
            filling = Filling(out, shapes, form, self.metadata())
            for name, array in self.tensors.items():
                filling.put(name, array)

        write_files({Path(path): write}, synced=False)

    def metadata(self, width: int = 0) -> dict[str, str]:
        """What the file says beside its tensors. width: characters to fill the ids up to with blanks."""
        notes = {STAMP: VERSION, "names": json.dumps(list(self.names))}
        notes["input_ids"] = json.dumps([ids.tolist() for ids in self.input_ids]).ljust(width)
        if self.config is not None:
            notes["config"] = json.dumps(self.config.to_dict())
        if self.weights is not None:
            notes["weights"] = self.weights
        return notes


def read_metadata(metadata: Mapping[str, str], tensors: Mapping[str, Array], source: str) -> Trace:
    """A trace of tensors and what their file says beside. ValueError for what no trace says."""
    if metadata.get(STAMP, VERSION) != VERSION:
        raise ValueError(
            f"{source} is a trace of format {metadata[STAMP]}, and this version reads {VERSION}: update it"
        )
    try:
        ids = [np.array(of_call, dtype=np.int64) for of_call in json.loads(metadata.get("input_ids", "[]"))]
        names = tuple(json.loads(metadata.get("names", "null")) or EVERYTHING)
        settings = json.loads(metadata.get("config", "null"))
        if any(of_call.ndim != 2 for of_call in ids):
            raise ValueError("input_ids are not rows of ids")
        if not isinstance(settings, dict | None):
            raise ValueError("config is no JSON object")
        config = None if settings is None else LlamaConfig.from_dict(settings)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{source}: its metadata are not those of a trace: {error}; record it anew") from None
    return Trace(tensors, ids, config, metadata.get("weights"), names, source)


def as_text(ids: Array) -> str:
    """Ids as a message has them, cut short."""
    text = str(ids.tolist())
    return text if len(text) < 60 else text[:60] + "..."


def itemsize(form: str) -> int:
    """Bytes of a number of F32 or F64."""
    return int(STORAGE[form].itemsize)
