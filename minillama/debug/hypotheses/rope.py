"""Rotary positions: which components are a pair, which way each turns, and how the angles are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.hypotheses.norm import bf16, f16
from minillama.debug.steps import STEPS, How, Scene
from minillama.model.attention import merge_heads, split_heads
from minillama.model.rope import Rotary, rotate
from minillama.model.rope_scaling import inverse_frequencies

Turn: TypeAlias = Callable[[Array, Array, Array], Array]  # heads (B, heads, T, K), positions (B, T), inv_freq (K/2,)
Q, K_ = "self_attn.q_rope", "self_attn.k_rope"

# What is done to a head instead of turning each pair (j, j + K/2) by position * inv_freq[j]
TURNS: dict[str, tuple[str, Turn]] = {
    "rope.layout": (
        "neighbours are turned as pairs, (2j, 2j + 1), and not (j, j + K/2)",
        lambda x, p, f: _woven(turned(_unwoven(x), p, f)),
    ),
    "rope.layout_halves": (
        "halves are turned, in heads whose pairs are neighbours",
        lambda x, p, f: _unwoven(turned(_woven(x), p, f)),
    ),
    "rope.layout_read": (
        "pairs are read as neighbours and written as halves",
        lambda x, p, f: turned(_unwoven(x), p, f),
    ),
    "rope.direction": ("pairs turn the wrong way, by -position", lambda x, p, f: turned(x, -p, f)),
    "rope.missing": ("nothing is turned", lambda x, p, f: x),
    "rope.twice": ("everything is turned twice", lambda x, p, f: turned(turned(x, p, f), p, f)),
    "rope.positions_same": ("all tokens have position 0", lambda x, p, f: turned(x, 0 * p, f)),
    "rope.positions_reset": ("positions begin anew with every call", lambda x, p, f: turned(x, p - p[:, :1], f)),
    "rope.positions_reverse": ("positions are counted backwards", lambda x, p, f: turned(x, p[:, ::-1], f)),
    "rope.heads": ("the number of the head stands for the position", lambda x, p, f: _by_head(x, f)),
    "rope.sin_cos": ("sine and cosine are exchanged", lambda x, p, f: turned(x, p, f, lambda c, s: (s, c))),
    "rope.sign": ("both halves are added: a minus is missing", lambda x, p, f: _signed(x, p, f, 1, 1)),
    "rope.sign_both": ("both halves are subtracted", lambda x, p, f: _signed(x, p, f, -1, -1)),
    "rope.in_place": (
        "the second of a pair is turned with the first as it is turned already",
        lambda x, p, f: _over(x, p, f),
    ),
    "rope.half": ("only the first half of each head is turned", lambda x, p, f: _part(x, p, f, 2)),
    "rope.quarter": ("only the first quarter of each head is turned", lambda x, p, f: _part(x, p, f, 4)),
    "rope.exponent_runs_on": (
        "exponents go on from head to head, i/K with i of the whole width and not of the head",
        lambda x, p, f: _runs_on(x, p, f),
    ),
    "rope.frequency_order": ("frequencies are in reverse order", lambda x, p, f: turned(x, p, f[::-1])),
    "rope.frequencies_rounded": ("frequencies are rounded to bfloat16", lambda x, p, f: turned(x, p, bf16(f))),
    "rope.frequencies_rounded_f16": ("frequencies are rounded to float16", lambda x, p, f: turned(x, p, f16(f))),
    "rope.width": (
        "the whole width is turned as one head, before it is split into heads",
        lambda x, p, f: _whole(x, p, f, lambda y: y, lambda y: y),
    ),
    "rope.width_neighbours": (
        "neighbours of the whole width are turned, as of one head, before it is split into heads",
        lambda x, p, f: _whole(x, p, f, _unwoven, _woven),
    ),
    "rope.angles_woven": (
        "cos and sin have each frequency twice in a row, as for neighbours, where halves are turned",
        lambda x, p, f: _half_turned(x, p, np.repeat(f, 2)),
    ),
    "rope.angles_halved": (
        "cos and sin have all frequencies twice over, as for halves, where neighbours are turned",
        lambda x, p, f: _woven(_half_turned(_unwoven(x), p, _unwoven(np.concatenate((f, f))))),
    ),
}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    config = case.config
    if config.rope_type in ("dynamic", "longrope"):
        return  # frequencies are each token's own
    same = ("rope.missing", "rope.positions_same") if case.target.step else ()  # as positions that begin anew
    for key, (cause, turn) in TURNS.items():
        if key not in same:
            yield from both(key, cause, partial(by, turn=turn, config=config))
    for name, rounding in (("bfloat16", bf16), ("float16", f16)):
        for cause, how in (("angles are computed in", _rounded), ("cos and sin are rounded to", _rounded_after)):
            low = both("rope.low_precision", f"{cause} {name}", partial(how, to=rounding))
            yield from (hypothesis._replace(rounds=True) for hypothesis in low)
    for key, cause, power in powers(config):
        yield from both(key, cause, partial(_by_power, power=power))


def powers(config: LlamaConfig) -> list[tuple[str, str, float]]:
    """Other exponents of theta than 2j/K, as powers of the frequencies."""
    K = config.head_dim
    return [
        ("rope.exponent", "exponents are j/K and not 2j/K", 0.5),
        ("rope.exponent_double", "exponents are 4j/K and not 2j/K", 2),
        ("rope.exponent_zero", "exponents are 0, as where integers are divided", 0),
        ("rope.exponent_width", "exponents are 2j/D and not 2j/K", K / config.hidden_size),
        ("rope.exponent_ends_at_1", "exponents are 2j/(K - 2), which end at 1", K / max(K - 2, 1)),
    ]


def by(s: Scene, x: Array, config: LlamaConfig, turn: Turn | None = None) -> Array:
    return (turn or turned)(x, s.positions, frequencies(config)) * scale(config)


def turned(
    x: Array, positions: Array, inv_freq: Array, change: Callable[[Array, Array], tuple[Array, Array]] | None = None
) -> Array:
    """Heads (B, heads, T, K) turned by positions (B, T) * inv_freq (K/2,)."""
    angles = positions[..., None] * inv_freq
    cos, sin = np.cos(angles), np.sin(angles)
    return rotate(x, *(change(cos, sin) if change else (cos, sin)))


def frequencies(config: LlamaConfig) -> Array:
    return inverse_frequencies(config, np.asarray(1))


def scale(config: LlamaConfig) -> float:
    return float(Rotary(config).scale)


def turned_in_place(s: Scene, x: Array) -> Array:
    """Heads of the first tokens (B, heads, S, K), turned by their positions."""
    return turned(x, np.arange(x.shape[2])[None], frequencies(s.config)) * scale(s.config)


def both(key: str, cause: str, turn: Callable[[Scene, Array], Array]) -> Iterator[Hypothesis]:
    """A hypothesis about queries and keys, and about each alone."""
    q: How = lambda s: turn(s, s["self_attn.q_proj"])  # noqa: E731
    k: How = lambda s: turn(s, s["self_attn.k_proj"])  # noqa: E731
    yield Hypothesis(key, f"rope: {cause}", {Q: q, K_: k})
    yield Hypothesis(key, f"rope, of queries only: {cause}", {Q: q, K_: STEPS[K_]})
    yield Hypothesis(key, f"rope, of keys only: {cause}", {Q: STEPS[Q], K_: k})


def _unwoven(x: Array) -> Array:
    """(0, 1, 2, 3) -> (0, 2, 1, 3): neighbours as halves."""
    return np.concatenate((x[..., 0::2], x[..., 1::2]), axis=-1)


def _woven(x: Array) -> Array:
    """The inverse of _unwoven."""
    return np.stack(np.split(x, 2, axis=-1), axis=-1).reshape(x.shape)


def _signed(x: Array, positions: Array, inv_freq: Array, first: int, second: int) -> Array:
    angles = positions[:, None, :, None] * inv_freq
    a, b = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate((a * cos + first * b * sin, b * cos + second * a * sin), axis=-1)


def _runs_on(x: Array, positions: Array, inv_freq: Array) -> Array:
    heads = _base(x, inv_freq) ** -np.arange(x.shape[1], dtype=np.float64)
    angles = positions[:, None, :, None] * inv_freq * heads[:, None, None]
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), axis=-1)


def _over(x: Array, positions: Array, inv_freq: Array) -> Array:
    angles = positions[:, None, :, None] * inv_freq
    a, b = np.split(x, 2, axis=-1)
    a = a * np.cos(angles) - b * np.sin(angles)
    return np.concatenate((a, b * np.cos(angles) + a * np.sin(angles)), axis=-1)


def _by_head(x: Array, inv_freq: Array) -> Array:
    B, heads = x.shape[:2]
    return turned(x.swapaxes(1, 2), np.broadcast_to(np.arange(heads), (B, heads)), inv_freq).swapaxes(1, 2)


def _whole(x: Array, p: Array, f: Array, before: Callable[[Array], Array], after: Callable[[Array], Array]) -> Array:
    """All heads side by side, turned as one."""
    flat = before(merge_heads(x))
    inv_freq = _base(x, f) ** (-np.arange(0, flat.shape[-1], 2) / flat.shape[-1])
    return split_heads(after(turned(flat[:, None], p, inv_freq))[:, 0], x.shape[-1])


def _half_turned(x: Array, positions: Array, inv_freq: Array) -> Array:
    """x cos + rotate_half(x) sin, with a frequency (K,) for each component."""
    angles = positions[:, None, :, None] * inv_freq
    a, b = np.split(x, 2, axis=-1)
    return np.asarray(x * np.cos(angles) + np.concatenate((-b, a), axis=-1) * np.sin(angles))


def _base(x: Array, inv_freq: Array) -> float:
    """Theta, by the second pair."""
    slow = float(inv_freq[1]) if len(inv_freq) > 1 else 1.0
    return slow ** (-x.shape[-1] / 2) if slow > 0 else math.inf


def _part(x: Array, positions: Array, inv_freq: Array, parts: int) -> Array:
    """The first of so many parts of a head is turned, with frequencies of its own."""
    width = x.shape[-1] // parts // 2 * 2
    own = _base(x, inv_freq) ** (-np.arange(0, width, 2) / width)
    return np.concatenate((turned(x[..., :width], positions, own), x[..., width:]), axis=-1)


def _rounded(s: Scene, x: Array, to: Callable[[Array], Array]) -> Array:
    angles = to(to(s.positions[..., None]) * to(frequencies(s.config)))
    return rotate(x, np.cos(angles), np.sin(angles)) * scale(s.config)


def _rounded_after(s: Scene, x: Array, to: Callable[[Array], Array]) -> Array:
    angles = s.positions[..., None] * frequencies(s.config)
    return rotate(x, to(np.cos(angles)), to(np.sin(angles))) * scale(s.config)


def _by_power(s: Scene, x: Array, power: float) -> Array:
    return turned(x, s.positions, frequencies(s.config) ** power) * scale(s.config)
