"""The exercises of chapter 5, attention."""

import math

import numpy as np
from checks import Exercise

from minillama.model.ops import softmax

_random = np.random.default_rng(5)
_T, _S, _K, _W = 3, 5, 4, 6
_Q = _random.normal(0, 2, (_T, _K))
_KEYS = _random.normal(0.3, 1.5, (_S, _K))
_V = _random.normal(-0.5, 2, (_S, _W))


def causal(T, S):
    return np.arange(S) <= np.arange(S - T, S)[:, None]


_SEEN = causal(_T, _S) & (np.arange(_S) != 1)  # one key is padding
# A square case, where a transposed table does not stand out by its shape
_SQUARE = (_random.normal(0, 2, (4, 4)), _random.normal(0, 1, (4, 4)), _random.normal(0, 1, (4, 4)), causal(4, 4))


def attend(q, k, v, visible, scale=None, hidden=-np.inf):
    scores = q @ k.T / (math.sqrt(q.shape[-1]) if scale is None else scale)
    return softmax(np.where(visible, scores, hidden)) @ v


def _over_queries(q, k, v, visible):
    scores = np.where(visible, q @ k.T / math.sqrt(q.shape[-1]), -np.inf)
    return softmax(scores.T).T @ v


def _scale_last(q, k, v, visible):
    return attend(q, k, v, visible, 1) / math.sqrt(q.shape[-1])


def _mask_last(q, k, v, visible):
    return np.where(visible, softmax(q @ k.T / math.sqrt(q.shape[-1])), 0) @ v


def safe_softmax(scores):
    return softmax(np.asarray(scores, float))


def _plain(scores):
    with np.errstate(all="ignore"):
        e = np.exp(scores)
        return e / e.sum(-1, keepdims=True)


def _shifted(scores):
    with np.errstate(all="ignore"):
        e = np.exp(scores - scores.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)


def _uniform(scores):
    return _shifted(np.maximum(scores, np.finfo(float).min))


def _all_rows_one_top(scores):
    top = scores.max()
    e = np.exp(scores - (0 if np.isneginf(top) else top))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def _whole_sum(scores):
    top = scores.max(-1, keepdims=True)
    e = np.exp(scores - np.where(np.isneginf(top), 0, top))
    return e / max(e.sum(), 1e-300)


def _with_epsilon(scores):
    top = scores.max(-1, keepdims=True)
    e = np.exp(scores - np.where(np.isneginf(top), 0, top))
    return e / (e.sum(-1, keepdims=True) + 1e-6)


def _overflow_only(scores):
    with np.errstate(all="ignore"):
        e = np.exp(scores)
        total = e.sum(-1, keepdims=True)
        return e / np.where(total == 0, 1, total)


_FAR = np.array([[900.0, 899.0, -np.inf, 897.5], [-1200.0, -1201.5, -1199.0, -np.inf]])
_HALF = np.array([[-np.inf] * 3, [0.5, -np.inf, 1.5], [2.0, -1.0, 0.25]])

