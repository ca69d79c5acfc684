"""llama.cpp through the low-level interface of llama-cpp-python: only llama_decode is timed."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np

from minillama.arrays import Array

BATCH = 512  # tokens computed at once, llama.cpp's own default
CELLS = 256  # its caches have a multiple of so many


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _no_log(level: int, text: bytes, data: Any) -> None:
    """llama.cpp tells a page about every model."""


class LlamaCpp:
    """A GGUF file on the CPU; its settings are the defaults."""

    def __init__(self, path: Path, dtype: str, threads: int):
        lib.llama_log_set(_no_log, ctypes.c_void_p(0))
        lib.llama_backend_init()
        settings = lib.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(str(path).encode(), settings)
        if not self.model:
            raise ValueError(f"llama.cpp cannot load {path}: delete it, and it is written anew")
        self.vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.version, self.format = f"llama-cpp-python {lib.__version__}", path.stem.rsplit("-", 1)[1]
        self.threads, self.sizes = threads, (0, 0)
        self.context: Any = None
        self.batch: Any = None

    def start(self, rows: int, room: int) -> None:
        if self.sizes != (rows, room):
            self._new_context(rows, room)
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        self.length = 0

    def _new_context(self, rows: int, room: int) -> None:
        if self.context:
            lib.llama_batch_free(self.batch)
            lib.llama_free(self.context)
        settings = lib.llama_context_default_params()
        settings.n_ctx = rows * -(-room // CELLS) * CELLS
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_threads = settings.n_threads_batch = self.threads
        settings.n_seq_max = rows
        self.context = lib.llama_init_from_model(self.model, settings)
        if not self.context:
            raise MemoryError(f"llama.cpp cannot make a cache of {rows} x {room} tokens: ask for less depth or batch")
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
        begin = time.perf_counter()
        status = lib.llama_decode(self.context, batch)
        lib.llama_synchronize(self.context)
        seconds = time.perf_counter() - begin
        if status:
            raise ValueError(f"llama.cpp cannot go on (llama_decode returned {status}): ask for less depth or batch")
        self.length += T
        self.outputs = [row * T + T - 1 for row in range(rows)]
        return seconds

    def cut(self, length: int) -> None:
        lib.llama_memory_seq_rm(lib.llama_get_memory(self.context), -1, length, -1)
        self.length = length

    def logits(self) -> Array:
        pointers = (lib.llama_get_logits_ith(self.context, i) for i in self.outputs)
        return np.array([np.ctypeslib.as_array(p, (self.vocab_size,)) for p in pointers])
