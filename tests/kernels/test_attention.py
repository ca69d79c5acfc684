from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from minillama.arrays import Array
from minillama.kernels import attention as kernels
from minillama.kernels.llvm import LANES
from minillama.layout import rounded_up
from minillama.model.attention import grouped_context, grouped_scores, visible_keys
from minillama.model.ops import softmax
from minillama.model.rope import rotate
from minillama.runtime.packing import KINDS, aligned
from minillama.weights.formats import narrow, widen
from tests.kernels.products import STEP
from tests.tiny import SEEDS, spiky

HEADS = {"all their own": (4, 4), "shared by two": (6, 3), "one for all": (5, 1), "more than a block": (19, 1)}
SIZES, PASTS = (6, 16, 18, 40, 64, 80), (0, 1, 63, 64, 65, 200)
FORMS = ("f32", "f16", "bf16")


@njit
def _attention(
    q: Any, first_row: int, row_step: int, head: int, heads: int, row: int, last: int, head_dim: int, past: int,
    keys: Any, k_start: int, values: Any, v_start: int, flags: Any, masked: bool, cos: Any, sin: Any, turned: bool,
    own: Any, out: Any,
) -> None:  # fmt: skip
    kernels.attention(
        q, first_row, row_step, head, heads, row, last, head_dim, past, keys, k_start, values, v_start,
        flags, 3, masked, cos, sin, turned, own, out, row_step,
    )  # fmt: skip


def tiles(x: Array, fill: float, whole: int = LANES) -> Array:
    """(S, n) as [S / 16][n][16], whole blocks of `whole` positions; behind the last of them some number."""
    padded = np.full((rounded_up(len(x), whole), x.shape[1]), fill, x.dtype)
    padded[: len(x)] = x
    return np.ascontiguousarray(padded.reshape(-1, LANES, x.shape[1]).swapaxes(1, 2)).reshape(-1)


