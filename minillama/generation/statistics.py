"""How fast generation went, and how much memory it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
import psutil

from minillama.arrays import Array
from minillama.generation.engine import Engine

STATS = (
    "prompt: {prompt_tokens} tokens, {prompt_tokens_per_s:.1f} tokens/s; "
    "decode: {decode_tokens} tokens, {decode_tokens_per_s:.1f} tokens/s; "
    "first token after {first_token_s:.2f} s, loading included; peak memory {peak_memory_mb:.0f} MB"
)


class TimedEngine:
    """An engine that is timed as it is driven. begin: when the command began, by time.perf_counter()."""

    def __init__(self, engine: Engine, begin: float):
        self.engine, self.begin = engine, begin
        self.vocab_size, self.context_length = engine.vocab_size, engine.context_length
        self.reset, self.keep, self.cut = engine.reset, engine.keep, engine.cut
        self.prompt_tokens = self.decode_tokens = 0
        self.prompt_s = self.decode_s = self.first_token_s = 0.0

    def prefill(self, rows: Sequence[Sequence[int]]) -> Array:
        begin = time.perf_counter()
        logits = self.engine.prefill(rows)
        end = time.perf_counter()
        self.prompt_s, self.first_token_s = self.prompt_s + end - begin, end - self.begin
        self.prompt_tokens += sum(map(len, rows))
        return logits

    def decode(self, ids: Array) -> Array:
        begin = time.perf_counter()
        logits = self.engine.decode(np.asarray(ids))
        self.decode_s += time.perf_counter() - begin
        self.decode_tokens += len(ids)
        return logits

    def statistics(self) -> dict[str, float]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "prompt_tokens_per_s": self.prompt_tokens / self.prompt_s if self.prompt_s else 0.0,
            "decode_tokens": self.decode_tokens,
            "decode_tokens_per_s": self.decode_tokens / self.decode_s if self.decode_s else 0.0,
            "first_token_s": self.first_token_s,
            "peak_memory_mb": peak_memory() / 1e6,
        }


def peak_memory() -> int:
    """The most bytes of physical memory this process has held, mapped files included."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
