"""What must hold of attention(q, k, v, mask)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.model.attention import grouped_context, grouped_scores, visible_keys
from minillama.model.ops import softmax
from minillama.testing.base import Case, Implementation, Properties, Variants, agree, as_floats
from minillama.testing.levels import Level
from minillama.testing.strategies import SEEDS, masks, spiky

attention = Properties("attention")


def cases(
    *, grouped: bool = False, past: bool = False, mask: str | None = None, rows: int = 1
) -> Callable[[Level], st.SearchStrategy[Case]]:
    """grouped: fewer key/value heads than query heads; past: more keys than queries; mask: "seeing" one key at least,
    or "blind" queries among them; rows: of the batch, at least."""

    @st.composite
    def draw_case(draw: st.DrawFn, level: Level) -> Case:
        B, G = draw(st.integers(rows, 2)), draw(st.integers(2 if grouped else 1, 3))
        H = G * (draw(st.integers(2, 3)) if grouped else 1)
        T, K = draw(st.integers(1, 4)), draw(st.sampled_from([4, 2, 6, 8]))
        S = T + (draw(st.integers(1, 5)) if past else 0)
        seed = draw(SEEDS)
        q, k, v = spiky(seed, B, H, T, K), spiky(seed + 1, B, G, S, K), spiky(seed + 2, B, G, S, K)
        case = {"q": level.rounded(q), "k": level.stored(k), "v": level.stored(v)}
        return case | {"mask": None if mask is None else draw(masks(B, T, S, blind=mask == "blind"))}

    return draw_case


def call(fn: Implementation, case: Case) -> Array:
    return as_floats(fn["attention"](case["q"], case["k"], case["v"], case["mask"]), case["q"].shape, "the result")


def seen_by(case: Case) -> Array:
    """bool, broadcastable to (B, H, T, S)"""
    T, S = case["q"].shape[2], case["k"].shape[2]
    return visible_keys(T, S) if case["mask"] is None else case["mask"]


def wide(case: Case) -> tuple[Array, Array, Array]:
    q, k, v = (case[name].astype(np.float64) for name in "qkv")
    return q, k, v


def expected(case: Case) -> Array:
    """softmax(Q K^T / sqrt(K)) V; NaN, which nothing is compared with, where a query sees no key."""
    q, k, v = wide(case)
    context = averaged(grouped_scores(q, k) / math.sqrt(q.shape[3]), seen_by(case), v)
    return np.where(seen_by(case).any(axis=-1, keepdims=True), context, np.nan)


def averaged(scores: Array, seen: Array, v: Array) -> Array:
    return grouped_context(softmax(np.where(seen, scores, -np.inf)), v)


def allowed(case: Case, level: Level) -> Array:
    """An error d of a score makes one of p d (v - context) in the context, to first order; a score is a sum of K
    products, rounded when q is scaled, when it is formed and when it is scaled. Then the probabilities and the context
    are rounded, and each is a sum of S terms, or divided by one, behind an exponential."""
    q, k, v = wide(case)
    root, seen, K, S = math.sqrt(q.shape[3]), seen_by(case), q.shape[3], k.shape[2]
    probs = softmax(np.where(seen, grouped_scores(q, k) / root, -np.inf))  # (B, H, T, S)
    sizes = grouped_scores(np.abs(q), np.abs(k)) / root
    each = np.repeat(v, q.shape[1] // v.shape[1], axis=1)[:, :, None]  # (B, H, 1, S, K)
    away = np.abs(each - grouped_context(probs, v)[:, :, :, None])  # (B, H, T, S, K)
    off = np.expm1(np.minimum(2 * level.allowed(sizes, roundings=3, terms=K + 2), 50)) / 2  # d, while it is small
    of_sums = grouped_context(probs, np.abs(v))
    return np.einsum("bhts,bhtsk->bhtk", probs * off, away) + level.allowed(of_sums, roundings=3, terms=2 * S + 8)


def mistakes(case: Case) -> Variants:
    q, k, v = wide(case)
    (_, H, T, K), (G, S) = q.shape, k.shape[1:3]
    seen, scores = seen_by(case), grouped_scores(q, k)
    over = softmax(np.where(seen, scores / math.sqrt(K), -np.inf))
    tiled = [np.tile(x, (1, H // G, 1, 1)) for x in (k, v)]
    variants = {
        "the scores are not divided by sqrt(K)": lambda: averaged(scores, seen, v),
        "the scores are divided by K": lambda: averaged(scores / K, seen, v),
        "the scores are divided by sqrt(H K)": lambda: averaged(scores / math.sqrt(H * K), seen, v),
        "the softmax is taken over the queries": lambda: grouped_context(
            softmax(np.where(seen, scores / math.sqrt(K), -np.inf).swapaxes(2, 3)).swapaxes(2, 3), v
        ),
        "the softmax is left out": lambda: grouped_context(np.where(seen, scores / math.sqrt(K), 0), v),
        "the mask is left out": lambda: averaged(scores / math.sqrt(K), np.ones_like(seen), v),
        "query head h reads key/value head h % G, and not h // (H/G)": lambda: averaged(
            grouped_scores(q, tiled[0]) / math.sqrt(K), seen, tiled[1]
        ),
        "keys are masked after the softmax": lambda: grouped_context(softmax(scores / math.sqrt(K)) * seen, v),
        "the values are summed without probabilities": lambda: grouped_context(1.0 * (over > 0), v),
    }
    if case["mask"] is not None:
        return variants | {"True in the mask is taken for 'hidden'": lambda: averaged(scores / math.sqrt(K), ~seen, v)}
    places, queries = np.arange(S), np.arange(T)[:, None]
    moved = {
        "a query sees one key too many": places <= queries + S - T + 1,
        "a query does not see its own key": places < queries + S - T,
        "query t sees keys 0 .. t, though more keys than queries are there": places <= queries,
    }
    return variants | {told: partial(averaged, scores / math.sqrt(K), seen, v) for told, seen in moved.items()}


def as_it_must(fn: Implementation, case: Case, level: Level) -> None:
    agree(call(fn, case), expected(case), allowed(case, level), variants=mistakes(case))


@attention("the result is softmax(Q K^T / sqrt(K)) V, over the keys up to the query's own", cases())
def exact(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@attention("a query sees no key that comes after it", cases())
def causal(fn: Implementation, case: Case, level: Level) -> None:
    before, wanted = call(fn, case), expected(case)
    case["k"][:, :, -1], case["v"][:, :, -1] = 8, -64
    wanted[:, :, :-1], wanted[:, :, -1] = before[:, :, :-1], np.nan
    agree(call(fn, case), wanted, 2 * allowed(case, level), "with another last key and value, the result")


@attention("the last T of S tokens see all keys before them, and no later ones", cases(past=True))
def past(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@attention("queries in pieces, over the keys so far, get what they get all at once", cases())
def pieces(fn: Implementation, case: Case, level: Level) -> None:
    wanted, slack = call(fn, case), allowed(case, level)
    for t in range(case["q"].shape[2]):
        piece = case | {"q": case["q"][:, :, t : t + 1], "k": case["k"][:, :, : t + 1], "v": case["v"][:, :, : t + 1]}
        agree(call(fn, piece), wanted[:, :, t : t + 1], 2 * slack[:, :, t : t + 1], f"query {t} alone: the result")


@attention("rows of a batch do not see each other", cases(rows=2))
def rows(fn: Implementation, case: Case, level: Level) -> None:
    wanted, slack = call(fn, case), allowed(case, level)
    for b in range(len(wanted)):
        alone = case | {name: case[name][b : b + 1] for name in "qkv"}
        agree(call(fn, alone), wanted[b : b + 1], 2 * slack[b : b + 1], f"row {b} alone: the result")


@attention("query head h reads key/value head h // (H/G)", cases(grouped=True, past=True))
def grouped(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@attention("grouped queries get what they get when keys and values are repeated for every head", cases(grouped=True))
def repeated(fn: Implementation, case: Case, level: Level) -> None:
    times = case["q"].shape[1] // case["k"].shape[1]
    wanted = call(fn, case | {name: np.repeat(case[name], times, axis=1) for name in "kv"})
    agree(call(fn, case), wanted, 2 * allowed(case, level), variants=mistakes(case))


@attention("scores that all rise by the same number change nothing, beyond where exp overflows too", cases())
def shifted(fn: Implementation, case: Case, level: Level) -> None:
    # By 16 * 48 / sqrt(K), 271 at least. Where that rounds the scores away, the result is some average of values still
    case["q"][..., 0], case["k"][..., 0] = 16, 0
    wanted = expected(case)
    case["k"][..., 0] = 48
    agree(call(fn, case), wanted, np.minimum(allowed(case, level), 2 * np.abs(case["v"]).max() + 1e-3))


@attention("a mask is True where a query may attend, of each row its own", cases(mask="seeing", past=True))
def masked(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@attention("what stands in masked keys and values, padding say, does not leak", cases(mask="seeing", rows=2))
def padding(fn: Implementation, case: Case, level: Level) -> None:
    unseen = ~case["mask"].any(axis=(1, 2))  # (B, S)
    unseen[:, 0] = True
    case["mask"] &= ~unseen[:, None, None]
    wanted, slack = expected(case), allowed(case, level)
    for name, garbage in (("k", 100), ("v", -1e4)):
        case[name][np.broadcast_to(unseen[:, None, :, None], case[name].shape)] = garbage
    agree(call(fn, case), wanted, slack, "with 100 in the first key and -10000 in its value, the result")


@attention("a query that may see no key gets zeros, and the others what they must", cases(mask="blind"))
def blind(fn: Implementation, case: Case, level: Level) -> None:
    seen = seen_by(case).any(axis=-1, keepdims=True)
    agree(call(fn, case), np.where(seen, expected(case), 0), np.where(seen, allowed(case, level), 1e-30))
