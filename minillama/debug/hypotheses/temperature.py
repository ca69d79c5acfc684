"""By how much scores are multiplied before the softmax: read off what it has made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.attention import PROBS, SCORES
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.steps import masked
from minillama.model.ops import softmax

CLOSE = 1e-3  # of a factor: nearer ones make no difference that shows


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    if case.target.local != PROBS:
        return
    factor, root = fitted_factor(case), math.sqrt(case.config.head_dim)
    if factor > CLOSE and abs(factor - 1) > CLOSE:
        cause = f"scores are divided by {root / factor:.5g}, not by sqrt(K), which is {root:.5g}"
        yield Hypothesis("any.temperature", cause, {PROBS: lambda s: softmax(masked(s[SCORES]) * factor)})


def fitted_factor(case: Case) -> float:
    """Least squares of log theirs = factor x ours, but for a constant in every row, which the softmax takes off; 0 if
    no number tells."""
    ours = case.honest.value(case.target._replace(local=SCORES))
    if ours.shape != case.theirs.shape:
        return 0
    seen = np.isfinite(masked(np.zeros(ours.shape))) & np.isfinite(case.theirs) & (case.theirs > 0)
    x, y = _centred(ours, seen), _centred(np.log(np.where(seen, case.theirs, 1)), seen)
    squares = float(np.sum(x * x, where=seen))
    return float(np.sum(x * y, where=seen)) / squares if squares > 0 else 0


def _centred(x: Array, seen: Array) -> Array:
    count = np.maximum(seen.sum(axis=-1, keepdims=True), 1)
    return np.asarray(x - np.sum(x, axis=-1, keepdims=True, where=seen) / count)
