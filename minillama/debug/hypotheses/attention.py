"""Scores, mask, softmax, and which keys and values a query head reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis, table
from minillama.debug.hypotheses.rope import turned_in_place
from minillama.debug.steps import How, Scene, masked, scores
from minillama.model.attention import grouped_context, merge_heads
from minillama.model.ops import softmax

SCORES, PROBS, CONTEXT = "self_attn.scores", "self_attn.probs", "self_attn.context"
LOW = -1e9  # what many take for -infinity
Group: TypeAlias = Callable[[int, int, int], int]  # query head h of H over G -> its key/value head

# Which key/value head each query head reads instead of h // (H / G)
GROUPS: dict[str, tuple[str, Group]] = {
    "attention.groups": ("query head h reads key/value head h % G, and not h // (H/G)", lambda h, H, G: h % G),
    "attention.groups_first": ("every query head reads the first key/value head", lambda h, H, G: 0),
    "attention.groups_clipped": ("query head h reads head min(h, G - 1)", lambda h, H, G: min(h, G - 1)),
    "attention.groups_swapped": ("H and G are exchanged: head h reads h // G", lambda h, H, G: min(h // G, G - 1)),
    "attention.groups_reverse": ("groups are in reverse order", lambda h, H, G: G - 1 - h // (H // G)),
}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    c = case.config
    K, D, H = c.head_dim, c.hidden_size, c.num_attention_heads
    root = math.sqrt(K)
    for factor, cause in (
        (root, "the scale 1/sqrt(K) is missing"),
        (K, "scores are multiplied by sqrt(K), not divided"),
        (1 / root, "scores are divided by K, not by its root"),
        (root / math.sqrt(D), "scores are divided by sqrt(D), not by sqrt(K)"),
        (root / math.sqrt(H), "scores are divided by sqrt(H), not by sqrt(K)"),
        (math.sqrt(2), "scores are divided by sqrt(K/2), not by sqrt(K)"),
        (root / math.log(2) / root, "scores are multiplied by log2(e) too many"),
    ):
        yield Hypothesis("attention.scale", cause, {SCORES: _times(factor)})
    for key, (cause, group) in GROUPS.items():
        yield Hypothesis(key, cause, {SCORES: _grouped_scores(group), CONTEXT: _grouped_context(group)})
        yield Hypothesis(key, f"of keys only: {cause}", {SCORES: _grouped_scores(group)})
        yield Hypothesis(key, f"of values only: {cause}", {CONTEXT: _grouped_context(group)})
    yield from table(SOFTMAX)
    yield from table(AVERAGES)
    for size in (2**n for n in range(2, 9)):
        yield Hypothesis(
            "attention.blocks",
            f"the softmax over blocks of {size} keys: what has been added up is not rescaled when the maximum grows",
            {CONTEXT: partial(_without_rescaling, size=size)},
        )
    for window in (2**n for n in range(1, 13)):
        yield Hypothesis(
            "attention.window", f"queries see {window} tokens only", {PROBS: partial(_in_window, size=window)}
        )


SOFTMAX: dict[str, tuple[str, dict[str, How]]] = {
    "attention.mask_ahead": (
        "the mask is one off: queries see the next token",
        {PROBS: lambda s: softmax(masked(s[SCORES], 1))},
    ),
    "attention.mask_behind": (
        "the mask is one off: queries do not see themselves",
        {PROBS: lambda s: softmax(masked(s[SCORES], -1))},
    ),
    "attention.mask_behind_mean": (
        "the mask is one off, and a query that sees nothing averages everything",
        {PROBS: lambda s: _mean_if_blind(masked(s[SCORES], -1))},
    ),
    "attention.mask_behind_nan": (
        "the mask is one off: queries do not see themselves, and the first sees nothing and has no number",
        {PROBS: lambda s: _nan_if_blind(masked(s[SCORES], -1))},
    ),
    "attention.mask_missing": ("there is no causal mask", {PROBS: lambda s: softmax(s[SCORES])}),
    "attention.mask_upper": (
        "the mask is transposed: queries see what comes after",
        {PROBS: lambda s: softmax(_upper(s[SCORES]))},
    ),
    "attention.mask_zero": (
        "masked scores are 0 before the softmax, not -infinity",
        {PROBS: lambda s: softmax(np.where(np.isneginf(masked(s[SCORES])), 0, s[SCORES]))},
    ),
    "attention.mask_late": (
        "the mask is applied after the softmax, and nothing is normalized again",
        {PROBS: lambda s: np.where(np.isneginf(masked(s[SCORES])), 0, softmax(s[SCORES]))},
    ),
    "attention.mask_multiplied": (
        "the mask of ones and zeros is added to the scores",
        {PROBS: lambda s: softmax(s[SCORES] + np.isfinite(masked(s[SCORES])))},
    ),
    "attention.softmax_axis": (
        "the softmax is over the queries, not the keys",
        {PROBS: lambda s: softmax(masked(s[SCORES]).swapaxes(2, 3)).swapaxes(2, 3)},
    ),
    "attention.softmax_heads": (
        "the softmax is over the heads",
        {PROBS: lambda s: softmax(s[SCORES].swapaxes(1, 3)).swapaxes(1, 3)},
    ),
    "attention.softmax_heads_masked": (
        "the softmax is over the heads, of which all have the same where the mask is",
        {PROBS: lambda s: softmax(np.maximum(masked(s[SCORES]), LOW).swapaxes(1, 3)).swapaxes(1, 3)},
    ),
    "attention.softmax_missing": (
        "there is no softmax",
        {PROBS: lambda s: np.where(np.isneginf(masked(s[SCORES])), 0, s[SCORES])},
    ),
    "attention.softmax_sum": (
        "exponentials are not divided by their sum",
        {PROBS: lambda s: np.exp(masked(s[SCORES]))},
    ),
    "attention.softmax_max": (
        "exponentials of scores less the largest are not divided by their sum",
        {PROBS: lambda s: np.exp(masked(s[SCORES]) - masked(s[SCORES]).max(axis=-1, keepdims=True))},
    ),
    "attention.softmax_short": (
        "the softmax is over the keys before the query: the score of its own stays as it is",
        {PROBS: lambda s: np.where(_own(s), s[SCORES], softmax(masked(s[SCORES], -1)))},
    ),
    "attention.softmax_sum_short": (
        "the query's own key is left out of the sum of exponentials",
        {PROBS: lambda s: _divided_by_others(masked(s[SCORES]), _own(s))},
    ),
    "attention.softmax_one": (
        "1 is added to the sum of exponentials",
        {PROBS: lambda s: _softmax_one(masked(s[SCORES]))},
    ),
    "attention.softmax_base": (
        "the softmax is of powers of 2",
        {PROBS: lambda s: softmax(masked(s[SCORES]) * math.log(2))},
    ),
    "attention.softmax_twice": (
        "the softmax is taken twice",
        {PROBS: lambda s: softmax(masked(softmax(masked(s[SCORES]))))},
    ),
    "attention.q_k_swapped": ("queries and keys are exchanged", {SCORES: lambda s: scores(s).swapaxes(2, 3)}),
    "attention.not_rotated": (
        "scores are those of queries and keys before rotation",
        {SCORES: lambda s: _dots(s["self_attn.q_proj"], s.keys("self_attn.k_proj"), s)},
    ),
    "attention.k_not_rotated": (
        "scores are those of keys before rotation",
        {SCORES: lambda s: _dots(s["self_attn.q_rope"], s.keys("self_attn.k_proj"), s)},
    ),
}
AVERAGES: dict[str, tuple[str, dict[str, How]]] = {
    "attention.heads_not_merged": (
        "heads (B, H, T, K) are reshaped to (B, T, H K) without a transposition",
        {
            CONTEXT: lambda s: _context(s).reshape(
                len(s["self_attn.probs"]), -1, s.config.num_attention_heads * s.config.head_dim
            )
        },
    ),
    "attention.heads_woven": (
        "heads are merged as (K, H), not (H, K)",
        {CONTEXT: lambda s: _context(s).transpose(0, 2, 3, 1).reshape(merge_heads(_context(s)).shape)},
    ),
    "attention.values_are_keys": (
        "keys are averaged instead of values",
        {CONTEXT: lambda s: merge_heads(grouped_context(s["self_attn.probs"], s.keys("self_attn.k_rope")))},
    ),
    "attention.values_turned": (
        "values are rotated too, as queries and keys are",
        {
            CONTEXT: lambda s: merge_heads(
                grouped_context(s["self_attn.probs"], turned_in_place(s, s.keys("self_attn.v_proj")))
            )
        },
    ),
    "attention.probs_transposed": (
        "values are averaged with transposed probabilities",
        {
            CONTEXT: lambda s: merge_heads(
                grouped_context(s["self_attn.probs"].swapaxes(2, 3), s.keys("self_attn.v_proj"))
            )
        },
    ),
    "attention.scores_averaged": (
        "values are averaged with scores, not probabilities",
        {CONTEXT: lambda s: merge_heads(grouped_context(s[SCORES], s.keys("self_attn.v_proj")))},
    ),
    "attention.own_values": (
        "each query gets the value of its own token, as where an einsum has one letter for queries and keys",
        {CONTEXT: lambda s: merge_heads(grouped_context(_own(s) + 0.0, s.keys("self_attn.v_proj")))},
    ),
    "attention.values_late": (
        "values are one token off",
        {
            CONTEXT: lambda s: merge_heads(
                grouped_context(s["self_attn.probs"], np.roll(s.keys("self_attn.v_proj"), 1, axis=2))
            )
        },
    ),
}


def _without_rescaling(s: Scene, size: int) -> Array:
    """Dao et al. 2022, FlashAttention, without the factor exp(old maximum - new one) on what has been added up."""
    scores = masked(s[SCORES])
    H, G, S = scores.shape[1], s.config.num_key_value_heads, scores.shape[3]
    values = np.repeat(s.keys("self_attn.v_proj"), H // G, axis=1)
    top, total, out = np.full((*scores.shape[:3], 1), -np.inf), np.zeros(()), np.zeros(())
    for block in (slice(start, start + size) for start in range(0, S, size)):
        top = np.maximum(top, scores[..., block].max(axis=-1, keepdims=True))
        weights = np.exp(scores[..., block] - top)
        total, out = total + weights.sum(axis=-1, keepdims=True), out + weights @ values[:, :, block]
    return merge_heads(out / total)


def _times(factor: float) -> How:
    return lambda s: scores(s) * factor


def _repeated(x: Array, group: Group, s: Scene) -> Array:
    """(B, G, S, K) -> (B, H, S, K), what each query head reads."""
    H, G = s.config.num_attention_heads, s.config.num_key_value_heads
    return x[:, [group(h, H, G) for h in range(H)]]


def _grouped_scores(group: Group) -> How:
    return lambda s: _dots(s["self_attn.q_rope"], _repeated(s.keys("self_attn.k_rope"), group, s), s)


def _grouped_context(group: Group) -> How:
    return lambda s: merge_heads(s["self_attn.probs"] @ _repeated(s.keys("self_attn.v_proj"), group, s))


def _dots(q: Array, k: Array, s: Scene) -> Array:
    k = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
    return q @ k.swapaxes(2, 3) / math.sqrt(s.config.head_dim)


def _context(s: Scene) -> Array:
    return grouped_context(s["self_attn.probs"], s.keys("self_attn.v_proj"))  # (B, H, T, K)


def _upper(scores: Array) -> Array:
    T, S = scores.shape[2:]
    return np.where(np.tri(T, S, S - T - 1, dtype=bool), -np.inf, scores)


def _in_window(s: Scene, size: int) -> Array:
    T, S = s[SCORES].shape[2:]
    return softmax(np.where(np.tri(T, S, S - T - size, dtype=bool), -np.inf, masked(s[SCORES])))


def _mean_if_blind(scores: Array) -> Array:
    return softmax(np.where(np.isneginf(scores).all(axis=-1, keepdims=True), 0, scores))


def _nan_if_blind(scores: Array) -> Array:
    return np.asarray(np.where(np.isneginf(scores).all(axis=-1, keepdims=True), np.nan, softmax(scores)))


def _own(s: Scene) -> Array:
    """Where a query (B, H, T, S) meets the key of its own token."""
    T, S = s[SCORES].shape[2:]
    return np.broadcast_to(np.eye(T, S, S - T, dtype=bool), s[SCORES].shape)


def _divided_by_others(scores: Array, own: Array) -> Array:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / np.sum(weights, axis=-1, keepdims=True, where=~own))


def _softmax_one(scores: Array) -> Array:
    weights = np.exp(scores)
    return np.asarray(weights / (1 + weights.sum(axis=-1, keepdims=True)))
