"""The report of `python -m minillama.compare --html`: one page that needs nothing else, to be opened, mailed, attached.

What it says comes from files of strangers: Jinja escapes all of it, and the page's own policy lets the browser run no
script but ours, and fetch nothing.
"""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from minillama.debug import chart, pixels
from minillama.debug.comparison import Comparison, Divergence
from minillama.debug.heatmap import AXES, heat_maps
from minillama.debug.names import place, sides
from minillama.debug.traces import Trace
from minillama.files import write_files

TEMPLATES = Path(__file__).parent / "templates"
IDS = 64  # ids of a run that are shown


def write_page(result: Comparison, file: Path, version: str) -> None:
    """Write the report as a file, whole or not at all. version: of the program. OSError that names the file."""
    # The name of a file may have bytes that are no text
    write_files({file: render(result, version).encode("utf-8", errors="replace")}, synced=False)


def render(result: Comparison, version: str) -> str:
    """The page as HTML."""
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    jinja.filters |= {"number": number, "short": short, "cosine": cosine}
    script = jinja.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = jinja.get_template("report.html.jinja")
    return page.render(contents(result), version=version, script=script, digest=digest)


def contents(result: Comparison) -> dict[str, Any]:
    """What the template is filled with."""
    groups = chart.groups(result.rows)
    return {
        "result": result,
        "first": result.first,
        "axes": axes_of(result.first),
        "groups": groups,
        "off": sum(group.off for group in groups),
        "chart": chart.chart(groups, None if result.first is None else result.first.name),
        "size": chart,
        "maps": None if result.first is None else heat_maps(result, result.first),
        "legend": pixels.legend(),
        "traces": [("ours", result.a, ids_of(result.a)), ("theirs", result.b, ids_of(result.b))],
    }


def axes_of(first: Divergence | None) -> list[str]:
    """The names of the axes of what differs first; none where its shape has others."""
    where = None if first is None else place(first.name)
    if first is None or first.index is None or where is None or len(sides(where.local)) != len(first.index):
        return []
    return [AXES[letters] for letters in sides(where.local)]


def ids_of(trace: Trace) -> str:
    """The ids of the first call."""
    if not trace.input_ids:
        return ""
    ids = trace.input_ids[0].ravel().tolist()
    return ", ".join(map(str, ids[:IDS])) + (f", ... ({len(ids)})" if len(ids) > IDS else "")


def number(value: float) -> str:
    """A number in full, as in the text report."""
    return f"{value:.9g}" if math.isfinite(value) else short(value)


def short(value: float) -> str:
    """The size of an error: three digits."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "-\N{INFINITY}"
    return f"{float(f'{value:.3g}'):,.6g}"


def cosine(value: float) -> str:
    return f"{value:.7f}" if math.isfinite(value) else short(value)
