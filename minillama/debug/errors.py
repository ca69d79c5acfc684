"""How far two arrays are apart, and how far they may be.

What is allowed depends on the row, the last axis: |a - b| <= atol + rtol * max(|a|, root mean square of the row of a).
Products are sums over rows, and what rounding leaves of a sum goes with the size of its terms, not with the sum's own,
which may be near 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from minillama.arrays import Array


class Tolerance(NamedTuple):
    """form: the number format it is meant for. grows: whether rtol is that of the first layer, and grows with the root
    of how many layers lie before, as what is rounded independently adds up."""

    form: str
    rtol: float
    atol: float
    grows: bool = True

    def after(self, layers: int) -> Tolerance:
        """What is allowed behind so many layers."""
        return self._replace(rtol=self.rtol * math.sqrt(1 + layers)) if self.grows else self

    def __str__(self) -> str:
        return f"{self.atol:g} + {self.rtol:g}{' sqrt(1 + layer)' if self.grows else ''} of their size ({self.form})"


# Formats from fine to coarse. In units of that root, the tale model in float32, float16 and bfloat16 is up to 0.8e-5,
# 0.012 and 0.06 away from its float32 twin by other hands, and a random model of 22 layers in float32 1e-5 from its
# float64 twin (worst are the numbers of mlp.act, products of two errors): 2 to 4 times that. float64 as float32, in its
# own units, with room. atol: where a whole row is 0 but for rounding.
TOLERANCES = {
    "f64": Tolerance("f64", 5e-11, 1e-14),
    "f32": Tolerance("f32", 4e-5, 1e-7),
    "f16": Tolerance("f16", 3e-2, 1e-5),
    "bf16": Tolerance("bf16", 0.15, 1e-4),
}
BITS = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}


class Error(NamedTuple):
    """How far b is from a. largest: the largest |a - b|. relative: the largest |a - b| / max(|a|, root mean square of
    the row); ulp: the same in units in the last place of that maximum. cosine: of the angle between the two. worst: how
    many times what is allowed the worst number is off."""

    largest: float
    relative: float
    cosine: float
    ulp: float
    worst: float


def format_of(arrays: Iterable[Array]) -> str:
    """The coarsest format that holds the numbers of most of some arrays: what they were computed in, whatever they are
    stored as. Zeros, NaN and infinity say nothing, as every format has them."""
    telling = (array[np.isfinite(array) & (array != 0)] for array in arrays)
    votes = [_format(array) for array in telling if array.size]
    order = list(BITS)
    return max(set(votes), key=lambda form: (votes.count(form), -order.index(form))) if votes else "f32"


def _format(array: Array) -> str:
    if array.dtype == np.float16:
        return "f16"
    if is_bfloat16(array):
        return "bf16"
    with np.errstate(over="ignore"):
        if np.array_equal(array.astype(np.float16), array):
            return "f16"
        return "f32" if array.dtype != np.float64 or np.array_equal(array.astype(np.float32), array) else "f64"


def is_bfloat16(array: Array) -> bool:
    """Whether every number is one that bfloat16 has: the lower half of a float32 is 0."""
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(array, np.float32)
    whole = array.dtype == np.float32 or np.array_equal(single, array)
    return bool(whole and not (single.view(np.uint32) & 0xFFFF).any())


def scale(a: Array) -> Array:
    """max(|a|, root mean square of its row) of each number."""
    finite = np.where(np.isfinite(a), np.abs(a), 0)
    return np.maximum(finite, np.sqrt(np.mean(finite * finite, axis=-1, keepdims=True)))


def excess(a: Array, b: Array, tolerance: Tolerance) -> Array:
    """How many times what is allowed each number is off; infinite where only one is a number."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    allowed = tolerance.atol + tolerance.rtol * scale(a)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.abs(a - b) / allowed
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0, np.where(np.isfinite(off), off, np.inf))


def measure(a: Array, b: Array, tolerance: Tolerance) -> Error:
    """How far b is from a; both have the same shape."""
    off = excess(a, b, tolerance)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        apart = np.where(off == 0, 0.0, np.abs(a - b))
        apart = np.where(np.isfinite(apart), apart, np.inf)
        size = np.maximum(scale(a), 1e-300)
        step = np.exp2(np.floor(np.log2(size)) + 1 - BITS[tolerance.form])
        largest, relative, ulp = (float(x.max(initial=0)) for x in (apart, apart / size, apart / step))
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        cosine = float(np.sum(a * b) / norms) if norms else float(largest == 0)
    return Error(largest, relative, cosine, ulp, float(off.max(initial=0)))
