"""The first tensor that differs as heat maps: ours, theirs, and by how many times what is allowed they are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minillama.arrays import Array
from minillama.debug.comparison import Comparison, Divergence, pair
from minillama.debug.errors import excess
from minillama.debug.names import place, sides
from minillama.debug.pixels import block_of, picture

AXES = {
    "B": "sequence", "T": "position", "S": "key position", "H": "head", "G": "key/value head", "K": "component",
    "H K": "feature, heads side by side", "D": "feature", "F": "feature", "V": "token id",
}  # fmt: skip
PIXELS = 400_000  # of all pictures of a page: up to 0.3 MB, as data: URIs 0.4
MOST = 64  # heads of which there are pictures
SIZES = 4.0  # root mean squares of ours that the scale of values reaches to, for one outlier would pale all others
FAINTEST = 0.25  # of the full colour: what is off by just more than is allowed
LOWEST, TALLEST = 28, 320  # pictures on the page, in pixels


@dataclass
class Mark:
    """A number to be found in the pictures. kind: "first" or "worst". left, top: its place, in per cent."""

    kind: str
    left: float
    top: float


@dataclass
class Slice:
    """The pictures of one head, as data: URIs. label: which, "" if there is but one. off, worst: how many numbers are
    off, and by how many times what is allowed at most."""

    label: str
    off: int
    worst: float
    marks: list[Mark]
    ours: str
    theirs: str
    apart: str


@dataclass
class HeatMaps:
    """down, across: the names of the axes that are drawn, the last two. shape: their lengths. block: how many numbers
    of each are one pixel. limit: where the scale of values ends; clipped: whether some are beyond. most: where that
    of errors ends. finite: whether all numbers are. chosen: the slice with the first divergence. left_out: how many
    slices have no pictures; they are off by less."""

    down: str
    across: str
    shape: tuple[int, int]
    block: tuple[int, int]
    limit: float
    clipped: bool
    most: float
    finite: bool
    slices: list[Slice]
    chosen: int
    left_out: int

    @property
    def height(self) -> int:
        """Of a picture on the page, in pixels."""
        return min(TALLEST, max(LOWEST, 14 * self.shape[0]))


def heat_maps(result: Comparison, first: Divergence) -> HeatMaps | str:
    """Pictures of where two traces part first, or a sentence why there are none."""
    where = place(first.name)
    assert where is not None
    ours, theirs = (np.asarray(array, np.float64) for array in pair(result.a, result.b, where))
    axes = [AXES[letters] for letters in sides(where.local)]
    if first.index is None:
        return f"No picture: the shapes differ, {ours.shape} of ours and {theirs.shape} of theirs."
    if ours.ndim != len(axes):
        return f"No picture: the axes should be {', '.join(axes)}, and the shape is {ours.shape}."
    return drawn(ours, theirs, excess(ours, theirs, result.allowed(where)), first, axes)


def drawn(ours: Array, theirs: Array, off: Array, first: Divergence, axes: list[str]) -> HeatMaps:
    """Pictures of two tensors of one shape. off: how many times what is allowed each number is off."""
    assert first.index is not None
    assert first.worst is not None
    *before, rows, columns = ours.shape
    here = first.index[:-2]
    by_error = sorted(np.ndindex(*before), key=lambda at: (at != here, -off[at].max()))
    kept = sorted(by_error[:MOST])
    block = block_of((rows, columns), PIXELS // (3 * len(kept)))
    limit, largest = scales(ours, theirs)
    most = max(10.0, float(off[np.isfinite(off)].max(initial=0)))
    signs = signed(ours, theirs, off, most)
    slices = []
    for at in kept:
        label = ", ".join(f"{name} {i}" for name, i, size in zip(axes, at, before, strict=False) if size > 1)
        marks = [
            Mark(kind, *percent(index[-2:], (rows, columns), block))
            for kind, index in (("first", first.index), ("worst", first.worst))
            if index[:-2] == at
        ]
        pictures = [picture(values[at], block) for values in (ours / limit, theirs / limit, signs)]
        slices.append(Slice(label, int((off[at] > 1).sum()), float(off[at].max()), marks, *pictures))
    finite = bool(np.isfinite(ours).all() and np.isfinite(theirs).all())
    return HeatMaps(
        axes[-2], axes[-1], (rows, columns), block, limit, largest > limit, most, finite, slices, kept.index(here),
        len(by_error) - len(kept),
    )  # fmt: skip


def scales(ours: Array, theirs: Array) -> tuple[float, float]:
    """Where the scale of values ends, and the largest of both."""
    finite = np.where(np.isfinite(ours), ours, 0)
    largest = max(float(np.abs(array[np.isfinite(array)]).max(initial=0)) for array in (ours, theirs))
    return min(largest, SIZES * float(np.sqrt(np.mean(finite * finite)))) or largest or 1.0, largest


def signed(ours: Array, theirs: Array, off: Array, most: float) -> Array:
    """By the logarithm of how many times what is allowed they are apart, from FAINTEST to 1 at `most`, with the sign of
    theirs - ours; 0 if that is allowed, NaN where only one is a number."""
    with np.errstate(invalid="ignore", divide="ignore"):
        strength = FAINTEST + (1 - FAINTEST) * np.log(off) / math.log(most)
        apart = np.where(off > 1, np.sign(theirs - ours) * strength, 0)
    return np.where(np.isfinite(off), apart, np.nan)


def percent(at: tuple[int, ...], shape: tuple[int, int], block: tuple[int, int]) -> tuple[float, float]:
    """How far from the left and from the top the middle of a number's pixel is."""
    top, left = (
        100 * (i // size + 0.5) / math.ceil(length / size) for i, length, size in zip(at, shape, block, strict=True)
    )
    return left, top
