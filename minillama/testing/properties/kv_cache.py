"""What must hold of kv_cache(num_layers, shape) and the cache that it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minillama.testing.base import Case, Implementation, Mismatch, Properties, Variants, agree
from minillama.testing.levels import Level
from minillama.testing.strategies import SEEDS, spiky

kv_cache = Properties("kv_cache")


def cases(pieces: int = 1) -> Callable[[Level], st.SearchStrategy[Case]]:
    """k and v: (L, B, G, S, K) of all layers and tokens; pieces: how many tokens are appended at a time, at least so
    many times; room: for how many tokens, if a cache wants to know."""

    @st.composite
    def draw_case(draw: st.DrawFn, level: Level) -> Case:
        L, B, G = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
        K = draw(st.sampled_from([2, 4, 6]))
        some = st.integers(1, 4) | st.sampled_from([16, 33])  # past the room that a cache that grows may begin with
        lengths = draw(st.lists(some, min_size=pieces, max_size=5))
        seed, S = draw(SEEDS), sum(lengths)
        k, v = spiky(seed, L, B, G, S, K), spiky(seed + 1, L, B, G, S, K)
        return {"k": level.rounded(k), "v": level.rounded(v), "pieces": lengths, "room": S + draw(st.integers(0, 3))}

    return draw_case


def new_cache(fn: Implementation, case: Case) -> Any:
    L, B, G, _, K = case["k"].shape
    return fn["kv_cache"](L, (B, G, case["room"], K))


def append(cache: Any, case: Case, layer: int, start: int, stop: int) -> Sequence[Any]:
    """Tokens start .. stop - 1 of a layer."""
    got = cache.append(layer, case["k"][layer, :, :, start:stop].copy(), case["v"][layer, :, :, start:stop].copy())
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mismatch("append must return two arrays, all keys and all values of the layer so far")
    return got


def compare(got: Sequence[Any], case: Case, layer: int, stop: int, level: Level, when: str) -> None:
    for given, name, of in zip(got, ("keys", "values"), "kv", strict=True):
        wanted = case[of][layer, :, :, :stop].astype(np.float64)
        agree(
            given,
            wanted,
            level.kept * np.abs(wanted) + 1e-30,
            f"{when}, {name} of layer {layer}",
            mistakes(case, of, layer, stop),
        )


def mistakes(case: Case, of: str, layer: int, stop: int) -> Variants:
    x, other = case[of], case["v" if of == "k" else "k"]
    return {
        "keys and values are exchanged": lambda: other[layer, :, :, :stop],
        "all layers share what one has": lambda: x[-1, :, :, :stop],
        "all layers have what the first has": lambda: x[0, :, :, :stop],
        "tokens come back in reverse": lambda: x[layer, :, :, :stop][:, :, ::-1],
    }


def run(fn: Implementation, case: Case, level: Level) -> Any:
    """Append everything, piece by piece and layer by layer, as a model does."""
    cache, start = new_cache(fn, case), 0
    for number, length in enumerate(case["pieces"]):
        for layer in range(len(case["k"])):
            got = append(cache, case, layer, start, start + length)
            compare(got, case, layer, start + length, level, f"after piece {number}")
        start += length
    return cache


@kv_cache("what is appended at once comes back as it was", cases())
def whole(fn: Implementation, case: Case, level: Level) -> None:
    run(fn, case | {"pieces": [sum(case["pieces"])]}, level)


@kv_cache("what is appended in pieces comes back whole and in order, of every layer its own", cases(pieces=2))
def pieces(fn: Implementation, case: Case, level: Level) -> None:
    run(fn, case, level)


@kv_cache("two caches have nothing in common", cases(pieces=2))
def apart(fn: Implementation, case: Case, level: Level) -> None:
    first = case["pieces"][0]
    one, other = new_cache(fn, case), new_cache(fn, case)
    append(one, case, 0, 0, first)
    swapped = case | {"k": -case["k"], "v": -case["v"]}
    append(other, swapped, 0, 0, first)
    compare(append(one, case, 0, first, first + 1), case, 0, first + 1, level, "beside another cache")


@kv_cache("cut back to a length, a cache goes on as if no more had been appended", cases(pieces=2))
def cut(fn: Implementation, case: Case, level: Level) -> None:
    cache, length, S = run(fn, case, level), case["pieces"][0], case["k"].shape[3]
    if not hasattr(cache, "cut"):
        raise NotImplementedError("the cache has no method cut(length)")
    cache.cut(length)
    other = {name: np.concatenate((case[name][..., :length, :], -case[name][..., length:, :]), axis=3) for name in "kv"}
    for layer in range(len(case["k"])):
        got = append(cache, case | other, layer, length, S)
        compare(got, case | other, layer, S, level, f"cut to {length} and filled again")
