"""Decoding: what a token finds of those before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.hypotheses.rope import turned_in_place
from minillama.debug.steps import Scene
from minillama.model.attention import grouped_context, grouped_scores, merge_heads

Change: TypeAlias = Callable[[Array, int], Array]  # all keys or values (B, G, S, K), and how many are of before

# What is read instead of all keys and values
CACHES: dict[str, tuple[str, Change]] = {
    "cache.overwritten": (
        "the key of the token before is overwritten, and so is its value: the cache is filled one place too early",
        lambda x, past: np.delete(x, past - 1, axis=2),
    ),
    "cache.early": (
        "keys and values are written one place too early, and read as far as they should be",
        lambda x, past: np.concatenate((np.delete(x, past - 1, axis=2), 0 * x[:, :, :1]), axis=2),
    ),
    "cache.late": (
        "keys and values of this call are not in the cache yet: zeros are read in their place",
        lambda x, past: np.concatenate((x[:, :, :past], 0 * x[:, :, past:]), axis=2),
    ),
    "cache.without_itself": (
        "a token sees the cache and not itself",
        lambda x, past: x[:, :, :past],
    ),
    "cache.lost": ("the cache is empty: a token sees nothing before its own call", lambda x, past: x[:, :, past:]),
    "cache.first_lost": ("the first token is lost from the cache", lambda x, past: x[:, :, 1:]),
    "cache.order": (
        "the newest key stands first in the cache",
        lambda x, past: np.concatenate((x[:, :, past:], x[:, :, :past]), axis=2),
    ),
}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    if not case.target.step or case.config.rope_type in ("dynamic", "longrope"):
        return
    for key, (cause, change) in CACHES.items():
        keys, values = partial(_scores, change=change), partial(_context, change=change)
        yield Hypothesis(key, cause, {"self_attn.scores": keys, "self_attn.context": values})
        yield Hypothesis(key, f"of values only: {cause}", {"self_attn.context": values})
    yield Hypothesis("cache.turned_again", "cached keys are turned again in every call", {"self_attn.scores": _again})


def _dots(s: Scene, keys: Array) -> Array:
    return np.asarray(grouped_scores(s["self_attn.q_rope"], keys) / math.sqrt(s.config.head_dim))


def _scores(s: Scene, change: Change) -> Array:
    return _dots(s, change(s.keys("self_attn.k_rope"), s.past))


def _context(s: Scene, change: Change) -> Array:
    return merge_heads(grouped_context(s["self_attn.probs"], change(s.keys("self_attn.v_proj"), s.past)))


def _again(s: Scene) -> Array:
    keys = s.keys("self_attn.k_rope")
    old = turned_in_place(s, keys[:, :, : s.past])
    return _dots(s, np.concatenate((old, keys[:, :, s.past :]), axis=2))
