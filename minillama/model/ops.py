"""The few operations that several components share."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from minillama.arrays import Array

Tap: TypeAlias = Callable[[str, Array], None]  # is handed every named intermediate of a forward pass


def no_tap(name: str, array: Array) -> None:
    """The tap of a run that nobody watches."""


def scoped(tap: Tap, prefix: str) -> Tap:
    """The same tap, with `prefix` before every name."""
    if tap is no_tap:
        return no_tap
    return lambda name, array: tap(prefix + name, array)


def linear(x: Array, weight: Array, bias: Array | None = None, parts: int = 1) -> Array:
    """x W^T + b, with the weight stored as (out, in): (..., in) -> (..., out).

    parts: how many partial products, over equal slices of the input, are added up, as on so many devices; the same but
    for the order of additions (see pretraining_tp in LlamaConfig).
    """
    if parts == 1:
        y = x @ weight.T
    else:
        slices = zip(np.split(x, parts, axis=-1), np.split(weight, parts, axis=1), strict=True)
        y = sum(a @ w.T for a, w in slices)
    return y if bias is None else y + bias


def softmax(scores: Array) -> Array:
    """exp(s) / sum(exp(s)) over the last axis; a row of -inf only, which has nothing to look at, gives zeros."""
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total == 0, 1, total)
