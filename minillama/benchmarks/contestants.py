"""Who is timed: minillama's own engines, and the peers, all driven through the same five methods."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import minillama
from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM


class Contestant(Protocol):
    """A model with a cache. Its methods return the seconds that the model itself took."""

    version: str
    format: str  # what its weights are stored in while it runs, one of minillama.layout.BITS

    def start(self, rows: int, room: int) -> None:
        """Forget all tokens; so many sequences follow, of at most `room` tokens each."""

    def prefill(self, ids: Array) -> float:
        """Append ids (B, T) to the sequences and compute the logits after the last of each."""
        ...

    def decode(self, ids: Array) -> float:
        """Append one id (B,) to each and compute the logits after it."""
        ...

    def cut(self, length: int) -> None:
        """Forget all but the first `length` tokens of each."""

    def logits(self) -> Array:
        """(B, V): what the last prefill or decode computed."""
        ...


class Minillama:
    """This project's model, on one of its engines."""

    def __init__(self, path: str, dtype: str, engine: str, threads: int):
        model = LlamaForCausalLM.from_pretrained(path, engine=engine, dtype=dtype, threads=threads)
        self.engine = model.new_engine()
        self.version = f"{minillama.__version__}, {type(self.engine).__name__}"
        self.format = model.form

    def start(self, rows: int, room: int) -> None:
        self.engine.reset()

    def prefill(self, ids: Array) -> float:
        rows = ids.tolist()
        begin = time.perf_counter()
        self._logits = self.engine.prefill(rows)
        return time.perf_counter() - begin

    def decode(self, ids: Array) -> float:
        begin = time.perf_counter()
        self._logits = self.engine.decode(ids)
        return time.perf_counter() - begin

    def cut(self, length: int) -> None:
        self.engine.cut(length)

    def logits(self) -> Array:
        return self._logits


OURS = "minillama"
GGUF_PEERS = ("llama.cpp", "ik")
PEERS = {
    "llama.cpp": ("minillama.benchmarks.llama_cpp_peer", "LlamaCpp", "peers"),
    "ik": ("minillama.benchmarks.ik_peer", "IkLlamaCpp", "ik"),
    "transformers": ("minillama.benchmarks.transformers_peer", "Transformers", "oracle"),
}


# The packages that an extra has, as they are imported and as they are installed
NEEDED = {
    "peers": {"gguf": "gguf", "llama_cpp": "llama-cpp-python"},
    "ik": {"gguf": "gguf", "ik_llama_cpp": "ik-llama-cpp-python"},
    "oracle": {"torch": "torch", "transformers": "transformers"},
}


def contestant(name: str, path: str | os.PathLike[str], dtype: str, engine: str, threads: int) -> Contestant:
    """Open the model at `path` with minillama or a peer. ValueError if its package is not installed."""
    if name == OURS:
        return Minillama(str(path), dtype, engine, threads)
    module, cls, extra = PEERS[name]
    with_extra(extra, name)
    make: Callable[[Path, str, int], Any] = getattr(import_module(module), cls)
    return make(Path(path), dtype, threads)


def with_extra(extra: str, what: str) -> None:
    """ValueError that says how to install what `what` needs, if it is not there."""
    needed = NEEDED[extra]
    try:
        for name in needed:
            import_module(name)
    except ImportError as error:
        raise ValueError(f"{what} cannot be used ({error}): run `pip install {' '.join(needed.values())}`") from None
