"""What must hold of rms_norm(x, weight, eps)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.model.norm import rms_norm
from minillama.testing.base import Case, Implementation, Properties, Variants, agree, as_floats
from minillama.testing.levels import Level
from minillama.testing.strategies import SEEDS, spiky

norm = Properties("rms_norm")
EPSILONS = (1e-5, 1e-6, 1e-8)


def cases(exponents: st.SearchStrategy[int]) -> Callable[[Level], st.SearchStrategy[Case]]:
    """Rows of sizes 2^exponent, each its own."""

    @st.composite
    def draw_case(draw: st.DrawFn, level: Level) -> Case:
        B, T, D = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(2, 9))
        seed, eps = draw(SEEDS), draw(st.sampled_from(EPSILONS))
        sizes = np.exp2(draw(st.lists(exponents, min_size=B * T, max_size=B * T)))
        x = spiky(seed, B, T, D) * sizes.reshape(B, T, 1)
        return {"x": level.rounded(x), "weight": level.rounded(1 + 0.5 * spiky(seed + 1, D)), "eps": eps}

    return draw_case


USUAL, SMALL, LARGE = st.integers(-3, 6), st.integers(-12, -6), st.integers(7, 12)


def call(fn: Implementation, case: Case) -> Any:
    return fn["rms_norm"](case["x"], case["weight"], case["eps"])


def expected(case: Case) -> Array:
    return rms_norm(case["x"].astype(np.float64), case["weight"].astype(np.float64), case["eps"])


def allowed(wanted: Array, level: Level) -> Array:
    """The mean, half of which's error the root passes on; then three operations with a result: the root, the quotient
    and the product."""
    return level.allowed(wanted, roundings=2, terms=wanted.shape[-1] / 2 + 5)


def mistakes(case: Case) -> Variants:
    x, w, eps = case["x"].astype(np.float64), case["weight"].astype(np.float64), case["eps"]
    D, rms = x.shape[-1], np.sqrt(np.mean(x * x, axis=-1, keepdims=True))
    return {
        "eps is added outside of the root": lambda: x / (rms + eps) * w,
        **{f"eps is {e:g}": partial(rms_norm, x, w, e) for e in (0, 1e-12, *EPSILONS, 1e-4, 1e-3) if e != eps},
        "the mean is subtracted": lambda: rms_norm(x - x.mean(axis=-1, keepdims=True), w, eps),
        "the weight is left out": lambda: rms_norm(x, np.ones_like(w), eps),
        "1 is added to the weight": lambda: rms_norm(x, 1 + w, eps),
        "the sum of squares is taken for their mean": lambda: x / np.sqrt(np.sum(x * x, -1, keepdims=True) + eps) * w,
        "the squares are divided by D - 1": lambda: x / np.sqrt(rms**2 * D / (D - 1) + eps) * w,
        "the square root is missing": lambda: x / (rms**2 + eps) * w,
        "the mean is taken over more than the last axis": lambda: x / np.sqrt(np.mean(x * x) + eps) * w,
    }


@norm("every row is x / sqrt(mean(x^2) + eps) * weight, with the mean over the last axis", cases(USUAL))
def exact(fn: Implementation, case: Case, level: Level) -> None:
    wanted = expected(case)
    agree(call(fn, case), wanted, allowed(wanted, level), variants=mistakes(case))


@norm("eps is added to the mean of squares, inside the root, as it is given; rows near sqrt(eps) show it", cases(SMALL))
def eps(fn: Implementation, case: Case, level: Level) -> None:
    exact(fn, case, level)


@norm("squares beyond the largest float16 do not overflow: they are summed in float32", cases(LARGE))
def large(fn: Implementation, case: Case, level: Level) -> None:
    exact(fn, case, level)


@norm("a row of zeros gives zeros, and leaves the rows beside it alone", cases(USUAL))
def zeros(fn: Implementation, case: Case, level: Level) -> None:
    case["x"][0, 0] = 0
    exact(fn, case, level)


@norm("each row is normalized by itself, whatever is beside it", cases(USUAL))
def rows(fn: Implementation, case: Case, level: Level) -> None:
    whole = expected(case)
    alone = call(fn, case | {"x": case["x"][-1:, -1:]})
    agree(alone, whole[-1:, -1:], allowed(whole[-1:, -1:], level), "the last row alone")


@norm("a multiple of a large row gives the same numbers", cases(LARGE))
def scale(fn: Implementation, case: Case, level: Level) -> None:
    # Doubling is exact, and what eps still does in a row that was drawn small is known
    doubled = case | {"x": case["x"] * 2}
    once = as_floats(call(fn, case), case["x"].shape, "the result")
    slack = 2 * allowed(once, level) + np.abs(expected(doubled) - expected(case))
    agree(call(fn, doubled), once, slack, "the result for 2 x")
