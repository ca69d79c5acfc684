"""The figures as a table to read, and as one object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import minillama
from minillama.benchmarks.contestants import OURS
from minillama.benchmarks.measure import Figures, Measure, ratio, spread
from minillama.benchmarks.shapes import matrix_parameters
from minillama.config import LlamaConfig


@dataclass
class Run:
    """All that one command measured."""

    model: str
    cpu: str  # what our kernels are compiled for: of measure.CPUS
    config: LlamaConfig
    parameters: int
    threads: int
    repeats: int
    plan: list[Measure]
    memory_gb_s: list[float]  # of the probe
    handover_ns: list[float]  # between two cores; empty for one
    matmul_gflop_s: list[float]
    figures: list[list[Figures]]  # for each number format, ours first

    @property
    def first_decode(self) -> str | None:
        """The measure at the least depth: its tokens take little more than the weights."""
        return next((measure.name for measure in self.plan if measure.name.startswith("decode")), None)


def as_object(run: Run) -> dict[str, Any]:
    """What --json prints. Everything measured several times is {"median", "min", "max"}."""
    results, ratios = [], []
    for group in run.figures:
        for each in group:
            results.append(
                {
                    "name": each.name,
                    "dtype": each.dtype,
                    "format": each.format,
                    "version": each.version,
                    "bytes_a_token": each.bytes_a_token,
                    "tokens_per_s": {name: spread(values) for name, values in each.tokens_per_s.items()},
                    "weights_gb_s": each.bandwidth(run.first_decode) if run.first_decode else None,
                    "open_s": spread(each.open_s),
                    "first_token_s": spread(each.first_token_s),
                    "peak_resident_bytes": each.memory["resident"],
                    "peak_anonymous_bytes": each.memory["anonymous"],
                }
            )
        for ours, theirs in pairs(group):
            found = {name: ratio(ours.tokens_per_s[name], theirs.tokens_per_s[name]) for name in ours.tokens_per_s}
            ratios.append({"dtype": ours.dtype, "peer": theirs.name, "ours_over_theirs": found})
    layers, head = matrix_parameters(run.config)
    return {
        "minillama": minillama.__version__,
        "model": run.model,
        "cpu": run.cpu,
        "parameters": run.parameters,
        "operations_a_token": 2 * (layers + head),
        "threads": run.threads,
        "repeats": run.repeats,
        "memory_gb_s": spread(run.memory_gb_s),
        "handover_ns": spread(run.handover_ns) if run.handover_ns else None,
        "matmul_gflop_s": spread(run.matmul_gflop_s),
        "results": results,
        "ratios": ratios,
    }


def pairs(group: Sequence[Figures]) -> list[tuple[Figures, Figures]]:
    """Ours with each peer."""
    return [(group[0], peer) for peer in group[1:]] if group[0].name == OURS else []


def heading(run: Run) -> Iterator[str]:
    """What is printed first, without --json."""
    config = run.config
    yield (
        f"{run.model}: {run.parameters / 1e9:.3g} billion parameters, {config.num_hidden_layers} layers, "
        f"context {config.context_length}; {run.threads} threads, {run.repeats} repeat{'' if run.repeats == 1 else 's'}"
        + ("" if run.cpu == "host" else f"; kernels of minillama for {run.cpu}, peers as they were built")
    )
    yield "median (least-most); prefill, decode and batch in tokens/s, a ratio above 1 where minillama is faster"


def ceilings(run: Run) -> Iterator[str]:
    """What is printed last, when the probe has run its last time."""
    yield (
        f"this machine reads memory at {shown(spread(run.memory_gb_s))} GB/s and multiplies float32 matrices in NumPy "
        f"at {shown(spread(run.matmul_gflop_s))} GFLOP/s"
    )
    if run.handover_ns:
        yield f"a core sees what another has written after {shown(spread(run.handover_ns))} ns"


def table(run: Run, group: Iterable[Figures]) -> Iterator[str]:
    """What is printed for one number format."""
    figures = list(group)
    yield ""
    yield from aligned(rows(run, figures))
    for each in figures:
        yield f"{each.name} {each.version}, weights in {each.format}"


def rows(run: Run, group: Sequence[Figures]) -> Iterator[list[str]]:
    """The rows for one number format."""
    compared = pairs(group)
    yield [group[0].dtype, *(each.name for each in group), *(f"ours / {peer.name}" for _, peer in compared)]
    for name in group[0].tokens_per_s:
        cells = [shown(spread(each.tokens_per_s[name])) for each in group]
        ratios = [ratio(ours.tokens_per_s[name], theirs.tokens_per_s[name]) for ours, theirs in compared]
        yield [name, *cells, *(f"{r['ratio']:.2f} ({r['min']:.2f}-{r['max']:.2f})" for r in ratios)]
    yield ["weights a token, MB", *(f"{each.bytes_a_token / 1e6:.4g}" for each in group)]
    if run.first_decode:
        probe = spread(run.memory_gb_s)["median"]
        rates = [each.bandwidth(run.first_decode) for each in group]
        yield ["weights read, GB/s", *(f"{rate:.3g}, {rate / probe:.0%} of the probe" for rate in rates)]
    yield ["opened after, s", *(shown(spread(each.open_s)) for each in group)]
    yield ["first token after, s", *(shown(spread(each.first_token_s)) for each in group)]
    for kind in ("resident", "anonymous"):
        sizes = [each.memory[kind] for each in group]
        yield [f"{kind} memory, MB", *("" if size is None else f"{size / 1e6:.0f}" for size in sizes)]


def shown(spread: Mapping[str, float]) -> str:
    """Three digits of each."""
    low, middle, high = (f"{spread[key]:.3g}" if spread[key] < 1000 else f"{spread[key]:.0f}" for key in KEYS)
    return f"{middle} ({low}-{high})"


KEYS = ("min", "median", "max")


def aligned(table: Iterator[list[str]]) -> Iterator[str]:
    """Columns of the width of their widest cell."""
    cells = list(table)
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
