"""What must hold of rope(x, positions, theta, scaling)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.messages import shown
from minillama.model.rope import Rotary, rotate
from minillama.testing.base import Case, Implementation, Properties, Variants, agree, as_floats
from minillama.testing.levels import FLOAT32, Level
from minillama.testing.strategies import SEEDS, rotary_settings, spiky

rope = Properties("rope")
LAYOUTS = ("halves", "interleaved")


def cases(*kinds: str, far: int = 64, ragged: bool = False) -> Callable[[Level], st.SearchStrategy[Case]]:
    """kinds of scaling; positions below `far`; ragged: whether each row of the batch has positions of its own."""

    @st.composite
    def draw_case(draw: st.DrawFn, level: Level) -> Case:
        B, heads, T = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
        K = draw(st.sampled_from([4, 6, 8, 2]))
        if ragged:
            rows = draw(st.lists(st.integers(0, far - 1), min_size=B * T, max_size=B * T))
            positions = np.array(rows).reshape(B, T)
        else:
            positions = np.broadcast_to(draw(st.integers(0, far - T)) + np.arange(T), (B, T)).copy()
        x = level.rounded(spiky(draw(SEEDS), B, heads, T, K))
        return {"x": x, "positions": positions} | draw(rotary_settings(K, kinds or ("default",)))

    return draw_case


def call(fn: Implementation, case: Case) -> Any:
    return fn["rope"](case["x"], case["positions"], case["theta"], case["scaling"])


def rotary(case: Case) -> Rotary:
    head: dict[str, Any] = {"hidden_size": case["x"].shape[-1], "num_attention_heads": 1}
    return Rotary(LlamaConfig(**head, rope_theta=case["theta"], rope_scaling=case["scaling"]))


def turned(case: Case, layout: str, positions: Array | None = None, inv_freq: Array | None = None) -> Array:
    """The right numbers, in float64; or those for other positions or frequencies."""
    r, positions = rotary(case), case["positions"] if positions is None else positions
    inv_freq = r.inv_freq(positions, 1) if inv_freq is None else inv_freq
    return in_layout(lambda x: rotate(x, *r.angles(positions, inv_freq, np.float64)), case["x"], layout)


def in_layout(turn: Callable[[Array], Array], x: Array, layout: str) -> Array:
    """A function of duplicated halves, done to pairs in another layout."""
    x = x.astype(np.float64)
    if layout == "halves":
        return turn(x)
    halves = turn(np.concatenate((x[..., ::2], x[..., 1::2]), axis=-1))
    return np.stack(np.split(halves, 2, axis=-1), axis=-1).reshape(x.shape)


def lengths(x: Array, layout: str) -> Array:
    """The length of the pair that each number belongs to."""

    def of_halves(x: Array) -> Array:
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate((np.hypot(a, b),) * 2, axis=-1)

    return in_layout(of_halves, x, layout)


def allowed(case: Case, layout: str, level: Level) -> Array:
    """cos and sin are rounded, each product and their sum. Beside that, most programs form angles in float32:
    frequencies are off by some roundings of a power, and their product with the position by one more, which turns a
    pair by that part of its angle."""
    r = rotary(case)
    angles = case["positions"][..., None] * r.inv_freq(case["positions"], 1)  # (B, T, K/2)
    pairs = np.concatenate((angles, angles), axis=-1) if layout == "halves" else np.repeat(angles, 2, axis=-1)
    size = lengths(case["x"], layout) * r.scale
    return level.allowed(size, roundings=4) + 6 * FLOAT32 * pairs[:, None] * size


def mistakes(case: Case, layout: str) -> Variants:
    positions, K, theta, scaling = case["positions"], case["x"].shape[-1], case["theta"], case["scaling"]
    steps = np.arange(positions.shape[1])
    other = next(name for name in LAYOUTS if name != layout)
    variants: dict[str, Callable[[], Array]] = {
        f"the rotary layout is {other}": partial(turned, case, other),
        "pairs turn the other way": partial(turned, case, layout, -positions),
        "positions are counted from 1": partial(turned, case, layout, positions + 1),
        "all rows have the positions of the first": partial(turned, case, layout, positions[:1] + 0 * positions),
        "the positions given are ignored": partial(turned, case, layout, steps + 0 * positions),
        "the exponent is j/K and not 2j/K": partial(turned, case, layout, None, theta ** -(np.arange(K // 2) / K)),
        "nothing is turned": partial(turned, case, layout, 0 * positions),
    }
    for often in (10000.0, 500000.0, 1000000.0):
        if often != theta:
            variants[f"theta is {often:g}"] = partial(turned, case | {"theta": often}, layout)
    if scaling is not None:
        plain, factor = theta ** -(np.arange(0, K, 2) / K), scaling["factor"]
        variants |= {
            "scaling is left out": partial(turned, case | {"scaling": None}, layout),
            "all frequencies are divided by the factor": partial(turned, case, layout, None, plain / factor),
            "all frequencies are multiplied by the factor": partial(turned, case, layout, None, plain * factor),
            "cos and sin are not multiplied": lambda: turned(case, layout) / rotary(case).scale,
        }
    return variants


def layout_of(fn: Implementation) -> str:
    """Which components are a pair. ValueError for a layout that nobody knows."""
    layout = fn.get("layout", "halves")
    if layout not in LAYOUTS:
        raise ValueError(f"layout {shown(layout)} is unknown: use one of {', '.join(LAYOUTS)}")
    return str(layout)


@rope("every pair turns by its position times theta^(-2j/K)", cases())
def exact(fn: Implementation, case: Case, level: Level) -> None:
    layout = layout_of(fn)
    wanted = turned(case, layout)
    agree(call(fn, case), wanted, allowed(case, layout, level), variants=mistakes(case, layout))


@rope("position 0 turns nothing", cases())
def zero(fn: Implementation, case: Case, level: Level) -> None:
    case["positions"][:] = 0
    exact(fn, case, level)


@rope("a rotation keeps the length of every pair", cases())
def norms(fn: Implementation, case: Case, level: Level) -> None:
    layout = layout_of(fn)
    given = as_floats(call(fn, case), case["x"].shape, "the result")
    agree(
        lengths(given, layout),
        lengths(case["x"], layout),
        allowed(case, layout, level),
        "the length of the pair of component ",
    )


@rope("the dot product of a query and a key depends on the distance of their positions only", cases(far=1024))
def relative(fn: Implementation, case: Case, level: Level) -> None:
    layout = layout_of(fn)
    near = case | {"positions": case["positions"] - case["positions"].min(axis=1, keepdims=True)}
    dots, slack = [], []
    for each in (near, case):
        given = as_floats(call(fn, each), case["x"].shape, "the result")
        dots.append(given[:, :, :1] @ given.swapaxes(2, 3))  # of the first position with all
        off = allowed(each, layout, level)
        sizes = lengths(case["x"], layout)
        slack.append(off[:, :, :1] @ sizes.swapaxes(2, 3) + sizes[:, :, :1] @ off.swapaxes(2, 3))
    agree(dots[1], dots[0], slack[0] + slack[1], "the dot product")


@rope("each row of a batch has positions of its own, in any order", cases(ragged=True))
def ragged(fn: Implementation, case: Case, level: Level) -> None:
    exact(fn, case, level)


@rope(
    "angles are formed in float32 at least: positions in the hundred thousands still turn as they must",
    cases(far=2**17),
)
def far(fn: Implementation, case: Case, level: Level) -> None:
    exact(fn, case, level)


@rope("with linear scaling, positions are divided by the factor", cases("linear"))
def linear(fn: Implementation, case: Case, level: Level) -> None:
    exact(fn, case, level)


@rope(
    "with llama3 scaling, slow pairs are divided by the factor, fast ones are not, between the two blend",
    cases("llama3"),
)
def llama3(fn: Implementation, case: Case, level: Level) -> None:
    exact(fn, case, level)


@rope("with yarn scaling, frequencies blend by the index of the pair, and cos and sin are multiplied", cases("yarn"))
def yarn(fn: Implementation, case: Case, level: Level) -> None:
    exact(fn, case, level)
