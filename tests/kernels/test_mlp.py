from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from minillama import kernels
from minillama.arrays import Array
from minillama.kernels import mlp, simd
from minillama.model.mlp import ACTIVATIONS
from tests.tiny import SEEDS, spiky

NAMES = tuple(kernels.ACTIVATIONS)


@njit
def _gated(act: int, gate: Any, i: int, up: Any, j: int, width: int) -> None:
    mlp.gated(act, gate, i, up, j, width)


def gated(name: str, gate: Array, up: Array) -> Array:
    """By the kernel, in the middle of an array, which is as it was around it."""
    width = len(gate)
    here = np.full(width + 20, np.nan, np.float32)
    here[7 : 7 + width] = gate
    _gated(kernels.ACTIVATIONS[name], here, 7, np.concatenate(([np.nan] * 3, up)).astype(np.float32), 3, width)
    assert (np.isnan(here[:7]).all(), np.isnan(here[7 + width :]).all()) == (True, True)
    return here[7 : 7 + width]


def assert_gated(name: str, gate: Array, up: Array) -> None:
    gate, up = gate.astype(np.float32), up.astype(np.float32)
    wide = gate.astype(np.float64)
    exact = ACTIVATIONS[name](wide) * up
    # What goes into exp is rounded some six times, and exp passes on an error in z as z times as much relatively: z is
    # 1.6 (|x| + 0.045 |x| ** 3) or less, until at 87 the result stays at 1e-38. exp itself is off by 2.5e-7, and a
    # quotient and two products round once more each.
    z = np.minimum(1.6 * (np.abs(wide) + 0.045 * np.abs(wide) ** 3), 87)
    room = np.abs(exact) * (6 * 2.0**-24 * z + 5e-7)
    # NumPy's twin in float64 loses small results too: 1 + tanh is rounded at 1e-16. And float32 ends at 1e-45
    room += np.abs(wide * up) * 3e-16 + 2e-45
    if ACTIVATIONS[name].__name__ == "gelu":  # x / 2 times 1 + erf, which is within 6e-7 and rounded once more
        room += np.abs(wide * up) / 2 * (6e-7 + 6e-8)
    off = np.abs(gated(name, gate, up) - exact)
    assert (off <= room).all(), (gate[off > room], off[off > room], room[off > room])


@pytest.mark.parametrize("name", NAMES)
@given(SEEDS, st.integers(1, 5))
@settings(max_examples=10)
def test_the_middle_of_model_mlp(name: str, seed: int, vectors: int) -> None:
    rng = np.random.default_rng(seed)
    assert_gated(name, spiky(rng, 16 * vectors), spiky(rng, 16 * vectors))


@pytest.mark.parametrize("name", NAMES)
def test_over_the_range_of_numbers(name: str) -> None:
    sizes = np.concatenate(([0, 1e-45, 1e-40, 1e-30, 1e-8], np.linspace(0.01, 100, 400), [1e3, 1e5, 1e10, 1e13, 3e20]))
    x = np.concatenate((sizes, -sizes))
    x = np.concatenate((x, np.zeros(-len(x) % 16)))
    assert_gated(name, x, np.ones(len(x)))
    assert_gated(name, x, np.zeros(len(x)))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "relu"])
def test_nan_shows(name: str) -> None:
    x, ones = np.ones(16), np.ones(16)
    x[3] = np.nan
    np.testing.assert_array_equal(np.isnan(gated(name, x, ones)), np.isnan(x))
    np.testing.assert_array_equal(np.isnan(gated(name, ones, x)), np.isnan(x))


@njit
def _erf(x: Any, out: Any) -> None:
    for i in range(0, len(x), 16):
        simd.store(out, i, mlp.erf(simd.load(x, i)))


def test_erf_over_its_range() -> None:
    x = np.concatenate((np.linspace(-6, 6, 100_000), [np.inf, -np.inf, 1e30, -1e30, 1e-30, 0])).astype(np.float32)
    x = np.concatenate((x, np.zeros(-len(x) % 16, np.float32)))
    out = np.empty_like(x)
    _erf(x, out)
    assert np.abs(out - [math.erf(value) for value in x.tolist()]).max() <= 6e-7  # as its docstring says


def test_nan_shows_in_relu() -> None:
    x = np.ones(16)
    x[3] = np.nan
    assert np.isnan(gated("relu", x, np.ones(16))[3])


def test_the_names_are_those_of_the_model() -> None:
    assert set(NAMES) == set(ACTIVATIONS)
    functions = {(kernels.ACTIVATIONS[name], ACTIVATIONS[name]) for name in NAMES}
    assert len(functions) == len(set(kernels.ACTIVATIONS.values()))
