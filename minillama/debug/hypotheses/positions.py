"""Rotary positions that are not those of the tokens: read off how far each pair has turned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.hypotheses.rope import K_, Q, both, frequencies, scale, turned
from minillama.debug.steps import Scene

SLOWEST = 2e-5  # radians a position: a pair that turns once in 314,000, and whose angle float32 still tells apart


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    if case.config.rope_type in ("dynamic", "longrope"):
        return  # frequencies are each token's own
    step = case.target.step
    if case.target.local in (Q, K_):
        fitted = fitted_positions(case)
        if fitted is not None:
            yield from _at(fitted, said(fitted, _own(case, fitted), step), case)
        return
    for by, word in ((1, "high"), (-1, "low")):
        cause = f"positions are one too {word}" if step else f"positions begin at {by}"
        yield from both("rope.positions", cause, lambda s, x, by=by: _turned(s, x, s.positions + by))  # type: ignore[misc]


def fitted_positions(case: Case) -> Array | None:
    """The position (T,) by which each token of theirs is turned; None if they are right, or it is none."""
    before = case.honest.value(case.target._replace(local=case.target.local.replace("_rope", "_proj")))
    if before.shape != case.theirs.shape or not np.isfinite(case.theirs).all():
        return None
    (a, b), (c, d) = (np.split(x, 2, axis=-1) for x in (before, case.theirs))
    angles = np.median(np.arctan2(a * d - b * c, a * c + b * d), axis=(0, 1))  # (T, K/2)
    inv_freq = frequencies(case.config)
    turning = np.flatnonzero(inv_freq >= SLOWEST)
    if not len(turning):
        return None
    pair = int(turning[inv_freq[turning].argmin()])
    fitted = np.rint(angles[:, pair] / inv_freq[pair]).astype(np.int64)
    return None if np.array_equal(fitted, _own(case, fitted)) else fitted


def said(fitted: Array, own: Array, step: int) -> str:
    """Positions in words."""
    by = fitted - own
    t = int(np.flatnonzero(by)[0])
    if (by == by[0]).all() and not step:
        return f"positions begin at {fitted[0]} and not {own[0]}"
    if (by == by[0]).all():
        size = "one" if abs(by[0]) == 1 else abs(by[0])
        return f"positions are {size} too {'high' if by[0] > 0 else 'low'}: {fitted[0]} and not {own[0]}"
    others = f", and {np.count_nonzero(by) - 1} more have others" if np.count_nonzero(by) > 1 else ""
    return f"token {t} has position {fitted[t]} and not {own[t]}{others}"


def _at(fitted: Array, cause: str, case: Case) -> Iterator[Hypothesis]:
    step = case.target.step

    def turn(s: Scene, x: Array) -> Array:
        return _turned(s, x, np.broadcast_to(fitted, s.positions.shape) if step == case.target.step else s.positions)

    same = len(set((fitted - _own(case, fitted)).tolist())) == 1
    yield from both("rope.positions" if same else "any.positions", cause, turn)


def _turned(s: Scene, x: Array, positions: Array) -> Array:
    return turned(x, positions, frequencies(s.config)) * scale(s.config)


def _own(case: Case, fitted: Array) -> Array:
    past = sum(ids.shape[1] for ids in case.ids[: case.target.step])
    return np.arange(past, past + len(fitted))
