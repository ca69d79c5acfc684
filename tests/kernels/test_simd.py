from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from minillama.arrays import Array
from minillama.kernels import simd
from minillama.kernels.llvm import LANES
from minillama.weights.formats import narrow_bfloat16, widen
from tests.tiny import SEEDS, spiky

HALVES = np.arange(2**16, dtype=np.uint16)  # the bits of every float16, and of every bfloat16
KINDS = {"f32": np.float32, "f16": np.int16, "bf16": np.uint16}


@njit
def _copy(source: Any, target: Any, n: int) -> None:
    for i in range(0, n, LANES):
        simd.store(target, i, simd.load(source, i))


@njit
def _put_all(source: Any, target: Any) -> None:
    for i in range(len(source)):
        simd.put(target, i, source[i])


@njit
def _exp(x: Any, out: Any) -> None:
    for i in range(0, len(x), LANES):
        simd.store(out, i, simd.exp(simd.load(x, i)))


@njit
def _lane_by_lane(x: Any, y: Any, z: Any, out: Any) -> None:
    """Everything that works lane by lane on x, y and z, 16 numbers of out for each."""
    a, b, c = simd.load(x, 0), simd.load(y, 0), simd.load(z, 0)
    simd.store(out, 0, a + b)
    simd.store(out, 16, a - b)
    simd.store(out, 32, a * b)
    simd.store(out, 48, a / b)
    simd.store(out, 64, simd.maximum(a, b))
    simd.store(out, 80, simd.minimum(a, b))
    simd.store(out, 96, simd.absolute(a))
    simd.store(out, 112, simd.nearest(a))
    simd.store(out, 128, simd.fma(a, b, c))
    simd.store(out, 144, simd.splat(x[3]))


@njit
def _over_lanes(x: Any) -> tuple[float, float]:
    return simd.sum_of(simd.load(x, 0)), simd.largest(simd.load(x, 0))


@njit
def _chosen(x: Any, n: int, flags: Any, out: Any) -> None:
    other = simd.splat(-1.0)
    simd.store(out, 0, simd.first(simd.load(x, 0), n, other))
    simd.store(out, 16, simd.where_set(flags, 1, simd.load(x, 0), other))


@njit
def _bytes(x: Any, out: Any, step: int) -> int:
    return simd.store_bytes(out, 0, step, simd.load(x, 0))


@njit
def _half_bits(x: float) -> int:
    return simd.half_bits(x)


@njit
def _from_half(bits: int) -> float:
    return simd.from_half(bits)


def exponentials(x: Array) -> Array:
    out = np.empty_like(x)
    _exp(x, out)
    return out


def floats_of(bits: Array, kind: str) -> Array:
    if kind == "f32":
        return bits.view(np.float32)
    with np.errstate(invalid="ignore"):  # ARM tells of a signalling NaN that is converted
        return widen(bits.view(np.float16 if kind == "f16" else np.uint16), kind.upper(), np.float32)


def narrowed(x: Array, kind: str) -> Array:
    if kind == "bf16":
        return narrow_bfloat16(x)
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        return x.astype(np.float16).view(np.int16) if kind == "f16" else x


