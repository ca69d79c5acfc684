"""Two traces side by side, from the embedding to the logits: how far apart, and where they part first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.debug.errors import TOLERANCES, Error, Tolerance, excess, format_of, measure
from minillama.debug.names import EMBED_TOKENS, LOGITS, Place, place, turn
from minillama.debug.traces import Trace

SAMPLED = 12  # arrays that are looked at to know what format a run was computed in


@dataclass
class Row:
    """One intermediate of both. error: None if the two have different shapes."""

    name: str
    shape: tuple[int, ...]
    other_shape: tuple[int, ...]
    error: Error | None

    @property
    def same(self) -> bool:
        return self.error is not None and self.error.worst <= 1


@dataclass
class Divergence:
    """Where the two part. index: of the first number, in memory order, that is off by more than is allowed, with what
    both have there; None where the shapes differ. worst: the same of the number that is off the most. off, size: how
    many numbers are, of how many."""

    name: str
    index: tuple[int, ...] | None = None
    ours: float = 0
    theirs: float = 0
    worst: tuple[int, ...] | None = None
    ours_worst: float = 0
    theirs_worst: float = 0
    off: int = 0
    size: int = 0


@dataclass
class Finding:
    """What may explain a divergence. key, cause: of the hypothesis. left: the share of the error that it does not
    explain. reproduced: whether that is no more than rounding. target: the tensor it was tried on."""

    key: str
    cause: str
    left: float
    reproduced: bool
    target: str


@dataclass
class Comparison:
    """a: the reference. b: what is compared with it, under the same names. rows: what both have, in the order it is
    computed. first: where they part, if they do. only_a, only_b: what only one has. findings: what explains the first
    divergence, best first (minillama/debug/diagnosis.py); unexplained: why that was not looked for. layers: of a."""

    a: Trace
    b: Trace
    tolerance: Tolerance
    rows: list[Row] = field(default_factory=list)
    first: Divergence | None = None
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unexplained: str | None = None
    layers: int = 1

    def allowed(self, where: Place) -> Tolerance:
        """How far an intermediate may be off."""
        outside = 0 if where.local == EMBED_TOKENS else self.layers
        return self.tolerance.after(outside if where.layer is None else where.layer)

    @property
    def same_ids(self) -> bool | None:
        """Whether both were given the same ids; None if one does not say."""
        if not self.a.input_ids or not self.b.input_ids:
            return None
        return np.array_equal(self.a.input_ids[0], self.b.input_ids[0])

    @property
    def equal(self) -> bool:
        return self.first is None and self.same_ids is not False


def compare(a: Trace, b: Trace, rtol: float | None = None, atol: float | None = None) -> Comparison:
    """Compare what both traces hold. The tolerances are by default those of the coarser format that one was computed
    in. ValueError if they have nothing in common."""
    shared = [where for where in ordered(a) if where.name in b]
    if not shared:
        raise ValueError(
            f"{a.source} and {b.source} have no name in common ({_some(a)} and {_some(b)}): "
            "say with --map whose names they are"
        )
    tolerance = tolerance_of(a, b, shared)
    if rtol is not None:
        tolerance = tolerance._replace(rtol=rtol, grows=False)
    if atol is not None:
        tolerance = tolerance._replace(atol=atol)
    result = Comparison(a, b, tolerance, layers=1 + max((where.layer or 0 for where in ordered(a)), default=0))
    result.only_a = [where.name for where in ordered(a) if where.name not in b]
    result.only_b = [where.name for where in ordered(b) if where.name not in a]
    for where in shared:
        ours, theirs = pair(a, b, where)
        alike, allowed = ours.shape == theirs.shape, result.allowed(where)
        row = Row(where.name, ours.shape, theirs.shape, measure(ours, theirs, allowed) if alike else None)
        result.rows.append(row)
        if result.first is None and not row.same:
            result.first = divergence(where.name, ours, theirs, allowed) if alike else Divergence(where.name)
    return result


def tolerance_of(a: Trace, b: Trace, shared: list[Place]) -> Tolerance:
    """The tolerance for the coarser of two runs. The embedding is left out: it is what the weights are stored in."""
    computed = [where.name for where in shared if where.local not in (EMBED_TOKENS, "self_attn.probs")]
    some = computed[:: max(1, len(computed) // SAMPLED)]
    forms = [format_of(trace[name] for name in some) for trace in (a, b)]
    return max((TOLERANCES[form] for form in forms), key=lambda tolerance: tolerance.rtol)


def pair(a: Trace, b: Trace, where: Place) -> tuple[Array, Array]:
    """What both have of an intermediate, without what is nobody's: scores that a mask will hide are as it pleases. Many
    compute logits of the last token only."""
    ours, theirs = a[where.name], b[where.name]
    if where.local == LOGITS and ours.ndim == theirs.ndim == 3:
        T = min(ours.shape[1], theirs.shape[1])
        return ours[:, -T:], theirs[:, -T:]
    if where.local == "self_attn.scores" and ours.shape == theirs.shape:
        T, S = ours.shape[2:]
        seen = np.tri(T, S, S - T, dtype=bool)
        ours, theirs = np.where(seen, ours, 0), np.where(seen, theirs, 0)
    return ours, theirs


def divergence(name: str, a: Array, b: Array, tolerance: Tolerance) -> Divergence:
    """Where, and how far, two arrays of one shape part."""
    off = excess(a, b, tolerance)
    first, worst = (
        tuple(map(int, np.unravel_index(at, a.shape))) for at in (int((off > 1).argmax()), int(off.argmax()))
    )
    return Divergence(
        name, first, float(a[first]), float(b[first]), worst, float(a[worst]), float(b[worst]),
        int((off > 1).sum()), off.size,
    )  # fmt: skip


def ordered(trace: Trace) -> Iterator[Place]:
    """What a trace holds, in the order it is computed. The numbers in its names may be any, as -1 that a program has
    printed unsigned is."""
    places = [where for where in map(place, trace.tensors) if where is not None and where.name in trace]
    return iter(sorted(places, key=turn))


def as_object(result: Comparison) -> dict[str, Any]:
    """All of it as plain dictionaries, for --json. Numbers that are not finite are null."""

    def plain(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    first = result.first
    rows = [
        {"name": row.name, "same": row.same, "shape": row.shape, "other_shape": row.other_shape}
        | ({} if row.error is None else {key: plain(value) for key, value in row.error._asdict().items()})
        for row in result.rows
    ]
    told = None if first is None else dict(vars(first))
    for key in ("ours", "theirs", "ours_worst", "theirs_worst"):
        if told is not None:
            told[key] = plain(told[key])
    return {
        "equal": result.equal,
        "same_ids": result.same_ids,
        "tolerance": result.tolerance._asdict(),
        "first": told,
        "findings": [vars(finding) for finding in result.findings],
        "unexplained": result.unexplained,
        "rows": rows,
        "only_a": result.only_a,
        "only_b": result.only_b,
    }


def _some(trace: Trace) -> str:
    names = list(trace.tensors)
    return ", ".join(names[:2]) + (" ..." if len(names) > 2 else "") or "none of docs/notation.md"
