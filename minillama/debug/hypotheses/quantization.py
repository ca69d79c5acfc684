"""Weights that went through a quantized format."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.hypotheses.norm import f16
from minillama.debug.hypotheses.projection import MATRICES, product
from minillama.debug.names import LOGITS, NORM
from minillama.debug.steps import How
from minillama.model.ops import linear

# Names, numbers that share a scale (None: a row), steps on either side of 0
FORMATS = (
    ("q8_0, 8 bits in blocks of 32", 32, 127),
    ("8 bits in groups of 64", 64, 127),
    ("8 bits a row", None, 127),
    ("4 bits in groups of 32", 32, 7),
    ("4 bits in groups of 64", 64, 7),
    ("4 bits in groups of 128", 128, 7),
)


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    local = case.target.local
    if local not in MATRICES and local != LOGITS:
        return
    weight = MATRICES[local].weight if local in MATRICES else "the head"
    for name, size, most in FORMATS:
        yield _of(local, f"{weight} is quantized: {name}", _rounded(size, most))
    yield _of(local, f"{weight} is quantized: q4_0, 4 bits in blocks of 32", _q4_0)


def _of(local: str, cause: str, change: Callable[[Array], Array]) -> Hypothesis:
    step: How = product(local, change) if local in MATRICES else lambda s: linear(s[NORM], change(s.weights.lm_head))
    return Hypothesis("precision.quantized", cause, {local: step}, rounds=True)


def _rounded(size: int | None, most: int) -> Callable[[Array], Array]:
    """The nearest of so many steps on either side of 0, the largest being the largest number of the group."""

    def change(weight: Array) -> Array:
        groups = weight.reshape(-1, size or weight.shape[-1])
        scales = np.abs(groups).max(axis=-1, keepdims=True) / most
        return np.asarray(np.rint(groups / np.where(scales, scales, 1)) * f16(scales)).reshape(weight.shape)

    return change


def _q4_0(weight: Array) -> Array:
    """As ggml does it: -8 steps are the number that is largest in size, and there are 7 on the other side."""
    groups = weight.reshape(-1, 32)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[:, None], axis=-1)
    scales = np.where(largest, largest, 1) / -8
    steps = np.minimum(np.floor(groups / scales + 8.5), 15) - 8
    return np.asarray(steps * f16(scales)).reshape(weight.shape)
