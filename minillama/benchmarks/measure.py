"""Asking the contestants in turn, A B A B ..., and what their figures come to."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from minillama.benchmarks.worker import TOKENS, WARM
from minillama.layout import BITS
from minillama.messages import shown

STARTS, LONG = 3, 15.0  # at most so often is a model opened to see how long it takes; once if it is so many seconds
PAUSE = 0.1  # seconds between two contestants: threads that have no work spin for a while before they sleep
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}


# Kernels compiled for less than this CPU has. A peer is a finished build, which this does not change
CPUS = {
    "host": {},
    "avx2": {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse4.2,+ssse3",
    },
}


class Child:
    """A worker process, as a context. cpu: of CPUS, for our kernels."""

    def __init__(self, name: str, threads: int, cpu: str = "host"):
        self.name = name
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | QUIET | CPUS[cpu]
        line = [sys.executable, "-m", "minillama.benchmarks.worker"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        self.process = subprocess.Popen(line, env=environment, **pipes)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a command; ValueError with what went wrong there."""
        try:
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()  # type: ignore[union-attr]
        except BrokenPipeError:
            line = ""
        if not line:
            status = self.process.wait()
            raise ValueError(
                f"the process of {self.name} ended in the middle of {shown(do)} (status {status}): "
                "what it said last is above; if that is nothing, memory may be short"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class Measure:
    """One thing that is timed: a command to a worker, and the tokens it is worth."""

    name: str  # "prefill 512", "decode at 1024", "batch of 8"
    do: str
    arguments: dict[str, int]
    tokens: int


def measures(prefill: Sequence[int], depths: Sequence[int], batch: int) -> list[Measure]:
    """In an order in which a deeper cache goes on where the one before ends."""
    room = max([*prefill, *(room_for(depth) for depth in depths)])
    one = {"rows": 1, "room": room}
    found = [Measure(f"prefill {n}", "prefill", {"tokens": n, "room": room}, n) for n in sorted(set(prefill))]
    for depth in sorted(set(depths)):
        found.append(Measure(f"decode at {depth}", "decode", {"depth": depth, **one}, TOKENS))
    if batch:
        many = {"depth": 0, "rows": batch, "room": room_for(0)}
        found.append(Measure(f"batch of {batch}", "decode", many, TOKENS * batch))
    return found


def room_for(depth: int) -> int:
    """The tokens of a sequence that is decoded at a depth."""
    return max(depth, 1) + WARM + TOKENS


@dataclass
class Figures:
    """What was measured of one contestant with one number format."""

    name: str
    dtype: str  # what was asked for
    matrices: int  # numbers in the matrices that a token is multiplied by
    format: str = ""  # what these are stored in while it runs
    version: str = ""
    open_s: list[float] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    tokens_per_s: dict[str, list[float]] = field(default_factory=dict)  # a figure for each repeat
    memory: dict[str, int | None] = field(default_factory=dict)

    @property
    def bytes_a_token(self) -> float:
        """Of weights that decoding one sequence reads."""
        return self.matrices * BITS[self.format] / 8

    def bandwidth(self, measure: str) -> float:
        """GB/s of weights that were read while one sequence was decoded."""
        return statistics.median(self.tokens_per_s[measure]) * self.bytes_a_token / 1e9


def compare(
    contestants: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Figures],
    plan: Sequence[Measure],
    repeats: int,
    threads: int,
    step: Callable[[str], object],
    cpu: str = "host",
) -> None:
    """Measure all contestants side by side, into their figures. contestants: for each what its worker opens. cpu: of
    CPUS."""
    prompt = min(measure.arguments["tokens"] for measure in plan if measure.do == "prefill")
    room = max(measure.arguments["room"] for measure in plan)
    with ExitStack() as stack:
        children: dict[str, Child] = {}
        for name, what in contestants.items():
            opening = {"name": name, "threads": threads, "prompt": prompt, "room": room, **what}
            for start in range(min(repeats, STARTS), 0, -1):
                step(f"{name}: opening")
                with ExitStack() as closing:
                    child = closing.enter_context(Child(name, threads, cpu))
                    answer = child.ask("open", **opening)
                    figures[name].version, figures[name].format = answer["version"], answer["format"]
                    figures[name].open_s.append(answer["open_s"])
                    figures[name].first_token_s.append(answer["first_token_s"])
                    if start == 1 or answer["open_s"] > LONG:  # this one is measured, the others are closed
                        children[name] = child
                        stack.enter_context(closing.pop_all())
                        break
        for measure in plan:
            for repeat in range(repeats + 1):
                for name, child in children.items():
                    step(f"{name}: {measure.name}")
                    time.sleep(PAUSE)
                    seconds = child.ask(measure.do, **measure.arguments)["seconds"]
                    if repeat:  # the first was to warm up
                        figures[name].tokens_per_s.setdefault(measure.name, []).append(measure.tokens / seconds)
            for name, child in children.items():
                figures[name].memory = most(figures[name].memory, child.ask("memory"))


def steps(contestants: int, plan: Sequence[Measure], repeats: int) -> int:
    """How often compare calls step."""
    return contestants * (min(repeats, STARTS) + len(plan) * (repeats + 1))


def most(before: Mapping[str, int | None], now: Mapping[str, int | None]) -> dict[str, int | None]:
    """The larger of two measurements of memory."""
    return {name: size if size is None else max(size, before.get(name) or 0) for name, size in now.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """The ratio of the medians, and the least and largest of the ratios of figures taken one after the other."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"ratio": statistics.median(ours) / statistics.median(theirs), "min": min(pairs), "max": max(pairs)}


def write_gguf(peer: str, path: Path, format: str, work: Path, threads: int) -> Path:
    """The weights for a peer that reads GGUF, written by a process of its own: converting takes memory."""
    with Child("gguf", threads) as child:
        return Path(child.ask("gguf", peer=peer, path=str(path), format=format, work=str(work))["file"])
