"""What `python -m minillama.compare` prints."""

from __future__ import annotations

from collections.abc import Sequence

from minillama.debug.comparison import Comparison, Divergence, Finding, Row
from minillama.debug.traces import as_text

AFTER = 3  # rows that are shown after the first that differs


def table(result: Comparison, every: bool = False) -> str:
    """The comparison as text. every: all rows; else one a layer that agrees, and those about the first divergence."""
    lines = [("", "max abs", "relative", "cosine", "ulp", "")]
    for row in result.rows if every else shortened(result):
        if row.error is None:
            lines.append((row.name, "", "", "", "", f"shapes {row.shape} and {row.other_shape}"))
            continue
        e = row.error
        mark = "" if row.same else f"{e.worst:.3g} x what is allowed"
        lines.append((row.name, f"{e.largest:.2e}", f"{e.relative:.2e}", f"{e.cosine:.7f}", f"{e.ulp:.3g}", mark))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join([*(_aligned(line, widths) for line in lines), "", *summary(result)])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.rjust(width) for cell, width in zip(line[1:5], widths[1:], strict=True)]
    return "  ".join([line[0].ljust(widths[0]), *cells, line[5]]).rstrip()


def shortened(result: Comparison) -> list[Row]:
    """The rows that tell most: layer outputs, what is in no layer, and those about the first divergence."""
    first = next((i for i, row in enumerate(result.rows) if not row.same), None)
    shown = {i for i, row in enumerate(result.rows) if ".layers." not in row.name or row.name.endswith(".output")}
    if first is not None:
        shown |= set(range(max(0, first - AFTER), min(len(result.rows), first + AFTER + 1)))
    return [row for i, row in enumerate(result.rows) if i in shown]


def summary(result: Comparison) -> list[str]:
    """What there is to say below the table."""
    lines = []
    if result.same_ids is False:
        lines.append(f"the ids differ: {as_text(result.a.input_ids[0])} and {as_text(result.b.input_ids[0])}")
    if result.first is None:
        lines.append(f"{len(result.rows)} intermediates agree, to {result.tolerance}")
    else:
        lines += said(result.first)
        later = [row for row in result.rows if not row.same]
        lines.append(f"{len(later)} of {len(result.rows)} intermediates differ by more than {result.tolerance}")
    for names, who in ((result.only_a, "the first"), (result.only_b, "the second")):
        if names:
            lines.append(f"{len(names)} are only in {who}, such as {names[0]}")
    return [*lines, *explained(result)]


def explained(result: Comparison) -> list[str]:
    """What the diagnosis found."""
    if result.first is None:
        return []
    if result.unexplained is not None:
        return [f"no diagnosis: {result.unexplained}"]
    if not result.findings:
        return ["diagnosis: none of the hypotheses explains it"]
    if not result.findings[0].reproduced:
        return ["diagnosis: none of the hypotheses gives these numbers", *map(_nearest, result.findings)]
    elsewhere = "" if result.findings[0].target == result.first.name else f" (seen at {result.findings[0].target})"
    return [f"diagnosis{elsewhere}: {result.findings[0].cause}", *(f"  or: {f.cause}" for f in result.findings[1:])]


def _nearest(finding: Finding) -> str:
    """What explains a part of the error, or is only seen."""
    share = f"nearest, {1 - finding.left:.0%} of the error: " if finding.left < 1 else ""
    return f"  {share}{finding.cause}"


def said(first: Divergence) -> list[str]:
    """Where the two part."""
    if first.index is None:
        return [f"first divergence: {first.name}, which has another shape"]
    lines = [f"first divergence: {first.name}[{_index(first.index)}] is {first.ours:.9g} and {first.theirs:.9g}"]
    if first.worst is not None and first.worst != first.index:
        lines.append(f"  largest there: [{_index(first.worst)}] is {first.ours_worst:.9g} and {first.theirs_worst:.9g}")
    lines.append(f"  {first.off:,} of its {first.size:,} numbers are off")
    return lines


def _index(index: tuple[int, ...]) -> str:
    return ", ".join(map(str, index))
