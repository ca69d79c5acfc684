from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.layout import MADE, QUANTIZED
from minillama.runtime.packing import pack, quantize
from minillama.weights.safetensors import ArrayTensor
from tests.kernels.products import (
    FORMS,
    Matrix,
    assert_as_near_as_float32,
    columns_of,
    float_matrix,
    product,
    random_matrix,
    some_matrix,
)
from tests.tiny import SEEDS, spiky

# Around the tiles of 16 rows, up to eight of which are read side by side, and around the blocks of 2, 4 or 8 rows
N_OUT, N_ROWS = (4, 5, 15, 16, 17, 37, 64, 65, 81, 130, 331), (1, 2, 3, 4, 5, 7, 8, 9, 17)


def width_for(form: str, n: int) -> int:
    return n * (columns_of(form) if form in QUANTIZED else 16)


@pytest.mark.parametrize("form", FORMS)
@given(SEEDS, st.sampled_from(N_OUT), st.integers(1, 7), st.sampled_from(N_ROWS))
@settings(max_examples=20)
def test_every_output_is_the_exact_product_but_for_float32(
    form: str, seed: int, n_out: int, columns: int, n_rows: int
) -> None:
    rng = np.random.default_rng(seed)
    width = width_for(form, columns)
    assert_as_near_as_float32(random_matrix(rng, form, n_out, width), spiky(rng, n_rows, width))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_rows", [1, 6])
def test_activations_far_out_tiny_and_zero(form: str, n_rows: int) -> None:
    rng, matrix = np.random.default_rng(11), some_matrix(form)
    x = rng.standard_normal((n_rows, matrix.numbers.shape[1]))
    x[0, 5] = 3e8  # all others of its group are rounded to 0
    x[-1, 32:64] = 0
    x[-1, 64:] *= 1e-30
    assert_as_near_as_float32(matrix, x)
    np.testing.assert_array_equal(product(matrix, np.zeros_like(x)), 0)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in QUANTIZED or form in MADE])
@pytest.mark.parametrize("n_rows", [1, 6, 9])
@pytest.mark.parametrize("size", [0, 2.0**-16, 1e-40])
def test_weights_of_zeros_and_denormal_ones(form: str, n_rows: int, size: float) -> None:
    """In one row, and in a group of all of them. 2 ** -16 gives denormal float16, or a denormal scale."""
    rng = np.random.default_rng(17)
    numbers = spiky(rng, 37, 96)
    numbers[5], numbers[:, 32:64] = size, size
    if form in QUANTIZED:
        tensor = quantize(ArrayTensor(numbers.astype(np.float32)), form)
        matrix = Matrix(form, pack(tensor, form), tensor.read(np.float64))
    else:
        matrix = float_matrix(form, numbers)
    x = spiky(rng, n_rows, 96)
    assert_as_near_as_float32(matrix, x)
    if size == 0:
        np.testing.assert_array_equal(product(matrix, x)[:, 5], 0)


@pytest.mark.parametrize("form", FORMS)
def test_denormal_activations_of_whole_numbers_vanish_or_stay(form: str) -> None:
    """Where 127 / the largest number of a group is no float32, its whole numbers mean nothing, but nothing large."""
    matrix = some_matrix(form)
    for size in (1e-36, 1e-37, 1e-40, 1e-45):
        x = np.random.default_rng(13).choice([-size, 0, size], (2, matrix.numbers.shape[1])).astype(np.float32)
        x[:, :32] = 1
        near = np.abs(product(matrix, x) - matrix.numbers[:, :32].sum(axis=1))
        # What they would add is below 1e-30 times the weights; float32 rounds the sum of the others
        sizes = np.abs(matrix.numbers) if matrix.sizes is None else matrix.sizes
        assert (near <= 40 * 2.0**-24 * sizes.sum(axis=1)).all()


@pytest.mark.parametrize("form", FORMS)
@given(SEEDS, st.sampled_from(N_OUT), st.sampled_from(N_ROWS))
@settings(max_examples=10)
def test_a_row_alone_and_beside_others_has_the_same_bits(form: str, seed: int, n_out: int, n_rows: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = random_matrix(rng, form, n_out, 2 * columns_of(form))
    x = spiky(rng, n_rows, 2 * columns_of(form))
    alone = np.concatenate([product(matrix, x[i : i + 1]) for i in range(n_rows)])
    np.testing.assert_array_equal(product(matrix, x), alone)
    np.testing.assert_array_equal(product(matrix, x[::-1]), alone[::-1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_rows", [1, 9])
@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(form: str, n_rows: int, threads: int) -> None:
    rng = np.random.default_rng(14)
    matrix = random_matrix(rng, form, 331, 3 * columns_of(form))
    x = rng.standard_normal((n_rows, matrix.numbers.shape[1]))
    np.testing.assert_array_equal(product(matrix, x, threads), product(matrix, x))


@pytest.mark.parametrize("form", FORMS)
def test_a_row_that_is_not_finite_spoils_no_other(form: str) -> None:
    matrix = some_matrix(form)
    x = np.random.default_rng(15).standard_normal((9, matrix.numbers.shape[1]))
    clean = product(matrix, x)
    x[4, 7], x[5, 70] = np.nan, np.inf
    spoiled = product(matrix, x)
    others = [0, 1, 2, 3, 6, 7, 8]
    np.testing.assert_array_equal(spoiled[others], clean[others])
