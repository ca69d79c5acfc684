"""The exercises of chapter 3, RMSNorm."""

import numpy as np
from checks import Exercise

from minillama.model.norm import rms_norm

_random = np.random.default_rng(3)
# Asymmetric on purpose: rows of very different size, a mean far from zero, one tiny row where the epsilon matters
_X = _random.normal(0.7, 1, (3, 2, 6)) * np.array([1e-3, 1, 40])[:, None, None]
_W = _random.uniform(0.2, 2, 6)


def _outside(x, weight, eps):
    return x / (np.sqrt(np.mean(x * x, -1, keepdims=True)) + eps) * weight


def _no_epsilon(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True)) * weight


def _of_the_sum(x, weight, eps):
    return x / np.sqrt(np.sum(x * x, -1, keepdims=True) + eps) * weight


def _layer_norm(x, weight, eps):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight


def _all_axes(x, weight, eps):
    return x / np.sqrt(np.mean(x * x) + eps) * weight


def _no_weight(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps)


def _no_root(x, weight, eps):
    return x / (np.mean(x * x, -1, keepdims=True) + eps) * weight


EXERCISES = {
    "3.1": Exercise(
        name="rms_norm",
        right=rms_norm,
        cases=[(_X, _W, 1e-5), (_X[0, 0], _W, 1e-6)],
        mistakes={
            "the epsilon is outside the square root: it is added to the mean of the squares": _outside,
            "the epsilon is missing": _no_epsilon,
            "you sum the squares where their mean is wanted": _of_the_sum,
            "you subtract the mean: that is layer normalization": _layer_norm,
            "you average over all numbers at once: each vector, along the last axis, has its own mean": _all_axes,
            "the weight is missing": _no_weight,
            "the square root is missing": _no_root,
        },
    ),
}
