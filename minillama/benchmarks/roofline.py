"""The roofline picture: how many operations a byte of weights is good for, and how many a second there are.

Left of the ridge memory sets the speed, right of it arithmetic. Only the weights are counted: 2 operations for every
number a token is multiplied by, and the bytes of all weights once a pass, however many tokens go through together.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minillama.benchmarks.measure import Figures, Measure
from minillama.benchmarks.report import Run
from minillama.benchmarks.shapes import matrix_parameters
from minillama.files import write_files
from minillama.model.engine import CHUNK

MARKERS = {"minillama": "o", "llama.cpp": "^", "ik": "v", "transformers": "s"}


def point(run: Run, figures: Figures, measure: Measure) -> tuple[float, float]:
    """(operations a byte of weights, billions of operations a second) of one measure."""
    layers, head = matrix_parameters(run.config)
    rate = statistics.median(figures.tokens_per_s[measure.name])
    if measure.do == "prefill":  # the head scores the last token only; long prompts go through in chunks
        tokens, together = measure.tokens, min(measure.tokens, CHUNK)
        operations = 2 * (layers + head / tokens)
    else:
        together, operations = measure.arguments["rows"], 2 * (layers + head)
    return operations * together / figures.bytes_a_token, operations * rate / 1e9


def draw(run: Run, file: Path) -> None:
    """Write the picture as a file of the type its name says."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(picture)
    ax: Any = picture.subplots()
    memory, matmul = statistics.median(run.memory_gb_s), statistics.median(run.matmul_gflop_s)
    drawn = [(group, each, *shown) for group, each, shown in points(run)]
    xs, ys = [x for *_, x, _ in drawn], [y for *_, y in drawn]
    left, right = min(xs) / 2, max(xs) * 4
    top, bottom = max([*ys, matmul]) * 3, min(ys) / 2.5
    ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))

    ends = (left, top / memory)
    ax.plot(ends, [memory * x for x in ends], color="0.3", label=f"memory, {memory:.3g} GB/s")
    ax.plot((matmul / memory, right), (matmul, matmul), "--", color="0.3",
            label=f"NumPy float32 product, {matmul:.3g} GFLOP/s")  # fmt: skip
    for group, figures, measure, x, y in drawn:
        ax.plot(x, y, MARKERS[figures.name], color=f"C{group}", markersize=8, markeredgecolor="white", zorder=3)
        if figures is run.figures[group][0]:  # the peers' lie above or below
            ax.annotate(measure.name, (x, y), (7, -11), textcoords="offset points", fontsize=8, color=f"C{group}")
    for group, several in enumerate(run.figures):
        for each in several:
            ax.plot([], [], MARKERS[each.name], color=f"C{group}", label=f"{each.name}, {each.format}")
    ax.set_xlabel("operations a byte of weights")
    ax.set_ylabel("billions of operations a second")
    ax.set_title(f"{run.model}, {run.threads} threads")
    ax.grid(which="major", alpha=0.3)
    picture.legend(loc="outside right upper", fontsize=9)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    contents = io.BytesIO()
    picture.savefig(contents, format=file.suffix[1:], dpi=150)
    write_files({file: contents.getvalue()})


def points(run: Run) -> Iterator[Any]:
    """(number of the format, figures, (measure, x, y)): decoding at the least depth, the batch, the longest prompt."""
    prompts = [measure for measure in run.plan if measure.do == "prefill"]
    decoding = [measure for measure in run.plan if measure.name == run.first_decode]
    batch = [measure for measure in run.plan if measure.name.startswith("batch")]
    for number, group in enumerate(run.figures):
        for figures in group:
            for measure in (*decoding, *batch, prompts[-1]):
                yield number, figures, (measure, *point(run, figures, measure))
