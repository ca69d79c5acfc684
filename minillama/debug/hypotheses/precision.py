"""Any step: numbers rounded on the way, multiplied, shifted, or another tensor altogether."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.debug.errors import TOLERANCES, excess, is_bfloat16
from minillama.debug.hypotheses.base import Case, Hypothesis, multiplied
from minillama.debug.hypotheses.norm import NORMS, bf16, f16
from minillama.debug.hypotheses.projection import HEADED, MATRICES
from minillama.debug.names import LAYER, LOGITS, NORM
from minillama.debug.steps import STEPS, How, Scene
from minillama.model.attention import split_heads

Rounding: TypeAlias = Callable[[Array], Array]


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    yield from _of_the_whole(case)
    for name, rounding in (("bfloat16", bf16), ("float16", f16)):
        local = case.target.local
        yield Hypothesis(
            "precision.rounded", f"{local} is rounded to {name}", {local: partial(_rounded, to=rounding)}, True
        )
        if local in MATRICES or local == LOGITS:
            for key, cause, step in _products(name, rounding):
                yield Hypothesis(key, f"{cause}, in {local}", {local: step}, rounds=True)


def _products(name: str, rounding: Rounding) -> Iterator[tuple[str, str, How]]:
    def step(x: Rounding, w: Rounding, y: Rounding, one_by_one: bool = False) -> How:
        return lambda s: _product(s, x, w, y, rounding if one_by_one else None)

    same: Rounding = lambda array: array  # noqa: E731
    yield "precision.weight", f"the weight is rounded to {name}", step(same, rounding, same)
    yield "precision.input", f"the input is rounded to {name}", step(rounding, same, same)
    yield "precision.inputs", f"input and weight are rounded to {name}", step(rounding, rounding, same)
    yield "precision.product", f"input, weight and result are rounded to {name}", step(rounding, rounding, rounding)
    yield (
        "precision.accumulated",
        f"products are added up in {name}, which is too coarse",
        step(rounding, rounding, rounding, one_by_one=True),
    )
    yield (
        "precision.accumulated",
        f"sums of float32 products are kept in {name}, which is too coarse",
        step(same, same, rounding, one_by_one=True),
    )


def _product(s: Scene, x_as: Rounding, w_as: Rounding, y_as: Rounding, sums: Rounding | None) -> Array:
    """x W^T with each rounded; sums: so is every partial sum, in the order of the input."""
    if s.local == LOGITS:
        x, weight, bias = x_as(s[NORM]), w_as(s.weights.lm_head), None
    else:
        m = MATRICES[s.local]
        x, weight, bias = x_as(s[m.reads]), w_as(getattr(s.w, m.weight)), getattr(s.w, m.bias)
    if sums is None:
        y = x @ weight.T
    else:
        y = np.zeros((*x.shape[:-1], len(weight)))
        for j in range(x.shape[-1]):
            y = sums(y + x[..., j, None] * weight[:, j])
    y = y_as(y if bias is None else y + bias)
    return split_heads(y, s.config.head_dim) if s.local in HEADED else y


def _of_the_whole(case: Case) -> Iterator[Hypothesis]:
    """The right numbers, but multiplied, shifted by a token, of another layer or of another step."""
    local, theirs = case.target.local, case.theirs
    ours = case.honest.value(case.target)
    yield Hypothesis("any.zeros", f"{local} is all zeros", {local: partial(multiplied, by=0)})
    if ours.shape != theirs.shape:
        return
    factor = float(np.sum(ours * theirs) / np.sum(ours * ours)) if ours.any() and np.isfinite(theirs).all() else 1.0
    yield Hypothesis("any.scale", f"{local} is multiplied by {factor:.6g}", {local: partial(multiplied, by=factor)})
    if dropped := _dropout(ours, theirs):
        kept, times = dropped
        said = f"dropout is on: some of {local} are zero, and all others multiplied by {times:.4g}"
        yield Hypothesis("any.dropout", said, {local: lambda s: np.where(kept, STEPS[local](s) * times, 0)})
    if local != "self_attn.scores":
        for by, said in ((1, "late"), (-1, "early")):
            yield Hypothesis("any.token", f"{local} is one token {said}", {local: partial(_shifted, by=by)})
    for other in LAYER:
        value = None if case.target.layer is None or other == local else case.beside(other)
        if value is None or value.shape != theirs.shape:
            continue
        cause, step = f"what is called {local} is {other}", partial(_another, local=other)
        if _comes_before(other, local):
            yield Hypothesis("any.other", cause, {local: step})
        elif _is_right_without(case, other, value):
            yield Hypothesis("any.other", f"{cause}, which is right: it is written too late", {local: step})


def _dropout(ours: Array, theirs: Array) -> tuple[Array, float] | None:
    """Which numbers are kept, and what these are multiplied by; None if it is nothing like 1 over their share."""
    kept = (theirs != 0) & (ours != 0)
    if not kept.any() or np.array_equal(kept, ours != 0):
        return None
    times = float(np.median(theirs[kept] / ours[kept]))
    share = float(kept.sum() / np.count_nonzero(ours))
    return (kept, times) if times > 1.01 and abs(1 / times - share) < 0.1 else None  # the share is a matter of chance


def _rounded(s: Scene, to: Rounding) -> Array:
    return to(STEPS[s.local](s))


def _shifted(s: Scene, by: int) -> Array:
    return np.roll(STEPS[s.local](s), by, axis=-2)


def _another(s: Scene, local: str) -> Array:
    return s[local]


def _comes_before(first: str, second: str) -> bool:
    order = list(LAYER)
    return order.index(first) < order.index(second)


def _is_right_without(case: Case, later: str, theirs: Array) -> bool:
    """Whether a later tensor of theirs follows from what the target should be, and not from what it is said to be."""
    where = case.target._replace(local=later)
    known = {name: array for name, array in case.known.items() if name not in (where.name, case.target.name)}
    made = replace(case, known=known, target=where).honest.value(where)
    return not (excess(made, theirs, TOLERANCES["f32"]) > 1).any()


def kept_in(case: Case, error: float) -> str | None:
    """The format that sums of theirs are kept in: all of them have it, and something they are made of has not; nor is
    the error, a root mean square in units of their size, more than rounding makes. None if there is none.

    Each of n partial sums, no larger than the last but for chance, is rounded by a unit at most, and as these go
    either way they come to sqrt(n) units (Higham 2002, section 2.8).
    """
    for name, unit, fits in (("bfloat16", 2.0**-8, is_bfloat16), ("float16", 2.0**-11, _is_float16)):
        if fits(case.theirs) and not all(map(fits, case.honest.taken)):
            return name if error <= math.sqrt(_terms(case)) * unit else None
    return None


def _is_float16(x: Array) -> bool:
    return np.array_equal(f16(x), x)


def _terms(case: Case) -> int:
    """Of how many terms each number of the target is a sum."""
    local = case.target.local
    if local in MATRICES:
        return int(getattr(case.weights.layers[case.target.layer or 0], MATRICES[local].weight).shape[1])
    if local in ("self_attn.probs", "self_attn.context"):
        return sum(ids.shape[1] for ids in case.ids[: case.target.step + 1])
    if local in (LOGITS, *NORMS):
        return case.config.hidden_size
    return case.config.head_dim if local == "self_attn.scores" else 2
