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


def _of_the_length(x, weight, eps):
    return x / np.linalg.norm(x, axis=-1, keepdims=True) * weight


def _deviation(x, weight, eps):
    return x / np.sqrt(x.var(-1, keepdims=True) + eps) * weight


def _of_the_absolute(x, weight, eps):
    return x / (np.mean(np.abs(x), -1, keepdims=True) + eps) * weight


def _over_the_weight(x, weight, eps):
    return x / (np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * weight)


def _weighed_first(x, weight, eps):
    return _no_weight(x * weight, weight, eps)


def _layer_norm(x, weight, eps):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight


def _all_axes(x, weight, eps):
    return x / np.sqrt(np.mean(x * x) + eps) * weight


def _no_weight(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps)


def _no_root(x, weight, eps):
    return x / (np.mean(x * x, -1, keepdims=True) + eps) * weight


_Y = _random.normal(0.4, 2, (3, 5))
_ONES = np.ones(5)
_LAST_ROW = np.array([[1.0], [1.0], [3.0]])  # another factor in the last row only


def _layer(x):
    return _layer_norm(x, 1.0, 1e-5)


def which_norm(x, y):
    if np.allclose(y, rms_norm(x, np.ones(x.shape[-1]), 1e-5)):
        return "rms"
    return "layer" if np.allclose(y, _layer(x)) else "neither"


def _one_row(x, y):
    return which_norm(x[:1], y[:1])


def _one_number(x, y):
    if np.isclose(y, rms_norm(x, np.ones(x.shape[-1]), 1e-5)).any():
        return "rms"
    return "layer" if np.isclose(y, _layer(x)).any() else "neither"


def _by_zero_means(x, y):
    if np.allclose(y.mean(-1), 0, atol=1e-5):
        return "layer"
    return which_norm(x, y)


def _exactly(x, y):
    if np.array_equal(y, rms_norm(x, np.ones(x.shape[-1]), 1e-5)):
        return "rms"
    return "layer" if np.array_equal(y, _layer(x)) else "neither"


_MATRIX = _random.normal(0, 1, (4, 4))  # square, so that rows for columns do not stand out by their shape
_WIDE = _random.normal(0, 1, (3, 5))

EXERCISES = {
    "3.1": Exercise(
        name="rms_norm",
        right=rms_norm,
        cases=[(_X, _W, 1e-5), (_X[0, 0], _W, 1e-6)],
        mistakes={
            "the epsilon is outside the square root: it is added to the mean of the squares": _outside,
            "the epsilon is missing": _no_epsilon,
            "you sum the squares where their mean is wanted": _of_the_sum,
            "you divide by the length, the root of the sum of squares: take the root of their mean": _of_the_length,
            "you divide by the standard deviation, which subtracts the mean first: take the mean of x * x": _deviation,
            "you average absolute values: square, average, then take the root": _of_the_absolute,
            "you divide by the weight: it multiplies the normalized vector": _over_the_weight,
            "the weight comes last: you weigh the vector before its size is measured": _weighed_first,
            "you subtract the mean: that is layer normalization": _layer_norm,
            "you average over all numbers at once: each vector, along the last axis, has its own mean": _all_axes,
            "the weight is missing": _no_weight,
            "the square root is missing": _no_root,
        },
    ),
    "3.2": Exercise(
        name="normalized",
        right=[1, -1, 1, -1],
        mistakes={
            "that is still ten times the vector: its size is divided away": [20, -20, 20, -20],
            "that is the vector without the factor of ten; its root mean square is 2, and is divided away too": [
                2,
                -2,
                2,
                -2,
            ],
            "you divide by the length of the vector, a root of a sum: here it is a mean": [0.5, -0.5, 0.5, -0.5],
            "the signs stay: only the size is divided away": [1, 1, 1, 1],
            "a factor of ten in the vector does not change the result": [10, -10, 10, -10],
        },
    ),
    "3.3": Exercise(
        name="which_norm",
        right=which_norm,
        cases=[
            (_Y, rms_norm(_Y, _ONES, 1e-5)),
            (_Y, _layer(_Y)),
            (_Y, rms_norm(_Y, 2 * _ONES, 1e-5)),
            (_Y, rms_norm(_Y, _ONES, 1e-5) * (1 + 1e-9)),
            (_Y * 1e-3, _layer(_Y * 1e-3)),
            (_Y, 2 * _layer(_Y)),
            (_Y, rms_norm(_Y, _ONES, 1e-5) * _LAST_ROW),
            (_Y, rms_norm(_Y, _ONES, 1e-5) * _LAST_ROW[::-1]),
        ],
        mistakes={
            "the names are the wrong way round": lambda x, y: {"rms": "layer", "layer": "rms"}.get(
                which_norm(x, y), "neither"
            ),
            "compare with np.allclose: two ways of computing the same differ in their last digits": _exactly,
            "outputs that fit neither are to be told apart too": lambda x, y: (
                "rms" if which_norm(x, y) == "rms" else "layer"
            ),
            "a first row that fits is not enough: compare all of them": _one_row,
            "one number that fits is not enough: np.allclose compares all of them": _one_number,
            "rows whose mean is zero need not be layer normalization's: compute it and compare": _by_zero_means,
            "it answers the same whatever it is given": lambda x, y: "rms",
            "the epsilon counts: small vectors are a case too": lambda x, y: (
                which_norm(x, y) if np.abs(x).max() > 0.1 else "neither"
            ),
            "look at every row: one row alone can fit by chance, and its mean need not be zero": lambda x, y: (
                "layer" if abs(y[0].mean()) < 1e-3 else "rms"
            ),
        },
    ),
    "3.4": Exercise(
        name="fold",
        right=lambda matrix, weight: matrix * weight,
        cases=[(_MATRIX, _W[:4]), (_WIDE, _W[:5])],
        mistakes={
            "you weigh the rows, which are the outputs: the weight belongs to the columns, the inputs": lambda m, w: (
                m * w[: len(m), None]
            ),
            "return a matrix that carries the weight, not a product with it": lambda m, w: m @ w,
            "the weight is divided out, not multiplied in": lambda m, w: m / w,
            "the weight is multiplied in twice": lambda m, w: m * w * w,
            "the weight is not in it": lambda m, w: m,
            "that is the transpose: the matrix stays (out, in)": lambda m, w: (m * w).T,
        },
    ),
}