class Case:
    """T tokens behind `past` others, with H query heads and G heads of keys and values in a cache of some format."""

    def __init__(self, rng: np.random.Generator, form: str, H: int, G: int, K: int, T: int, past: int):
        self.H, self.G, self.K, self.T, self.S, self.form = H, G, K, T, past + T, form
        self.q = spiky(rng, T, H, K).astype(np.float32)
        self.k, self.v = (self._rounded(spiky(rng, G, self.S, K)) for _ in range(2))
        self.seen: Array | None = None  # (S,)
        self.angles: tuple[Array, Array] | None = None  # cos and sin, (S, K / 2)

    def _rounded(self, x: Array) -> Array:
        name = self.form.upper()
        return widen(narrow(x.astype(np.float32), name), name, np.float32)

    def _cached(self, parts: list[Array]) -> tuple[Array, int]:
        """Parts of a cache, one for each head, behind each other; and how long one is."""
        kept = aligned(sum(part.size for part in parts), KINDS[self.form])
        kept[:] = narrow(np.concatenate(parts), self.form.upper()).view(KINDS[self.form])
        return kept, parts[0].size

    def by_kernel(self, step: int | None = None) -> Array:
        """(T, H, K), in tasks of `step` rows. What is behind the keys and values, and in the room, is NaN."""
        H, G, K, T, S = self.H, self.G, self.K, self.T, self.S
        keys, k_size = self._cached([tiles(k, np.nan, kernels.KEYS) for k in self.k])
        rows = np.full((G, S + 1, rounded_up(K, LANES)), np.nan, np.float32)
        rows[:, :S, :K] = self.v
        values, v_size = self._cached([part.reshape(-1) for part in rows])
        flags = np.ones(3 + rounded_up(S, LANES), np.uint8)
        if self.seen is not None:
            flags[3 : 3 + S] = self.seen
        cos, sin = (tiles(a, 0) for a in self.angles) if self.angles else (np.zeros(0, np.float32),) * 2
        row_step = H * K + 5
        q = np.full((T + 2, row_step), np.nan, np.float32)
        q[2:, : H * K] = self.q.reshape(T, -1)
        out, count = np.full_like(q, np.nan), T * (H // G)
        own = np.full(kernels.own_room(K, H // G) + 8, np.nan, np.float32)
        for g in range(G):
            for row in range(0, count, step or count):
                last = min(row + (step or count), count)
                _attention(
                    q.reshape(-1), 2, row_step, g, H // G, row, last, K, S - T, keys, g * k_size, values, g * v_size,
                    flags, self.seen is not None, cos, sin, self.angles is not None, own, out.reshape(-1),
                )  # fmt: skip
        assert np.isnan(own[-8:]).all()
        assert (np.isnan(out[:2]).all(), np.isnan(out[:, H * K :]).all()) == (True, True)
        return out[2:, : H * K].reshape(T, H, K)

    def turned_keys(self) -> Array:
        """(G, S, K), float64"""
        keys = self.k.astype(np.float64)
        if self.angles is None:
            return keys
        return rotate(keys[None], *(a[None].astype(np.float64) for a in self.angles))[0]

    def exact(self) -> Array:
        """By model/attention.py, in float64: (T, H, K)."""
        q, k, v = self.q.swapaxes(0, 1)[None].astype(np.float64), self.turned_keys()[None], self.v[None]
        scores = grouped_scores(q, k) / math.sqrt(self.K)
        visible = visible_keys(self.T, self.S, None if self.seen is None else self.seen[None])
        return grouped_context(softmax(np.where(visible, scores, -np.inf)), v.astype(np.float64))[0].swapaxes(0, 1)

    def room(self) -> float:
        """How far float32 may be from that.

        A score is a sum of K products, and a turned key in each of them one of two; its error becomes a relative one
        of its weight, for the numerator and for the sum. So does what exp is off by, 2.5e-7, once for the weight and
        once for each block of 64 keys, at which sums are scaled anew. The sums over keys round once for each.
        """
        pairs = np.abs(self.k) + (np.abs(np.roll(self.k, self.K // 2, axis=-1)) if self.angles else 0)
        sizes = grouped_scores(np.abs(self.q).swapaxes(0, 1)[None], pairs[None]) / math.sqrt(self.K)
        scores = (self.K + 6) * STEP * float(sizes.max())
        blocks = self.S // kernels.KEYS + 1
        return (2 * scores + 2 * (1 + blocks) * 4e-7 + 2 * (self.S + 6) * STEP) * float(np.abs(self.v).max())

    def check(self) -> None:
        off = np.abs(self.by_kernel() - self.exact()).max()
        assert off <= self.room(), f"off by {off / self.room()} of what float32 may be"


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("past", PASTS)
@given(SEEDS, st.sampled_from(SIZES), st.integers(1, 9))
@settings(max_examples=6)
def test_softmax_over_all_keys_so_far(heads: str, past: int, seed: int, K: int, T: int) -> None:
    Case(np.random.default_rng(seed), "f32", *HEADS[heads], K, T, past).check()


@pytest.mark.parametrize("form", FORMS)
@given(SEEDS, st.sampled_from(SIZES), st.sampled_from([0, 17, 64, 130]), st.integers(1, 70))
@settings(max_examples=10)
def test_keys_and_values_of_every_format(form: str, seed: int, K: int, past: int, T: int) -> None:
    Case(np.random.default_rng(seed), form, 4, 2, K, T, past).check()


@pytest.mark.parametrize("form", FORMS)
@given(SEEDS, st.sampled_from(PASTS), st.integers(1, 20), st.floats(0, 1))
@settings(max_examples=15)
def test_masks_with_holes(form: str, seed: int, past: int, T: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    case = Case(rng, form, 4, 2, 18, T, past)
    case.seen = rng.random(past + T) < share
    case.check()


def test_rows_that_see_no_key_are_zero() -> None:
    case = Case(np.random.default_rng(61), "f16", 4, 2, 18, 9, 70)
    case.seen = np.zeros(79, bool)
    np.testing.assert_array_equal(case.by_kernel(), 0)
    case.seen[75:] = True  # the first five tokens see nothing, a whole block of keys and more
    out = case.by_kernel()
    np.testing.assert_array_equal(out[:5], 0)
    np.testing.assert_allclose(out, case.exact(), atol=case.room())
    np.testing.assert_array_equal(out[5], np.repeat(case.v[:, 75], 2, axis=0))  # one key: its value, exactly


@pytest.mark.parametrize("form", FORMS)
@given(SEEDS, st.sampled_from(SIZES), st.sampled_from(PASTS), st.integers(1, 9), st.booleans())
@settings(max_examples=10)
def test_keys_that_are_turned_first(form: str, seed: int, K: int, past: int, T: int, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    case = Case(rng, form, 4, 2, K, T, past)
    theta = rng.uniform(0, 1000, (past + T, K // 2))
    case.angles = np.cos(theta).astype(np.float32), np.sin(theta).astype(np.float32)
    case.seen = rng.random(past + T) < 0.7 if masked else None
    case.check()


@given(SEEDS, st.sampled_from(list(HEADS.values())), st.sampled_from([0, 60, 130]), st.integers(2, 40), st.booleans())
@settings(max_examples=15)
def test_every_row_has_the_same_bits_in_any_task(
    seed: int, heads: tuple[int, int], past: int, T: int, masked: bool
) -> None:
    rng = np.random.default_rng(seed)
    case = Case(rng, "f16", *heads, 18, T, past)
    case.seen = rng.random(past + T) < 0.8 if masked else None
    whole = case.by_kernel()
    for step in (1, 3, 8, 16):
        np.testing.assert_array_equal(case.by_kernel(step), whole)


@pytest.mark.parametrize("size", [1e-40, 1e-20, 30.0])
def test_scores_tiny_and_large(size: float) -> None:
    """The largest make most weights 0."""
    case = Case(np.random.default_rng(62), "f32", 4, 2, 16, 5, 100)
    case.q *= np.float32(size)
    case.check()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("past", [0, 100])
@pytest.mark.parametrize("T", [1, 5])
def test_keys_and_values_of_zeros_tiny_ones_and_one_far_out(form: str, past: int, T: int) -> None:
    for size in (0, 6e-8 if form == "f16" else 1e-40):  # the least are denormal
        case = Case(np.random.default_rng(66), form, 4, 2, 18, T, past)
        case.k[:, ::2] = case._rounded(case.k[:, ::2] * size)
        case.v[:, ::3] = case._rounded(case.v[:, ::3] * size)
        case.check()
        case.k[:], case.v[:] = case._rounded(case.k * size), case._rounded(case.v * size)
        case.check()
    case = Case(np.random.default_rng(67), form, 4, 2, 18, T, past)
    case.k[1, past // 2, 4], case.v[0, past // 3, 5] = case._rounded(np.array([300, 3e4]))
    case.check()


def test_the_largest_score_may_come_first_or_last() -> None:
    for falling in (True, False):
        case = Case(np.random.default_rng(63), "f32", 1, 1, 16, 1, 255)
        case.q[:] = 1
        case.k[:] = np.linspace(0, 20, 256)[None, :: -1 if falling else 1, None]
        case.check()


def test_a_query_without_weights_shows() -> None:
    case = Case(np.random.default_rng(65), "f32", 4, 2, 18, 3, 70)
    case.k = np.abs(case.k)
    case.q[1, 2, 5] = -np.inf  # all its scores
    out = case.by_kernel()
    assert np.isnan(out[1, 2]).all()
    out[1, 2] = 0
    assert np.isfinite(out).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["q", "k", "v"])
def test_what_is_not_finite_shows(form: str, bad: float, what: str) -> None:
    """In the token whose query it is; in every token that sees its key or value; and in no other head."""
    case = Case(np.random.default_rng(64), form, 4, 2, 18, 9, 70)
    case.q = np.abs(case.q)  # a score of -inf would be a weight of 0
    clean = case.by_kernel()
    if what == "q":
        case.q[5, :2, 3] = bad  # of both heads that share the first keys
    else:
        getattr(case, what)[0, 20, 3] = bad
    out = case.by_kernel()
    spoiled = out[5:6, :2] if what == "q" else out[:, :2, 3] if what == "v" else out[:, :2]
    assert not np.isfinite(spoiled).any()
    np.testing.assert_array_equal(out[:, 2:], clean[:, 2:])
    if what == "q":
        np.testing.assert_array_equal(np.delete(out, 5, axis=0), np.delete(clean, 5, axis=0))
