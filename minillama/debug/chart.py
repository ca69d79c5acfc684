"""The error from the embedding to the logits as a picture: where everything stands in it. The page draws it as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from minillama.debug.comparison import Row
from minillama.debug.names import EMBED_TOKENS, Place, place

WIDTH, HEIGHT = 960, 350
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 48, 46  # margins
DECADES = 7  # labels on the axis at most
APART = 26  # between the labels of two layers at least
BEYOND = 22  # between the end of the axis and the place of 0, or of infinity


@dataclass
class Group:
    """What a layer computes, or what comes before or after all. start: what the names in it begin with. rows: with
    their number in the table."""

    step: int
    layer: int | None
    label: str
    start: str
    rows: list[tuple[int, Row]]

    @property
    def off(self) -> int:
        return sum(not row.same for _, row in self.rows)

    def has(self, name: str) -> bool:
        return any(row.name == name for _, row in self.rows)

    @property
    def worst(self) -> float:
        return max(times(row) for _, row in self.rows)


@dataclass
class Point:
    """One intermediate. first: whether the two part here."""

    number: int
    row: Row
    x: float
    y: float
    first: bool


@dataclass
class Band:
    """The width of a layer. label: "" if there is no room for it."""

    x: float
    width: float
    label: str
    shaded: bool


@dataclass
class Axis:
    """Powers of ten of what is allowed. low, high: the exponents at its ends; bottom, top: the heights of these. 0 and
    infinity have their places below and above."""

    low: int
    high: int
    bottom: float
    top: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Axis:
        """The axis that has all these and 1."""
        exponents = [math.log10(value) for value in values if 0 < value < math.inf]
        low, high = math.floor(min([-1, *exponents])), math.ceil(max([1, *exponents]))
        return cls(low, high, HEIGHT - BOTTOM - BEYOND * (0 in values), TOP + BEYOND * (math.inf in values))

    def y(self, value: float) -> float:
        if not 0 < value < math.inf:
            return TOP if value else HEIGHT - BOTTOM
        return self.bottom + (math.log10(value) - self.low) / (self.high - self.low) * (self.top - self.bottom)

    def ticks(self) -> list[tuple[float, str]]:
        """Where labels stand, and which."""
        every = math.ceil((self.high - self.low) / DECADES)
        powers = [n for n in range(self.low, self.high + 1) if n % every == 0]
        found = [(self.y(10.0**n), f"{10.0**n:,g}") for n in powers]
        found += [(self.y(0), "0")] * (self.bottom < HEIGHT - BOTTOM)
        return found + [(self.y(math.inf), "\N{INFINITY}")] * (self.top > TOP)


@dataclass
class Chart:
    """ticks: heights, and what stands there. allowed: the height of 1. points, bands: from left to right. steps: where
    later calls begin, and their numbers."""

    ticks: list[tuple[float, str]]
    allowed: float
    points: list[Point] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    steps: list[tuple[float, int]] = field(default_factory=list)

    @property
    def radius(self) -> float:
        return min(4.0, max(2.0, WIDTH / (2 * len(self.points))))


def times(row: Row) -> float:
    """How many times what is allowed the worst number of a row is off; infinite where the shapes differ."""
    return math.inf if row.error is None else row.error.worst


def groups(rows: Sequence[Row]) -> list[Group]:
    """The rows of a comparison by layer, in order."""
    found = []
    places = [(number, row, place(row.name)) for number, row in enumerate(rows)]
    known = [(number, row, where) for number, row, where in places if where is not None]
    for (step, layer, first), each in groupby(known, lambda one: (*one[2][:2], one[2].local == EMBED_TOKENS)):
        of_layer = f"layer {layer}" if layer is not None else "embedding" if first else "after the layers"
        label = f"step {step}, {of_layer}" if step else of_layer
        start = Place(step, layer, "").name
        found.append(Group(step, layer, label, start, [(number, row) for number, row, _ in each]))
    return found


def chart(parts: Sequence[Group], first: str | None) -> Chart:
    """Where everything stands. first: the name of what differs first."""
    rows = [row for part in parts for _, row in part.rows]
    axis = Axis.of([times(row) for row in rows])
    step = (WIDTH - LEFT - RIGHT) / len(rows)
    every = math.ceil(APART * sum(part.layer is not None for part in parts) / (WIDTH - LEFT - RIGHT))
    drawn = Chart(axis.ticks(), axis.y(1))
    x, before = float(LEFT), 0
    for part in parts:
        if part.step != before:
            drawn.steps.append((x, part.step))
            before = part.step
        label = str(part.layer) if part.layer is not None and part.layer % every == 0 else ""
        drawn.bands.append(Band(x, step * len(part.rows), label, part.layer is not None and part.layer % 2 == 0))
        for number, row in part.rows:
            drawn.points.append(Point(number, row, x + step / 2, axis.y(times(row)), row.name == first))
            x += step
    return drawn
