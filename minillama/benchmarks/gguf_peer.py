"""llama.cpp and its relatives, through the C functions that they share: only llama_decode is timed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from minillama.arrays import Array

BATCH = 512  # tokens computed at once, llama.cpp's own default
CELLS = 256  # its caches have a multiple of so many


def uses(told: bytes | None) -> str:
    """The instructions that a build says it uses, from its line of "NAME = 1" and "NAME = 0"."""
    pairs = (part.rpartition(":")[2].split("=") for part in (told or b"").decode().split("|"))
    return " ".join(pair[0].strip() for pair in pairs if len(pair) == 2 and pair[1].strip() == "1")


class GGUFPeer:
    """A GGUF file on the CPU. A subclass names the library, and does what the libraries do differently."""

    name: str
    lib: Any

    def __init__(self, path: Path, dtype: str, threads: int):
        lib = self.lib
        self._be_quiet()
        lib.llama_backend_init()
        settings = lib.llama_model_default_params()
        self._set_up(settings)
        self.model = lib.llama_model_load_from_file(str(path).encode(), settings)
        if not self.model:
            raise ValueError(f"{self.name} cannot load {path}: delete it, and it is written anew")
        self.vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.version, self.format = self._version(), dtype
        self.threads, self.sizes = threads, (0, 0)
        self.context: Any = None
        self.batch: Any = None

    def _be_quiet(self) -> None:
        """Keep the library from telling a page about every model."""
        raise NotImplementedError

    def _set_up(self, settings: Any) -> None:
        """Change a model's settings from the defaults."""
        settings.n_gpu_layers = 0

    def _set_up_cache(self, settings: Any, rows: int) -> None:
        """Change a context's settings from the defaults."""

    def _version(self) -> str:
        raise NotImplementedError

    def _forget(self) -> None:
        """Empty the cache."""
        raise NotImplementedError

    def _forget_from(self, length: int) -> None:
        """Cut every sequence of the cache."""
        raise NotImplementedError

    def start(self, rows: int, room: int) -> None:
        if self.sizes != (rows, room):
            self._new_context(rows, room)
        self._forget()
        self.length = 0

    def _new_context(self, rows: int, room: int) -> None:
        lib = self.lib
        if self.context:
            lib.llama_batch_free(self.batch)
            lib.llama_free(self.context)
        settings = lib.llama_context_default_params()
        settings.n_ctx = rows * -(-room // CELLS) * CELLS
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_threads = settings.n_threads_batch = self.threads
        settings.n_seq_max = rows
        self._set_up_cache(settings, rows)
        self.context = lib.llama_init_from_model(self.model, settings)
        if not self.context:
            raise MemoryError(f"{self.name} cannot make a cache of {rows} x {room} tokens: ask for less depth or batch")
        self.batch = lib.llama_batch_init(BATCH, 0, 1)
        self.sizes = rows, room

    def prefill(self, ids: Array) -> float:
        rows, T = ids.shape
        each = max(1, BATCH // rows)  # tokens of every sequence that go in together
        return sum(self._append(ids[:, t : t + each], last=t + each >= T) for t in range(0, T, each))

    def decode(self, ids: Array) -> float:
        return self._append(ids[:, None], last=True)

    def _append(self, ids: Array, last: bool) -> float:
        rows, T = ids.shape
        batch = self.batch
        batch.n_tokens = rows * T
        for i, (row, t) in enumerate(np.ndindex(rows, T)):
            batch.token[i] = int(ids[row, t])
            batch.pos[i] = self.length + t
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = row
            batch.logits[i] = last and t == T - 1
        decode, wait = self.lib.llama_decode, self.lib.llama_synchronize
        begin = time.perf_counter()
        status = decode(self.context, batch)
        wait(self.context)
        seconds = time.perf_counter() - begin
        if status:
            raise ValueError(f"{self.name} cannot go on (llama_decode returned {status}): ask for less depth or batch")
        self.length += T
        self.outputs = [row * T + T - 1 for row in range(rows)]
        return seconds

    def cut(self, length: int) -> None:
        self._forget_from(length)
        self.length = length

    def logits(self) -> Array:
        pointers = (self.lib.llama_get_logits_ith(self.context, i) for i in self.outputs)
        return np.array([np.ctypeslib.as_array(p, (self.vocab_size,)) for p in pointers])
