"""How exact an implementation claims to be, and what it may be off by because of that.

What rounding leaves is bounded operation by operation (Higham 2002, section 3.1): a number that is rounded r times on
its way, and is a sum of n terms, may be off by

    (r unit + n 2^-24) * the sizes of its terms, added up

because numbers are handed from operation to operation in the level's format, with a unit roundoff of `unit`, and
sums are formed in float32 at every level. Properties know r, n and the sizes; a level knows the rest. So nothing here
is a guess with room in it. Through whole models such bounds say little: properties/model.py tries how far rounding
carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.layout import GROUP
from minillama.messages import shown
from minillama.weights.formats import narrow_bfloat16, widen

FLOAT32 = 2.0**-24  # half the distance of 1 to the next float32, as a part of 1
BFLOAT16 = 2.0**-8
TINY = 1e-35  # what may be flushed to zero: above the smallest normal float32


@dataclass(frozen=True)
class Level:
    """unit: roundoff of what is handed on. kept: roundoff of cached keys and values. step: what a number that is
    multiplied with weights, or a weight, may be off by, as a part of the largest of its group of 32."""

    name: str
    unit: float
    kept: float
    step: float

    def allowed(self, sizes: Any, roundings: float, terms: float = 0) -> Array:
        """By how much a number may be off: see above. sizes: of its terms, added up; any shape."""
        return np.asarray((roundings * self.unit + terms * FLOAT32) * np.abs(sizes) + TINY)

    def stepped(self, x: Array) -> Array:
        """By how much numbers that are multiplied with weights, or weights, may be off beside rounding. (..., width)"""
        if not self.step:
            return np.zeros_like(x)
        largest = np.abs(x.reshape(*x.shape[:-1], -1, GROUP)).max(axis=-1)
        return np.asarray(self.step * np.repeat(largest, GROUP, axis=-1))

    def rounded(self, x: Array) -> Array:
        """Inputs that the level's format has exactly, as float32."""
        single = np.asarray(x, np.float32)
        return single if self.unit == FLOAT32 else bfloat16(single)

    def stored(self, x: Array) -> Array:
        """Keys and values that a cache's format has exactly, as float32."""
        return np.asarray(x, np.float32) if self.kept == FLOAT32 else bfloat16(x)

    def weight(self, w: Array) -> Array:
        """Weights that its format has exactly, as float32: a matrix (out, in), or a vector."""
        return on_four_bits(w) if self.step and w.ndim == 2 else self.rounded(w)


def bfloat16(x: Array) -> Array:
    """The nearest bfloat16 to each number, as float32."""
    return widen(narrow_bfloat16(np.asarray(x, np.float32)), "BF16", np.float32)


def on_four_bits(w: Array) -> Array:
    """The weights (out, in) as q4_0 has them: each group of 32 columns is whole numbers -8 .. 7 times a scale, with a
    -8 by which any quantizer finds that scale."""
    groups = np.asarray(w, np.float64).reshape(len(w), -1, GROUP)
    scale = np.exp2(np.ceil(np.log2(np.abs(groups).max(axis=2, keepdims=True) / 8)))  # a float16, and exact
    whole = np.clip(np.rint(groups / scale), -7, 7)
    first = np.abs(whole).argmax(axis=2)[..., None]
    np.put_along_axis(whole, first, -8, axis=2)
    return np.asarray((whole * scale).reshape(w.shape), np.float32)


LEVELS = {
    level.name: level
    for level in (
        Level("float32", FLOAT32, FLOAT32, 0),
        Level("bf16", BFLOAT16, BFLOAT16, 0),
        # Products are of numbers of 8 bits, -127 .. 127 times a scale: half a step is 1/254 of the largest. Weights are
        # drawn with 4 bits, and 8 may move them by as much. All else is float32, but that keys and values may be
        # bfloat16, or float16, which is finer
        Level("quantized", FLOAT32, BFLOAT16, 1 / 254),
    )
}


def level_named(name: str | Level) -> Level:
    """ValueError for one that nobody knows."""
    if isinstance(name, Level):
        return name
    if name not in LEVELS:
        raise ValueError(f"level {shown(name)} is unknown: use one of {', '.join(LEVELS)}")
    return LEVELS[name]
