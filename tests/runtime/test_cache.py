from __future__ import annotations

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.runtime.cache import RowCache
from minillama.runtime.packing import KINDS
from minillama.weights.formats import narrow, widen

FORMS = ("f32", "f16", "bf16")
LAYERS, HEADS = 2, 3


def filled(form: str, K: int, length: int, seed: int = 0) -> tuple[RowCache, Array, Array]:
    """A cache of random numbers, written as cache.py says they lie; and these, (L, G, S, K) twice."""
    rng = np.random.default_rng(seed)
    cache = RowCache(LAYERS, HEADS, K, form)
    cache.reserve(length)
    name = form.upper()
    k, v = (narrow(rng.standard_normal((LAYERS, HEADS, length, K)).astype(np.float32), name) for _ in range(2))
    put(cache, k, v, 0)
    return cache, widen(k, name, np.float32), widen(v, name, np.float32)


def put(cache: RowCache, k: Array, v: Array, start: int) -> None:
    """Append stored numbers (L, G, T, K)."""
    keys = cache.keys.reshape(LAYERS, HEADS, -1, cache.head_dim, 16)
    values = cache.values.reshape(LAYERS, HEADS, cache.capacity, -1)
    for t in range(k.shape[2]):
        tile, lane = divmod(start + t, 16)
        keys[:, :, tile, :, lane] = k[:, :, t].view(KINDS[cache.form])
        values[:, :, start + t, : cache.head_dim] = v[:, :, t].view(KINDS[cache.form])
    cache.length = start + k.shape[2]
    cache.positions[start : cache.length] = np.arange(start, cache.length) * 3


def assert_holds(cache: RowCache, k: Array, v: Array) -> None:
    pairs = cache.pairs()
    assert len(pairs) == LAYERS
    for (ours, values), wanted, wanted_values in zip(pairs, k, v, strict=True):
        assert (ours.dtype, values.dtype) == (np.float32, np.float32)
        np.testing.assert_array_equal(ours, wanted)
        np.testing.assert_array_equal(values, wanted_values)
    np.testing.assert_array_equal(cache.positions[: cache.length], np.arange(cache.length) * 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("K", [6, 16, 18])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 64, 100])
def test_pairs_are_what_was_cached(form: str, K: int, length: int) -> None:
    cache, k, v = filled(form, K, length)
    assert_holds(cache, k, v)
    assert cache.keys.dtype == KINDS[form]
    assert [x.ctypes.data % 64 for x in (cache.keys, cache.values)] == [0, 0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 63, 64, 65])
def test_more_room_changes_nothing(form: str, length: int) -> None:
    cache, k, v = filled(form, 18, length)
    for more in (length, 64, 65, 300, 301, 1000):
        cache.reserve(more)
        assert cache.capacity >= more
        assert cache.capacity % 64 == 0
        assert (len(cache.positions), cache.keys.size) == (cache.capacity, LAYERS * HEADS * cache.capacity * 18)
        assert_holds(cache, k, v)


def test_room_at_least_doubles() -> None:
    cache = RowCache(LAYERS, HEADS, 6, "f16")
    grown = []
    for length in range(1, 1000):
        cache.reserve(length)
        cache.length = length
        grown.append(cache.capacity)
    assert sorted(set(grown)) == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_is_independent(form: str) -> None:
    cache, k, v = filled(form, 6, 70)
    twin = cache.copy()
    assert_holds(twin, k, v)
    assert (twin.layers, twin.kv_heads, twin.head_dim, twin.form) == (LAYERS, HEADS, 6, form)
    cache.keys[:], cache.values[:], cache.positions[:] = 0, 0, 0
    assert_holds(twin, k, v)
    assert [x.ctypes.data % 64 for x in (twin.keys, twin.values)] == [0, 0]


def test_a_copy_grows_by_itself() -> None:
    cache, k, v = filled("f16", 6, 70)
    twin = cache.copy()
    twin.reserve(500)
    assert (cache.capacity, twin.capacity) == (128, 512)
    assert_holds(twin, k, v)
    assert_holds(cache, k, v)


def test_an_empty_one_may_be_copied() -> None:
    twin = RowCache(LAYERS, HEADS, 6, "f32", 0).copy()
    assert (twin.length, twin.capacity) == (0, 0)
    twin.reserve(1)
    assert twin.capacity == 64


def test_cut_back_and_gone_on() -> None:
    """What was behind the cut is overwritten, also in the middle of a tile."""
    cache, k, v = filled("f32", 6, 70)
    _, more_k, more_v = filled("f32", 6, 40, seed=1)
    cache.length = 37
    put(cache, more_k, more_v, 37)
    assert_holds(cache, np.concatenate((k[:, :, :37], more_k), axis=2), np.concatenate((v[:, :, :37], more_v), axis=2))
    cache.reserve(200)
    assert_holds(cache, np.concatenate((k[:, :, :37], more_k), axis=2), np.concatenate((v[:, :, :37], more_v), axis=2))


@pytest.mark.parametrize("form", FORMS)
def test_numbers_that_are_written_stay_finite_if_they_are(form: str) -> None:
    """As where kernels write them."""
    cache, k = RowCache(1, 1, 6, form), np.array([[[1e5, -1e5, np.inf, -np.inf, np.nan, 3]]], np.float32)
    cache.put(0, 0, k, -k, np.arange(1))
    cache.length = 1
    ((keys, values),) = cache.pairs()
    kept = k if form == "f32" else widen(narrow(k, "BF16"), "BF16", np.float32)
    kept = np.array([[[65504, -65504, np.inf, -np.inf, np.nan, 3]]], np.float32) if form == "f16" else kept
    np.testing.assert_array_equal(keys, kept)
    np.testing.assert_array_equal(values, -kept)


def test_keys_that_are_written_have_no_angles_yet() -> None:
    cache = RowCache(1, 1, 6, "f32")
    cache.key_angles.count = 20
    cache.put(0, 9, np.zeros((1, 2, 6)), np.zeros((1, 2, 6)), np.arange(2))
    assert cache.key_angles.count == 9
