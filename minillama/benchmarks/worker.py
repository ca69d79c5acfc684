"""A process of its own for each contestant, so that memory is apart: it is asked over its standard input and answers
on its standard output, a JSON object a line."""

from __future__ import annotations

import time

BEGIN = time.perf_counter()  # opening a model includes what it imports

import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from minillama.benchmarks.contestants import PEERS, Contestant, contestant, with_extra  # noqa: E402
from minillama.generation.statistics import peak_memory  # noqa: E402

WARM, TOKENS = 16, 64  # tokens decoded before the clock starts, and on the clock


class Worker:
    """The commands, a method each."""

    model: Contestant

    def open(
        self, name: str, path: str, dtype: str, engine: str, threads: int, vocab_size: int, prompt: int, room: int
    ) -> dict[str, Any]:
        """Open the model and answer a first prompt."""
        self.vocab_size, self.rng = vocab_size, np.random.default_rng(0)
        self.rows = self.length = 0
        self.model = contestant(name, path, dtype, engine, threads)
        open_s = time.perf_counter() - BEGIN
        self.prefill(prompt, room)
        first_token_s = time.perf_counter() - BEGIN
        told = {"version": self.model.version, "format": self.model.format}
        return {"open_s": open_s, "first_token_s": first_token_s, **told}

    def prefill(self, tokens: int, room: int) -> dict[str, Any]:
        """Read a prompt of that many random ids."""
        self.model.start(1, room)
        self.rows, self.length = 1, tokens
        return {"seconds": self.model.prefill(self.random_ids(1, tokens))}

    def decode(self, depth: int, rows: int, room: int) -> dict[str, Any]:
        """Append TOKENS, one at a time, to sequences that have `depth` and WARM more."""
        depth = max(depth, 1)  # a text begins with a prompt of at least one token
        if rows != self.rows:
            self.model.start(rows, room)
            self.rows, self.length = rows, 0
        if self.length > depth:
            self.model.cut(depth)
        elif self.length < depth:
            self.model.prefill(self.random_ids(rows, depth - self.length))
        seconds = [self.model.decode(ids) for ids in self.random_ids(WARM + TOKENS, rows)]
        self.length = depth + WARM + TOKENS
        return {"seconds": sum(seconds[WARM:])}

    def memory(self) -> dict[str, Any]:
        """The most physical memory held until now, and what of it at the moment is no file's."""
        return {"resident": peak_resident(), "anonymous": anonymous()}

    def features(self) -> dict[str, Any]:
        """Whether kernels are compiled for vectors of 512 bits here."""
        from minillama.kernels.llvm import WIDE

        return {"wide": WIDE}

    def gguf(self, peer: str, path: str, format: str, work: str) -> dict[str, Any]:
        """Write the weights for a peer that reads GGUF."""
        with_extra(PEERS[peer][2], peer)
        from minillama.benchmarks.gguf_file import gguf_file

        return {"file": str(gguf_file(path, format, Path(work)))}

    def random_ids(self, *shape: int) -> Any:
        return self.rng.integers(0, self.vocab_size, shape)


def peak_resident() -> int:
    """Bytes. Linux counts what a parent held at the fork into getrusage's figure, so its own is taken there."""
    return (_kibibytes("/proc/self/status", "VmHWM:") or 0) * 1024 or peak_memory()


def anonymous() -> int | None:
    """Bytes of memory that no file stands behind; None where the system does not say."""
    kibibytes = _kibibytes("/proc/self/smaps_rollup", "Anonymous:")
    return None if kibibytes is None else kibibytes * 1024


def _kibibytes(file: str, field: str) -> int | None:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), None)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends this one
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except (ValueError, OSError, MemoryError, ImportError) as error:
            answer = {"error": str(error) or type(error).__name__}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
