"""Products with weights that are floats; what is true of those of any kind is in test_linear.py."""

from __future__ import annotations

import numpy as np
import pytest

from minillama.kernels.floats import COLUMNS, FEW, STREAMS
from minillama.layout import LEAST_ROWS, QUANTIZED
from minillama.weights.safetensors import ArrayTensor
from tests.kernels.products import (
    FORMS,
    assert_as_near_as_float32,
    float_matrix,
    product,
    random_matrix,
    some_matrix,
)
from tests.tiny import spiky

FLOATS = tuple(form for form in FORMS if form not in QUANTIZED)


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize("n_rows", [1, 2, FEW])
def test_rows_that_are_left_over_by_the_streams(form: str, n_rows: int) -> None:
    rng = np.random.default_rng(19)
    for n_out in range(LEAST_ROWS, 3 * max(STREAMS, 2) + 2):
        assert_as_near_as_float32(random_matrix(rng, form, n_out, 48), spiky(rng, n_rows, 48))


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize("columns", [COLUMNS - 16, COLUMNS, COLUMNS + 16, 2 * COLUMNS + 48])
def test_more_columns_than_are_widened_at_a_time(form: str, columns: int) -> None:
    rng = np.random.default_rng(10)
    matrix, x = random_matrix(rng, form, 37, columns), spiky(rng, FEW + 5, columns)
    assert_as_near_as_float32(matrix, x)
    alone = np.concatenate([product(matrix, row[None]) for row in x])
    np.testing.assert_array_equal(product(matrix, x), alone)
    np.testing.assert_array_equal(product(matrix, x[:FEW]), alone[:FEW])


@pytest.mark.parametrize("form", FLOATS)
def test_denormal_activations_are_numbers_like_others(form: str) -> None:
    x = np.full((3, 96), 2.0**-140)
    assert_as_near_as_float32(float_matrix(form, np.random.default_rng(12).standard_normal((16, 96))), x)


@pytest.mark.parametrize("form", FLOATS)
def test_denormal_and_extreme_weights_are_read_exactly(form: str) -> None:
    kinds = {"f32": [1e-45, 3e38, -(2.0**-126)], "f16": [2.0**-24, 65504, -(2.0**-15)], "bf16": [1e-40, 3e38, -1e-39]}
    kinds["bf16z"] = kinds["bf16"]
    weights = np.zeros((5, 48), np.float32)
    weights[:, 17] = kinds[form] + [0, 1.5]
    matrix = float_matrix(form, weights)
    x = np.zeros((3, 48))
    x[:, 17] = 1
    np.testing.assert_array_equal(product(matrix, x), np.tile(matrix.numbers[:, 17], (3, 1)))


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows(form: str, bad: float) -> None:
    x = np.ones((2, 96))
    x[1, 50] = bad
    assert not np.isfinite(product(some_matrix(form), x)[1]).any()


@pytest.mark.parametrize("form", FLOATS)
def test_the_numbers_of_a_matrix_are_those_of_its_tensor(form: str) -> None:
    """What the tests compare with is what the rest of the package reads."""
    x = np.random.default_rng(16).standard_normal((4, 16)).astype(np.float32)
    kept = x.astype(np.float16) if form == "f16" else x
    if form not in ("bf16", "bf16z"):
        np.testing.assert_array_equal(float_matrix(form, x).numbers, ArrayTensor(kept).read(np.float64))
