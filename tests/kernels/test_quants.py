"""Products of groups of whole numbers, in every format: exact integers, and one order of everything else."""

from __future__ import annotations

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.kernels.linear import ROWS
from minillama.layout import GROUP, QUANTIZED, TILE, WHOLE, tile_bytes, tile_scales
from minillama.runtime.packing import KINDS, Packed
from minillama.weights.gguf_blocks import BLOCKS
from minillama.weights.quantized import QuantizedTensor
from minillama.weights.tiles import Parts, blocks_of, numbers_of, scales_of, to_blocks, to_parts
from tests.kernels.products import Matrix, columns_of, product, random_matrix, some_matrix

FORMATS = {block.name.lower(): block for block in BLOCKS.values() if block.name.lower() in WHOLE}


def single_scales(form: str, numbers: Array) -> Matrix:
    """A matrix of one tile whose scales are 1 and minima 0 or, of parts, one power of two for all."""
    blocks = numbers.size // tile_bytes(form)
    one = np.zeros((TILE, blocks, 2 if WHOLE[form].scales in (4, 16) else 1), np.uint16)
    one[:, :, 0] = np.float16(1).view(np.uint16)
    planes = np.full((TILE, blocks, {16: 12, 18: 16}.get(WHOLE[form].scales, 0)), 1, np.uint8)
    planes[:, :, 8:12] = 0 if WHOLE[form].scales == 16 else 1
    scales = scales_of(Parts(np.zeros((TILE, blocks, 0), np.uint8), one, planes))
    tensor = QuantizedTensor(form, (TILE, blocks * WHOLE[form].block), numbers, scales)
    return Matrix(form, Packed(numbers.view(KINDS[form]), scales.view(np.int16)), tensor.read(np.float64))


@pytest.mark.parametrize("form", QUANTIZED)
@pytest.mark.parametrize("n_rows", [1, ROWS])
def test_whole_numbers_are_multiplied_exactly(form: str, n_rows: int) -> None:
    """The least and the largest of both sides too, where sums of 16 bits could overflow. Activations are whole numbers
    with 127 among them, so that their scale is 1; all sums stay below 2 ** 24, and float32 has them to the last bit."""
    rng, width = np.random.default_rng(33), columns_of(form)
    for stored in ([0], [255], [0, 255], [127, 128], [0x0F, 0xF0], range(256)):
        numbers = rng.choice(np.array(stored, np.uint8), tile_bytes(form))
        matrix = single_scales(form, numbers)
        for choice in ([-127], [127], [-127, 127], [127, 0], range(-127, 128)):
            x = rng.choice(np.array(choice), (n_rows, width))
            x[:, ::GROUP] = 127
            np.testing.assert_array_equal(product(matrix, x), x @ matrix.numbers.T)


@pytest.mark.parametrize("form", QUANTIZED)
@pytest.mark.parametrize("n_rows", [1, ROWS + 3])
def test_other_weights_beside_read_the_same_activations(form: str, n_rows: int) -> None:
    matrix = some_matrix(form)
    x = np.random.default_rng(6).standard_normal((n_rows, matrix.numbers.shape[1]))
    for beside in (("q8_0",), ("q6_k", "q4_k"), QUANTIZED):
        np.testing.assert_array_equal(product(matrix, x, beside=beside), product(matrix, x))


@pytest.mark.parametrize("form", QUANTIZED)
def test_a_scale_that_is_no_number_is_seen_in_its_row_alone(form: str) -> None:
    matrix = random_matrix(np.random.default_rng(7), form, 32, columns_of(form))
    scales = matrix.packed.scales.copy()
    scales[tile_scales(form) + 3] = np.float16(np.nan).view(np.int16)  # the first scale of row 19
    broken = matrix._replace(packed=matrix.packed._replace(scales=scales))
    x = np.ones((1, columns_of(form)))
    off = product(broken, x) != product(matrix, x)
    assert np.flatnonzero(off[0]).tolist() == [19]
    assert np.isnan(product(broken, x)[0, 19])


# -- blocks and tiles ---------------------------------------------------------------------------------------------


def any_blocks(form: str, n: int) -> Array:
    return np.random.default_rng(8).integers(0, 256, (n, 3, FORMATS[form].nbytes), np.uint8)


@pytest.mark.parametrize("form", QUANTIZED)
def test_tiles_have_the_bytes_of_the_blocks(form: str) -> None:
    blocks = any_blocks(form, 37)
    parts = to_parts(form, blocks)
    np.testing.assert_array_equal(to_blocks(form, parts), blocks)
    numbers, scales = numbers_of(parts), scales_of(parts)
    assert numbers.nbytes + scales.nbytes == 48 * 3 * FORMATS[form].nbytes  # rows of padding included
    rows = np.random.default_rng(9).permutation(37)
    np.testing.assert_array_equal(blocks_of(form, numbers, scales, 3 * FORMATS[form].size, rows), blocks[rows])


@pytest.mark.parametrize("form", QUANTIZED)
@pytest.mark.parametrize("scale", [0.0, -1.5, 65504.0, np.inf, np.nan])
def test_matrices_read_as_ggml_reads_their_blocks(form: str, scale: float) -> None:
    """Random blocks, and those whose first scale is 0, negative, so large that products overflow, or no number."""
    blocks = any_blocks(form, 20)
    place = FORMATS[form].nbytes - 2 if form == "q6_k" else 0
    blocks[:, 1, place : place + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    parts = to_parts(form, blocks)
    tensor = QuantizedTensor(form, (20, 3 * FORMATS[form].size), numbers_of(parts), scales_of(parts))
    dequantize = FORMATS[form].dequantize
    assert dequantize is not None
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = dequantize(blocks.reshape(-1, FORMATS[form].nbytes)).reshape(20, -1)
    np.testing.assert_array_equal(tensor.read(np.float32), wanted)
    np.testing.assert_array_equal(tensor.read(np.float32, np.array([7, 3])), wanted[[7, 3]])