def difficult(seed: int = 0) -> Array:
    """float32 numbers of every size, the middle between two float16 and two bfloat16 numbers and what is beside it."""
    rng = np.random.default_rng(seed)
    numbers = [rng.integers(0, 2**32, 4096, dtype=np.uint32).view(np.float32)]
    for kind in ("f16", "bf16"):
        values = floats_of(HALVES, kind)
        values = np.sort(values[np.isfinite(values)]).astype(np.float64)
        middle = ((values[1:] + values[:-1]) / 2).astype(np.float32)[::7]
        numbers += [middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(np.inf))]
    numbers.append(np.array([0, -0.0, np.inf, -np.inf, 65504, 65519.996, 65520, -65520, 1e-45, 6e-8, 3e38], np.float32))
    x = np.concatenate(numbers)
    x = x[~np.isnan(x)]
    return x[: len(x) // 16 * 16]


# -- loads and stores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_every_half_is_loaded_exactly(kind: str) -> None:
    out = np.empty(2**16, np.float32)
    _copy(HALVES.view(KINDS[kind]), out, len(out))
    values = floats_of(HALVES, kind)
    np.testing.assert_array_equal(out, values)  # NaN where it is NaN
    finite = ~np.isnan(values)
    np.testing.assert_array_equal(np.signbit(out[finite]), np.signbit(values[finite]))


@pytest.mark.parametrize("kind", KINDS)
def test_stores_round_as_numpy_does(kind: str) -> None:
    x = difficult()
    stored, wanted = np.empty(len(x), KINDS[kind]), narrowed(x, kind)
    _copy(x, stored, len(x))
    np.testing.assert_array_equal(stored, wanted.view(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_put_rounds_alike_but_keeps_float16_finite(kind: str) -> None:
    x = difficult(1)
    put = np.empty(len(x), KINDS[kind])
    _put_all(x, put)
    wanted = narrowed(np.where(np.isinf(x), x, np.clip(x, -65504, 65504)) if kind == "f16" else x, kind)
    np.testing.assert_array_equal(put, wanted.view(KINDS[kind]))


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_nan_stays_nan_when_it_is_stored(kind: str) -> None:
    bits = np.array([0x7FC00000, 0x7F800001, 0xFF80FFFF, 0x7FFFFFFF] * 4, np.uint32)
    for copy in (lambda x, out: _copy(x, out, 16), _put_all):
        out = np.zeros(16, KINDS[kind])
        copy(bits.view(np.float32), out)
        assert np.isnan(floats_of(out, kind)).all()


@pytest.mark.parametrize("x", [0.0, -0.0, 1.0, 65504.0, 65519.0, 65520.0, 6e-8, 2.9e-8, 1e-45, -3.14159, -np.inf])
def test_one_half(x: float) -> None:
    with np.errstate(over="ignore"):
        half = np.float32(x).astype(np.float16)
    assert _half_bits(np.float32(x)) == int(half.view(np.int16))
    assert _from_half(np.int16(half.view(np.int16))) == half


@given(SEEDS, st.integers(1, 40))
@settings(max_examples=10)
def test_bytes_lie_four_by_four_and_are_summed(seed: int, step: int) -> None:
    x = np.random.default_rng(seed).integers(-128, 128, 16)
    step = max(step, 4)
    out = np.full(3 * step + 4, 77, np.int8)
    assert _bytes(x.astype(np.float32), out, step) == x.sum()
    for n in range(4):
        np.testing.assert_array_equal(out[n * step : n * step + 4], x[4 * n : 4 * n + 4])
    assert (np.delete(out, [n * step + k for n in range(4) for k in range(4)]) == 77).all()


# -- arithmetic ---------------------------------------------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=20)
def test_lane_by_lane_as_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, z = (spiky(rng, 16).astype(np.float32) for _ in range(3))
    x[:4] = [0.5, 1.5, -2.5, 8388607.5]  # halves, which go to the even number
    out = np.empty(160, np.float32)
    _lane_by_lane(x, y, z, out)
    # The product of two float32 is exact in float64, and so is its sum with a third of about the same size; so the
    # fused result is that of float64, rounded once more. Where the two roundings differ, it is by one step.
    fused = (x.astype(np.float64) * y + z).astype(np.float32)
    wanted = [x + y, x - y, x * y, x / y, np.maximum(x, y), np.minimum(x, y), np.abs(x), np.rint(x)]
    np.testing.assert_array_equal(out[:128], np.concatenate(wanted))
    np.testing.assert_array_max_ulp(out[128:144], fused, 1)
    np.testing.assert_array_equal(out[144:], x[3])


def test_exp_over_its_range() -> None:
    x = np.concatenate(
        (
            np.linspace(-86.999, 88, 100_000),
            -np.logspace(-45, 1.9, 5000),
            np.logspace(-45, 1.9, 5000),
            (np.arange(-125, 126) + 0.5) * math.log(2),  # between two powers of 2: the polynomial's far ends
        )
    ).astype(np.float32)
    x = x[: len(x) // 16 * 16]
    exact = np.array([math.exp(value) for value in x.tolist()])
    # The first term left out of the series, r ** 7 / 5040 with |r| <= ln 2 / 2, is 1.7e-7 of e ** r where that is
    # smallest; the last two operations round by 6e-8 each, which seldom all add up
    assert (np.abs(exponentials(x) / exact - 1)).max() <= 2.5e-7


def test_exp_at_its_ends() -> None:
    ends = [-np.inf, -3.4e38, -1e4, -104, -87.5, -87, 0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38]
    x = np.array(ends + [0] * (16 - len(ends)), np.float32)
    np.testing.assert_array_equal(exponentials(x), [0] * 6 + [1] * 10)
    x[:2] = np.nan, np.nextafter(np.float32(-87), np.float32(0))
    assert np.isnan(exponentials(x)[0])
    assert exponentials(x)[1] == pytest.approx(math.exp(x[1]), rel=2.5e-7)


@given(SEEDS)
@settings(max_examples=20)
def test_sums_over_lanes(seed: int) -> None:
    x = (np.random.default_rng(seed).standard_normal(16) * 10.0 ** np.arange(16)).astype(np.float32)
    folded = x
    while len(folded) > 1:  # halves are added to halves
        folded = folded[: len(folded) // 2] + folded[len(folded) // 2 :]
    total, most = _over_lanes(x)
    assert total == folded[0]
    assert most == x.max()


def test_the_largest_lane_among_infinities() -> None:
    x = np.full(16, -np.inf, np.float32)
    assert _over_lanes(x)[1] == -np.inf
    x[13] = -1e38
    assert _over_lanes(x)[1] == np.float32(-1e38)
    x[15] = np.inf
    assert _over_lanes(x)[1] == np.inf


@pytest.mark.parametrize("n", [-300, -16, 0, 1, 7, 15, 16, 17, 4000])
def test_the_first_lanes_and_those_with_a_flag(n: int) -> None:
    rng = np.random.default_rng(32)
    x, out, flags = rng.standard_normal(16).astype(np.float32), np.empty(32, np.float32), np.zeros(17, np.uint8)
    flags[1:] = rng.choice([0, 1, 128, 255], 16)
    _chosen(x, n, flags, out)
    np.testing.assert_array_equal(out[:16], np.where(np.arange(16) < n, x, -1))
    np.testing.assert_array_equal(out[16:], np.where(flags[1:] != 0, x, -1))
