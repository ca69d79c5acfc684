"""RMSNorm: two a layer and one behind the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.names import NORM
from minillama.debug.steps import STEPS, How
from minillama.model.norm import rms_norm
from minillama.weights.formats import narrow_bfloat16, widen

Norm: TypeAlias = Callable[[Array, Array, float], Array]  # of x, weight and eps
EPSILONS = (0.0, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
NORMS = ("input_norm", "post_attention_norm", NORM)

# What is computed instead of x / sqrt(mean(x^2) + eps) * w
INSTEAD: dict[str, tuple[str, Norm]] = {
    "norm.eps_outside": ("eps is added outside of the square root", lambda x, w, eps: x / (_rms(x, 0) + eps) * w),
    "norm.mean": ("the mean is subtracted, as in layer normalization", lambda x, w, eps: rms_norm(_centred(x), w, eps)),
    "norm.weight_missing": ("the weight of the norm is left out", lambda x, w, eps: x / _rms(x, eps)),
    "norm.weight_plus_one": ("1 is added to the weight of the norm", lambda x, w, eps: x / _rms(x, eps) * (1 + w)),
    "norm.sum": ("the sum of squares is taken for their mean", lambda x, w, eps: x / _length(x, eps) * w),
    "norm.root": ("the square root is missing", lambda x, w, eps: x / _rms(x, eps) ** 2 * w),
    "norm.missing": ("the norm is left out", lambda x, w, eps: x),
    "norm.only_weight": ("only the weight of the norm is applied", lambda x, w, eps: x * w),
    "norm.tokens": ("the mean is taken over the tokens, not the width", lambda x, w, eps: x / _rms(x, eps, 1) * w),
    "norm.all": ("the mean is taken over all tokens at once", lambda x, w, eps: x / _rms(x, eps, (1, 2)) * w),
    "norm.running": ("the sum of squares is not set to 0 between tokens", lambda x, w, eps: x / _running(x, eps) * w),
    "norm.variance": ("the squares are divided by D - 1", lambda x, w, eps: x / _rms(x, eps, count=-1) * w),
    "norm.last_left_out": (
        "the last number is left out of the sum of squares",
        lambda x, w, eps: x / np.sqrt(_mean_of(x, slice(-1)) + eps) * w,
    ),
    "norm.first_left_out": (
        "the first number is left out of the sum of squares",
        lambda x, w, eps: x / np.sqrt(_mean_of(x, slice(1, None)) + eps) * w,
    ),
    "norm.deviation": (
        "it is the standard deviation that is divided by: the squares are those of x less its mean",
        lambda x, w, eps: x / _rms(_centred(x), eps) * w,
    ),
    "norm.twice": ("the norm is applied twice", lambda x, w, eps: rms_norm(rms_norm(x, w, eps), w, eps)),
}
# The same with numbers rounded to bfloat16 on the way
ROUNDED: dict[str, tuple[str, Norm]] = {
    "norm.cast_order": (
        "x / rms is rounded to bfloat16 before it is multiplied by the weight",
        lambda x, w, eps: bf16(x / _rms(x, eps)) * w,
    ),
    "norm.cast_after": (
        "x / rms * weight is rounded to bfloat16 at the end only",
        lambda x, w, eps: bf16(x / _rms(x, eps) * w),
    ),
    "norm.cast_both": (
        "x / rms is rounded to bfloat16, and so is its product with the weight",
        lambda x, w, eps: bf16(bf16(x / _rms(x, eps)) * w),
    ),
    "norm.low_precision": (
        "the mean of squares is computed in bfloat16",
        lambda x, w, eps: x / np.sqrt(bf16(np.mean(bf16(bf16(x) ** 2), axis=-1, keepdims=True)) + eps) * w,
    ),
    "norm.all_low": (
        "everything in the norm is computed in bfloat16",
        lambda x, w, eps: bf16(_all_bf16(x, eps) * w),
    ),
    "norm.low_before_weight": (
        "everything in the norm but the product with the weight is computed in bfloat16",
        lambda x, w, eps: _all_bf16(x, eps) * w,
    ),
    "norm.input_rounded": ("the input of the norm is rounded to bfloat16", lambda x, w, eps: rms_norm(bf16(x), w, eps)),
}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    own = case.config.rms_norm_eps
    for eps in EPSILONS:
        if eps != own:
            yield Hypothesis("norm.eps", f"eps of the norm is {eps:g} and not {own:g}", everywhere(_with_eps(eps)))
    for key, (cause, norm) in INSTEAD.items():
        changed = everywhere(norm)
        yield Hypothesis(key, cause, changed)
        for local, which in (
            ("input_norm", "the norm before attention"),
            ("post_attention_norm", "the norm before the MLP"),
        ):
            honest = {name: STEPS[name] for name in NORMS}
            yield Hypothesis(key, f"{cause}, of {which} only", honest | {local: changed[local]})
    for key, (cause, norm) in ROUNDED.items():
        yield Hypothesis(key, cause, everywhere(norm), rounds=True)


def everywhere(norm: Norm) -> dict[str, How]:
    """A norm in all three places."""
    return {
        "input_norm": lambda s: norm(s.x, s.w.input_norm, s.config.rms_norm_eps),
        "post_attention_norm": lambda s: norm(s["residual"], s.w.post_attention_norm, s.config.rms_norm_eps),
        NORM: lambda s: norm(s.x, s.weights.norm, s.config.rms_norm_eps),
    }


def bf16(x: Array) -> Array:
    """x rounded to bfloat16, as float64."""
    return widen(narrow_bfloat16(np.asarray(x, np.float32)), "BF16", np.float64)


def f16(x: Array) -> Array:
    """x rounded to float16, as float64."""
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float16).astype(np.float64)


def _with_eps(eps: float) -> Norm:
    return lambda x, w, _: rms_norm(x, w, eps)


def _rms(x: Array, eps: float, axis: int | tuple[int, ...] = -1, count: int = 0) -> Array:
    """sqrt(mean(x^2) + eps); count: is added to the number that the sum is divided by."""
    mean = np.mean(x * x, axis=axis, keepdims=True)
    return np.asarray(np.sqrt(mean * (x.shape[-1] / (x.shape[-1] + count)) + eps))


def _mean_of(x: Array, part: slice) -> Array:
    """A part of the squares added up, and divided by all of D."""
    return np.asarray(np.sum(x[..., part] ** 2, axis=-1, keepdims=True) / x.shape[-1])


def _length(x: Array, eps: float) -> Array:
    return np.asarray(np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps))


def _all_bf16(x: Array, eps: float) -> Array:
    squares = bf16(bf16(x) ** 2)
    return bf16(bf16(x) * bf16(1 / np.sqrt(bf16(bf16(np.mean(squares, axis=-1, keepdims=True)) + eps))))


def _running(x: Array, eps: float) -> Array:
    """The root for each token (B, T, 1) of what the sum has come to."""
    return np.asarray(np.sqrt(np.cumsum(np.mean(x * x, axis=-1, keepdims=True), axis=1) + eps))


def _centred(x: Array) -> Array:
    return np.asarray(x - x.mean(axis=-1, keepdims=True))