EXERCISES = {
    "5.1": Exercise(
        name="causal",
        right=causal,
        cases=[(3, 3), (2, 5), (1, 4), (4, 4)],
        mistakes={
            "the mask is shifted by one: a token sees the one after it": lambda T, S: (
                np.arange(S) <= np.arange(S - T, S)[:, None] + 1
            ),
            "the mask is shifted by one: a token does not see itself": lambda T, S: (
                np.arange(S) < np.arange(S - T, S)[:, None]
            ),
            "the queries are the last T tokens, and you count them from the first": lambda T, S: (
                np.arange(S) <= np.arange(T)[:, None]
            ),
            "it is the wrong way round: True is what may be seen": lambda T, S: ~causal(T, S),
            "that is the upper triangle: tokens see what follows them": lambda T, S: (
                np.arange(S) >= np.arange(S - T, S)[:, None]
            ),
            "that is (S, T): queries are the rows, keys the columns": lambda T, S: causal(T, S).T,
            "every key may be seen: what follows a token must not": lambda T, S: np.ones((T, S), bool),
            "you hand over scores, 0 and -inf: booleans are wanted": lambda T, S: np.where(causal(T, S), 0, -np.inf),
        },
    ),
    "5.2": Exercise(
        name="attention",
        right=attend,
        cases=[(_Q, _KEYS, _V, _SEEN), _SQUARE],
        mistakes={
            "the scores are not divided by the square root of K": lambda q, k, v, seen: attend(q, k, v, seen, 1),
            "the scores are divided by K: its square root is wanted": lambda q, k, v, seen: attend(
                q, k, v, seen, q.shape[-1]
            ),
            "the scores are divided by the square root of the number of keys; K is the width of a key": (
                lambda q, k, v, seen: attend(q, k, v, seen, math.sqrt(len(k)))
            ),
            "the scores are multiplied by the square root of K, not divided": lambda q, k, v, seen: attend(
                q, k, v, seen, 1 / math.sqrt(q.shape[-1])
            ),
            "the scale comes after the softmax, where it shrinks the weights: divide the scores": _scale_last,
            "the scores are divided by the square root of the number of queries; K is the width of a query": (
                lambda q, k, v, seen: attend(q, k, v, seen, math.sqrt(len(q)))
            ),
            "the scores are divided by the square root of the width of the values; K is the width of a key": (
                lambda q, k, v, seen: attend(q, k, v, seen, math.sqrt(v.shape[-1]))
            ),
            "use the visible you are given: it need not be the causal mask, keys may be padding": (
                lambda q, k, v, seen: attend(q, k, v, causal(len(q), len(k)))
            ),
            "the mask is missing": lambda q, k, v, seen: attend(q, k, v, np.ones_like(seen)),
            "hidden keys get a score of 0, and exp(0) is 1: give them -inf": lambda q, k, v, seen: attend(
                q, k, v, seen, hidden=0
            ),
            "the mask is the wrong way round: True is what may be seen": lambda q, k, v, seen: attend(q, k, v, ~seen),
            "the mask comes after the softmax, so the weights no longer sum to 1": _mask_last,
            "the softmax runs over the queries: each query's weights over its keys sum to 1": _over_queries,
            "that is the weights: they are still to be multiplied with v": lambda q, k, v, seen: softmax(
                np.where(seen, q @ k.T / math.sqrt(q.shape[-1]), -np.inf)
            ),
            "the softmax is missing": lambda q, k, v, seen: np.where(seen, q @ k.T / math.sqrt(q.shape[-1]), 0) @ v,
        },
    ),
    "5.3": Exercise(
        name="safe_softmax",
        right=safe_softmax,
        cases=[(_FAR,), (_HALF,), (_HALF[2],)],
        mistakes={
            "exp overflows, or all of it vanishes: subtract the largest score of the row first": _plain,
            "a row of -inf gives NaN: -inf minus -inf is not a number": _shifted,
            "a row of -inf gives equal weights: zeros are wanted, there is nothing to look at": _uniform,
            "you subtract the largest score of all rows: where a row is far below it, all its weights vanish": (
                _all_rows_one_top
            ),
            "you divide by the sum of all rows: each row sums to 1 by itself": _whole_sum,
            "something small is added to the sum, and now no row sums to 1": _with_epsilon,
            "a sum of 0 is taken care of, and scores of 900 still overflow: subtract the largest first": _overflow_only,
        },
    ),
    "5.4": Exercise(
        name="growth",
        right=(4, 2),
        mistakes={
            "the table has a row for each query and a column for each key, and both double": (2, 2),
            "there is one key a token: keys grow with the length, not with its square": (4, 4),
            "the scores come first, then the keys": (2, 4),
            "the keys do grow: there is one for each token": (4, 1),
            "it is two axes that double, not three": (8, 2),
        },
    ),
}
