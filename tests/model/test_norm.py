import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.model.norm import rms_norm
from tests.tiny import SEEDS, assert_close, spiky


def test_the_formula_in_loops() -> None:
    rng = np.random.default_rng(1)
    x, weight, eps = spiky(rng, 2, 3, 5), spiky(rng, 5), 1e-2
    expected = np.empty_like(x)
    for b in range(2):
        for t in range(3):
            mean_square = sum(value**2 for value in x[b, t]) / 5
            for d in range(5):
                expected[b, t, d] = x[b, t, d] / math.sqrt(mean_square + eps) * weight[d]
    assert_close(rms_norm(x, weight, eps), expected)


def test_epsilon_is_inside_the_square_root() -> None:
    x = np.full((1, 4), 1e-3)  # its mean square is 1e-6, as large as epsilon
    assert_close(rms_norm(x, np.array([1.0, 2, 3, 4]), 1e-6), np.array([[1.0, 2, 3, 4]]) / math.sqrt(2))


def test_zeros_stay_zeros() -> None:
    assert (rms_norm(np.zeros((2, 3)), np.array([1.0, -2, 5]), 1e-6) == 0).all()


def test_no_mean_is_subtracted() -> None:
    assert_close(rms_norm(np.full((1, 3), -7.0), np.ones(3), 1e-12), np.full((1, 3), -1.0))


@given(SEEDS, st.floats(1e-3, 1e3))
def test_the_length_of_a_row_does_not_matter(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, weight = spiky(rng, 3, 8), spiky(rng, 8)
    assert_close(rms_norm(scale * x, weight, 0.0), rms_norm(x, weight, 0.0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_stays(dtype: str) -> None:
    assert rms_norm(np.ones((2, 4), dtype), np.ones(4, dtype), 1e-5).dtype == dtype
