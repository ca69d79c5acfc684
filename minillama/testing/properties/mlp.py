"""What must hold of mlp(x, gate, up, down), SwiGLU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.layout import GROUP
from minillama.model.mlp import gelu, gelu_tanh, relu, sigmoid, silu
from minillama.testing.base import Case, Implementation, Properties, Variants, agree
from minillama.testing.levels import Level
from minillama.testing.strategies import SEEDS, spiky

mlp = Properties("mlp")


def cases(size: float = 1.0) -> Callable[[Level], st.SearchStrategy[Case]]:
    """size: of the gates."""

    @st.composite
    def draw_case(draw: st.DrawFn, level: Level) -> Case:
        B, T = draw(st.integers(1, 2)), draw(st.integers(1, 3))
        D, F = (draw(st.integers(*(1, 2) if level.step else (2, 9))) for _ in range(2))
        if level.step:
            D, F = D * GROUP, F * GROUP
        seed = draw(SEEDS)
        gate, up, down = (
            level.weight(spiky(seed + i, *shape) / np.sqrt(shape[1]) * (size if i == 1 else 1))
            for i, shape in ((1, (F, D)), (2, (F, D)), (3, (D, F)))
        )
        return {"x": level.rounded(spiky(seed, B, T, D)), "gate": gate, "up": up, "down": down}

    return draw_case


def call(fn: Implementation, case: Case) -> Array:
    given: Array = fn["mlp"](case["x"], case["gate"], case["up"], case["down"])
    return given


def with_activation(case: Case, act: Callable[[Array], Array]) -> Array:
    x, gate, up, down = (case[name].astype(np.float64) for name in ("x", "gate", "up", "down"))
    return np.asarray((act(x @ gate.T) * (x @ up.T)) @ down.T)


def allowed(case: Case, level: Level) -> Array:
    """Gates and the other branch are sums of D products, rounded; an activation passes errors on with a slope of 1.1 at
    most, and is rounded, as is its product; the result is a sum of F products, and rounded."""
    x, gate, up, down = (case[name].astype(np.float64) for name in ("x", "gate", "up", "down"))
    D, F = x.shape[-1], gate.shape[0]
    g, u = x @ gate.T, x @ up.T
    off_g, off_u = (
        level.allowed(np.abs(x) @ np.abs(w).T, roundings=1, terms=D) + steps(x, w, level) for w in (gate, up)
    )
    hidden = silu(g) * u
    off = 1.1 * off_g * (np.abs(u) + off_u) + np.abs(silu(g)) * off_u + level.allowed(hidden, roundings=2, terms=6)
    return (off + level.allowed(hidden, roundings=1, terms=F)) @ np.abs(down).T + steps(hidden, down, level)


def steps(x: Array, w: Array, level: Level) -> Array:
    """By how much x w^T may be off for rounding both to fewer bits."""
    return np.asarray(level.stepped(x) @ np.abs(w).T + (np.abs(x) + level.stepped(x)) @ level.stepped(w).T)


def mistakes(case: Case) -> Variants:
    swapped = case | {"gate": case["up"], "up": case["gate"]}
    return {
        "gate and up are exchanged": lambda: with_activation(swapped, silu),
        "the activation is gelu": lambda: with_activation(case, gelu),
        "the activation is gelu by tanh": lambda: with_activation(case, gelu_tanh),
        "the activation is relu": lambda: with_activation(case, relu),
        "the activation is a sigmoid": lambda: with_activation(case, sigmoid),
        "the activation is left out": lambda: with_activation(case, lambda x: x),
        "the other branch is left out": lambda: silu(case["x"] @ case["gate"].T) @ case["down"].T,
    }


def as_it_must(fn: Implementation, case: Case, level: Level) -> None:
    agree(call(fn, case), with_activation(case, silu), allowed(case, level), variants=mistakes(case))


@mlp("the result is down(silu(gate(x)) * up(x)), with weights as (out, in)", cases())
def exact(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@mlp("each token is computed by itself", cases())
def tokens(fn: Implementation, case: Case, level: Level) -> None:
    wanted, slack = with_activation(case, silu)[-1:, -1:], allowed(case, level)[-1:, -1:]
    agree(call(fn, case | {"x": case["x"][-1:, -1:]}), wanted, slack, "the last token alone: the result")


@mlp("gates in the hundreds do not overflow the exponential", cases(size=100.0))
def large(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)
