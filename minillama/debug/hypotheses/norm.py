"""RMSNorm: two a layer and one behind the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.names import NORM
from minillama.debug.steps import STEPS, How, Scene
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
    "norm.input": ("the input of the norm is rounded to bfloat16", lambda x, w, eps: rms_norm(bf16(x), w, eps)),
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
    yield Hypothesis(
        "norm.other_weight",
        "the two norms of a layer have each other's weight",
        {
            "input_norm": lambda s: rms_norm(s.x, s.w.post_attention_norm, own),
            "post_attention_norm": lambda s: rms_norm(s["residual"], s.w.input_norm, own),
        },
    )
    yield Hypothesis(
        "norm.before_residual",
        "the second norm reads what attention adds, or the stream before it",
        {"post_attention_norm": lambda s: rms_norm(s["self_attn.o_proj"], s.w.post_attention_norm, own)},
    )
    yield Hypothesis(
        "norm.before_residual",
        "the second norm reads the stream before attention",
        {"post_attention_norm": lambda s: rms_norm(s.x, s.w.post_attention_norm, own)},
    )
    for away in (-1, 1):
        yield Hypothesis(
            "norm.other_layer",
            f"the norm has the weight of the layer {'before' if away < 0 else 'after'}",
            {name: _of_layer(name, away) for name in NORMS[:2]},
        )


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


def _of_layer(name: str, away: int) -> How:
    def norm(s: Scene) -> Array:
        other = s.weights.layers[(s.layer + away) % s.config.num_hidden_layers]
        return rms_norm(s.x if name == "input_norm" else s["residual"], getattr(other, name), s.config.rms_norm_eps)

    return norm


def _rms(x: Array, eps: float, axis: int | tuple[int, ...] = -1, count: int = 0) -> Array:
    """sqrt(mean(x^2) + eps); count: is added to the number that the sum is divided by."""
    mean = np.mean(x * x, axis=axis, keepdims=True)
    return np.asarray(np.sqrt(mean * (x.shape[-1] / (x.shape[-1] + count)) + eps))


def _length(x: Array, eps: float) -> Array:
    return np.asarray(np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + eps))


def _running(x: Array, eps: float) -> Array:
    """The root for each token (B, T, 1) of what the sum has come to."""
    return np.asarray(np.sqrt(np.cumsum(np.mean(x * x, axis=-1, keepdims=True), axis=1) + eps))


def _centred(x: Array) -> Array:
    return np.asarray(x - x.mean(axis=-1, keepdims=True))
