"""Keys and values that are looked for where they are not: strides of a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.steps import Scene
from minillama.model.attention import grouped_context, grouped_scores, merge_heads

SCORES, PROBS, CONTEXT = "self_attn.scores", "self_attn.probs", "self_attn.context"
# Which of the rows of K numbers, G a token, query head h reads of token t instead of G t + h // (H/G): by h (H, 1),
# t (S,), H, G and S
Rows: TypeAlias = Callable[[Array, Array, int, int, int], Array]
STRIDES: dict[str, tuple[str, Rows]] = {
    "attention.groups_undivided": (
        "query head h reads at h K of a token's keys and values, not at h // (H/G) K",
        lambda h, t, H, G, S: G * t + h,
    ),
    "attention.stride_width": (
        "keys and values of token t are read at t H K, not at t G K",
        lambda h, t, H, G, S: H * t + h // (H // G),
    ),
    "attention.stride_head": (
        "keys and values of token t are read at t K, not at t G K",
        lambda h, t, H, G, S: t + h // (H // G),
    ),
    "attention.heads_first": (
        "keys and values are read as (G, S, K), and are (S, G, K)",
        lambda h, t, H, G, S: S * (h // (H // G)) + t,
    ),
}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    for key, (cause, rows) in STRIDES.items():
        for said, filled in (("", True), (", where later tokens are not filled in yet", False)):
            dots, average = partial(_scores, rows=rows, filled=filled), partial(_context, rows=rows, filled=filled)
            yield Hypothesis(key, f"{cause}{said}", {SCORES: dots, CONTEXT: average})
            yield Hypothesis(key, f"of keys only: {cause}{said}", {SCORES: dots})
            yield Hypothesis(key, f"of values only: {cause}{said}", {CONTEXT: average})
    woven = "keys and values of a token are read as (K, G), and are (G, K)"
    yield Hypothesis("attention.stride_woven", woven, {SCORES: _woven_scores, CONTEXT: _woven_context})
    yield Hypothesis("attention.stride_woven", f"of keys only: {woven}", {SCORES: _woven_scores})
    yield Hypothesis("attention.stride_woven", f"of values only: {woven}", {CONTEXT: _woven_context})


def _scores(s: Scene, rows: Rows, filled: bool) -> Array:
    keys, there = _read(s, "self_attn.k_rope", rows, s["self_attn.q_rope"].shape[2])
    dots = s["self_attn.q_rope"] @ keys.swapaxes(2, 3) / np.sqrt(s.config.head_dim)
    return np.where(there | filled, dots, 0)


def _context(s: Scene, rows: Rows, filled: bool) -> Array:
    values, there = _read(s, "self_attn.v_proj", rows, s[PROBS].shape[2])
    return merge_heads(np.where(there | filled, s[PROBS], 0) @ values)


def _read(s: Scene, local: str, rows: Rows, T: int) -> tuple[Array, Array]:
    """What each query head reads (B, H, S, K), which is zeros behind the last token; and (H, T, S), whether it is of
    tokens up to the query's own."""
    x = s.keys(local)
    B, G, S, K = x.shape
    H = s.config.num_attention_heads
    at = rows(np.arange(H)[:, None], np.arange(S), H, G, S)  # (H, S)
    flat = np.concatenate((x.swapaxes(1, 2).reshape(B, S * G, K), np.zeros((B, at.max() + 1, K))), axis=1)
    return flat[:, at], at[:, None] < (np.arange(S - T, S)[:, None] + 1) * G


def _woven(x: Array) -> Array:
    """(B, G, S, K), each token's numbers taken as (K, G)."""
    B, G, S, K = x.shape
    return x.swapaxes(1, 2).reshape(B, S, K, G).transpose(0, 3, 1, 2)


def _woven_scores(s: Scene) -> Array:
    return np.asarray(
        grouped_scores(s["self_attn.q_rope"], _woven(s.keys("self_attn.k_rope"))) / s.config.head_dim**0.5
    )


def _woven_context(s: Scene) -> Array:
    return merge_heads(grouped_context(s[PROBS], _woven(s.keys("self_attn.v_proj"))))
