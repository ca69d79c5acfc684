"""A prompt that is taken token by token, as C ports do: what each token finds in the cache of those before it.

Decode steps of a trace are in cache.py; here all tokens are of one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.steps import Scene
from minillama.model.attention import grouped_context, grouped_scores, merge_heads

SCORES, PROBS, CONTEXT = "self_attn.scores", "self_attn.probs", "self_attn.context"


class Found(NamedTuple):
    """Whose key a query at p finds where that of token t should be, each (T, T): the layer's and the token's number.
    A token before the first is none, and there are zeros."""

    layer: Array
    token: Array


Finds: TypeAlias = Callable[[Array, Array, int, int], Found]  # of p (T, 1), t (T,), this layer, and how many there are
CACHES: dict[str, tuple[str, Finds]] = {
    "cache.early": (
        "keys and values are written one place too early",
        lambda p, t, n, L: Found(n + 0 * (p + t), np.where(t < p, t + 1, -1)),
    ),
    "cache.late": (
        "keys and values are written one place too late",
        lambda p, t, n, L: Found(n + 0 * (p + t), t - 1 + 0 * p),
    ),
    "cache.unwritten": (
        "the key and value of a token are not in the cache yet when it is read: zeros are in their place",
        lambda p, t, n, L: Found(n + 0 * (p + t), np.where(t < p, t, -1)),
    ),
    "cache.shared": (
        "all layers write into one cache",
        lambda p, t, n, L: Found(np.where(t < p, L - 1, n), t + 0 * p),
    ),
    "cache.layer_stride": (
        "the cache of layer n begins at n G K, and not behind all tokens of the layer before",
        lambda p, t, n, L: Found(n + t - np.minimum(p, n + t), np.minimum(p, n + t)),
    ),
}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    if case.target.step or case.target.local not in (SCORES, PROBS, CONTEXT):
        return
    for key, (cause, finds) in CACHES.items():
        dots, average = partial(_scores, finds=finds, case=case), partial(_context, finds=finds, case=case)
        yield Hypothesis(key, cause, {SCORES: dots, CONTEXT: average})
        yield Hypothesis(key, f"of keys only: {cause}", {SCORES: dots})
        yield Hypothesis(key, f"of values only: {cause}", {CONTEXT: average})


def _scores(s: Scene, finds: Finds, case: Case) -> Array:
    q, dots = s["self_attn.q_rope"], np.zeros(())
    for keys, of, there in _found(s, "self_attn.k_rope", finds, case):
        all_dots = grouped_scores(q, keys) / np.sqrt(s.config.head_dim)
        dots = dots + np.where(there, np.take_along_axis(all_dots, np.broadcast_to(of, all_dots.shape), axis=-1), 0)
    return np.asarray(dots)


def _context(s: Scene, finds: Finds, case: Case) -> Array:
    probs, context = s[PROBS], np.zeros(())
    for values, of, there in _found(s, "self_attn.v_proj", finds, case):
        moved, (p, t) = np.zeros_like(probs), np.nonzero(there)
        moved[:, :, p, of[p, t]] = probs[:, :, p, t]  # no two are of the same token
        context = context + grouped_context(moved, values)
    return merge_heads(np.asarray(context))


def _found(s: Scene, local: str, finds: Finds, case: Case) -> Iterator[tuple[Array, Array, Array]]:
    """The keys or values of each layer that are found, which token's (T, T), and where. A layer whose own are not known
    is an error: it cannot be tried."""
    T = s.ids.shape[1]
    p, t = np.arange(T)[:, None], np.arange(T)
    layer, token = finds(p, t, s.layer, s.config.num_hidden_layers)
    there = (t <= p) & (token >= 0)
    for n in np.unique(layer[there]).tolist():
        name = case.target._replace(layer=n, local=local).name
        if n != s.layer and name not in case.known:
            raise ValueError(f"{name} is not known")
        known = s.keys(local) if n == s.layer else np.asarray(case.known[name], np.float64)
        yield known, np.where(there, token, 0), there & (layer == n)
