"""The same weights for llama.cpp, in a folder to work in."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from minillama.weights.checkpoint import open_checkpoint
from minillama.weights.finding import find_weights
from minillama.weights.gguf_formats import FORMATS
from minillama.weights.gguf_writing import write_gguf

__all__ = ["FORMATS", "gguf_file"]


def gguf_file(path: str | os.PathLike[str], format: str, work: Path) -> Path:
    """The GGUF file in `work` of the checkpoint at `path` in a format of FORMATS; it is written if it is not there."""
    weights = find_weights(path).resolve()
    stat = weights.stat()
    name = weights.parent.name if weights.name.startswith("model") else weights.name.split(".")[0]
    version = zlib.crc32(f"{weights} {stat.st_size} {stat.st_mtime_ns}".encode())  # of another file or time: no reuse
    file = work / f"{name}-{version:08x}-{FORMATS[format].lower()}.gguf"
    if not file.exists():
        write_gguf(open_checkpoint(path), FORMATS[format], file)
    return file
