"""The exercises of chapter 6, heads."""

import math

import numpy as np
from checks import Exercise

from minillama.model.ops import softmax

_random = np.random.default_rng(6)
_FLAT = _random.normal(0, 1, (2, 3, 8))
_WIDE = _random.normal(0, 1, (1, 4, 6))


def split(flat, heads):
    B, T, width = flat.shape
    return flat.reshape(B, T, heads, width // heads).swapaxes(1, 2)


def _arguments(B, H, G, T, S, K):
    visible = np.arange(S) <= np.arange(S - T, S)[:, None]
    q, k, v = (_random.normal(0, 1.5, (B, heads, length, K)) for heads, length in ((H, T), (G, S), (G, S)))
    return q, k, v, visible


_CASES = [_arguments(2, 6, 3, 4, 4, 8), _arguments(1, 4, 1, 2, 5, 4), _arguments(1, 2, 2, 3, 3, 4)]


def grouped_attention(q, k, v, visible, *, share=np.repeat, scale=None, mask=True):
    share_of = q.shape[1] // k.shape[1]
    k, v = (share(x, share_of, axis=1) for x in (k, v))
    scores = q @ k.swapaxes(2, 3) / (math.sqrt(q.shape[-1]) if scale is None else scale)
    return softmax(np.where(visible, scores, -np.inf) if mask else scores) @ v


def _tile(x, times, axis):
    return np.concatenate([x] * times, axis=axis)


def _tile_values(q, k, v, visible):
    share = q.shape[1] // k.shape[1]
    scores = q @ np.repeat(k, share, 1).swapaxes(2, 3) / math.sqrt(q.shape[-1])
    return softmax(np.where(visible, scores, -np.inf)) @ _tile(v, share, 1)


def _first_only(q, k, v, visible):
    return grouped_attention(q, k[:, :1], v[:, :1], visible)


def _all_at_once(q, k, v, visible):
    share = q.shape[1] // k.shape[1]
    scores = q @ np.repeat(k, share, 1).swapaxes(2, 3) / math.sqrt(q.shape[-1])
    scores = np.where(visible, scores, -np.inf)
    return softmax(scores.swapaxes(1, 3)).swapaxes(1, 3) @ np.repeat(v, share, 1)


def _averaged_groups(q, k, v, visible):
    k, v = (np.broadcast_to(x.mean(1, keepdims=True), (*x.shape[:1], q.shape[1], *x.shape[2:])) for x in (k, v))
    return grouped_attention(q, k, v, visible)


def _laid_out_wrongly(q, k, v, visible):
    right = grouped_attention(q, k, v, visible)
    B, H, T, K = right.shape
    return right.reshape(B, T, H, K).swapaxes(1, 2)


def _scores(q, k):
    return q @ np.repeat(k, q.shape[1] // k.shape[1], 1).swapaxes(2, 3) / math.sqrt(q.shape[-1])


def _average(q, v, probs):
    return probs @ np.repeat(v, q.shape[1] // v.shape[1], 1)


def cache_bytes(layers, kv_heads, head_dim, tokens, bytes_per_number=2):
    return 2 * layers * kv_heads * head_dim * tokens * bytes_per_number


EXERCISES = {
    "6.1": Exercise(
        name="split",
        right=split,
        cases=[(_FLAT, 4), (_FLAT, 2), (_WIDE, 3)],
        mistakes={
            "the shape is right, and the numbers of a head come from several tokens: reshape to (B, T, heads, K), then "
            "swap axes": lambda flat, heads: flat.reshape(len(flat), heads, flat.shape[1], -1),
            "you take components of different heads in turn: those of one head lie side by side": lambda flat, heads: (
                flat.reshape(*flat.shape[:2], -1, heads).transpose(0, 3, 1, 2)
            ),
            "that is (B, T, heads, K): the heads are still to go in front of the tokens": lambda flat, heads: (
                flat.reshape(*flat.shape[:2], heads, -1)
            ),
            "that is (B, heads, K, T): swap tokens and heads, and leave the components last": lambda flat, heads: split(
                flat, heads
            ).swapaxes(2, 3),
            "the second argument is the number of heads, and you take it for K": lambda flat, heads: flat.reshape(
                *flat.shape[:2], -1, heads
            ).swapaxes(1, 2),
        },
    ),
    "6.2": Exercise(
        name="cache_bytes",
        right=cache_bytes,
        cases=[(32, 8, 128, 4096), (6, 2, 64, 100, 4), (3, 5, 8, 7, 1)],
        mistakes={
            "there are keys and values: twice as many": lambda L, G, K, T, size=2: L * G * K * T * size,
            "that is numbers, not bytes": lambda L, G, K, T, size=2: 2 * L * G * K * T,
            "every layer has its own": lambda L, G, K, T, size=2: 2 * G * K * T * size,
            "every token has its own": lambda L, G, K, T, size=2: 2 * L * G * K * size,
            "every key/value head has its own": lambda L, G, K, T, size=2: 2 * L * K * T * size,
            "the cache grows with the length, not with its square": lambda L, G, K, T, size=2: (
                2 * L * G * K * T * T * size
            ),
            "bytes_per_number is an argument, not always 2": lambda L, G, K, T, size=2: 4 * L * G * K * T,
        },
    ),
    "6.3": Exercise(
        name="group_of",
        right=lambda h, H, G: h // (H // G),
        cases=[(h, 8, 2) for h in range(8)] + [(h, 6, 3) for h in range(6)] + [(3, 4, 4), (3, 4, 1)],
        mistakes={
            "you deal the heads out in turn: neighbours belong together": lambda h, H, G: h % G,
            "a group has H / G heads, not G": lambda h, H, G: h // G,
            "that is the place of the head within its group": lambda h, H, G: h % (H // G),
            "an integer is wanted: use //": lambda h, H, G: h / (H // G),
            "that is the first query head of the group": lambda h, H, G: h // (H // G) * (H // G),
            "round down, not up": lambda h, H, G: math.ceil(h / (H // G)),
            "that is how many heads share one, the same for every h": lambda h, H, G: H // G,
            "groups are counted from 0": lambda h, H, G: h // (H // G) + 1,
        },
    ),
    "6.4": Exercise(
        name="grouped_attention",
        right=grouped_attention,
        cases=_CASES,
        mistakes={
            "heads are grouped in turn, 0 1 0 1: neighbours share, 0 0 1 1 (np.tile for np.repeat?)": (
                lambda q, k, v, seen: grouped_attention(q, k, v, seen, share=_tile)
            ),
            "keys are grouped right, values in turn": _tile_values,
            "every head uses the first keys and values": _first_only,
            "the scale is missing": lambda q, k, v, seen: grouped_attention(q, k, v, seen, scale=1),
            "the scale is the square root of K, the width of one head, not of all heads together": (
                lambda q, k, v, seen: grouped_attention(q, k, v, seen, scale=math.sqrt(q.shape[1] * q.shape[-1]))
            ),
            "you divide by K instead of its square root": lambda q, k, v, seen: grouped_attention(
                q, k, v, seen, scale=q.shape[-1]
            ),
            "the mask is missing": lambda q, k, v, seen: grouped_attention(q, k, v, seen, mask=False),
            "a hidden key gets a score of minus infinity, not 0: exp(0) is 1": lambda q, k, v, seen: _average(
                q, v, softmax(np.where(seen, _scores(q, k), 0))
            ),
            "the mask is the wrong way round: True means that a key may be seen": lambda q, k, v, seen: (
                grouped_attention(q, k, v, ~seen)
            ),
            "the mask comes before the softmax: after it the rows no longer sum to 1": lambda q, k, v, seen: _average(
                q, v, np.where(seen, softmax(_scores(q, k)), 0)
            ),
            "the softmax is missing: weights are positive, and those of a query sum to 1": lambda q, k, v, seen: (
                _average(q, v, np.where(seen, _scores(q, k), 0))
            ),
            "the exponentials are still to be divided by their sum": lambda q, k, v, seen: _average(
                q, v, np.where(seen, np.exp(_scores(q, k)), 0)
            ),
            "the softmax runs over the heads: it belongs to the last axis, the keys": _all_at_once,
            "the last reshape mixes heads and tokens: the rows come as (B, H, T, K) already": _laid_out_wrongly,
            "the groups are averaged: each has its own keys and values": _averaged_groups,
            "that is merged already, (B, T, H K): the heads stay apart here": lambda q, k, v, seen: (
                grouped_attention(q, k, v, seen).swapaxes(1, 2).reshape(len(q), q.shape[2], -1)
            ),
        },
    ),
}
