"""bfloat16 in 12 bits: nothing is lost, and products are those of bfloat16 to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.kernels.compressed import survey
from minillama.kernels.floats import COLUMNS, FEW
from minillama.layout import BLOCK, STEPS
from minillama.runtime.packing import Packed, compress, pack
from minillama.weights.formats import narrow
from minillama.weights.quantized import RawTensor
from tests.kernels.products import Matrix, product
from tests.tiny import SEEDS, spiky


def random_bits(rng: np.random.Generator, n_out: int, width: int) -> Array:
    """bfloat16 bits as weights have them, but for a few that are any at all, zero, infinite or NaN among them."""
    bits = narrow((rng.standard_normal((n_out, width)) * 2.0 ** rng.integers(-6, 3)).astype(np.float32), "BF16")
    odd = rng.random(bits.shape) < rng.choice([0, 0.002, 0.1])
    bits[odd] = rng.choice([0, 0x8000, 0x7F80, 0xFFC1, 1, *rng.integers(0, 1 << 16, 5)], odd.sum())
    return bits


def bits_of(x: Array) -> Array:
    return (x.view(np.uint32) >> 16).astype(np.uint16)


@given(SEEDS, st.sampled_from([1, 3, 4, 5, 17, 70]), st.sampled_from([1, 16, 127, 128, 130, 2048, 2050, 2176]))
@settings(max_examples=60)
def test_every_bit_is_there_again(seed: int, n_out: int, width: int) -> None:
    bits = random_bits(np.random.default_rng(seed), n_out, width)
    tensor = compress(RawTensor(bits, "BF16"), threads=2)
    assert (tensor.shape, tensor.dtype) == ((n_out, width), "BF16Z")
    np.testing.assert_array_equal(bits_of(tensor.read(np.float32)), bits)
    rows = np.random.default_rng(seed).integers(0, n_out, (2, 3))
    np.testing.assert_array_equal(bits_of(tensor.read(np.float32, rows)), bits[rows])


def test_usual_weights_take_12_bits_and_little_more() -> None:
    bits = narrow(0.02 * np.random.default_rng(2).standard_normal((512, 2048), np.float32), "BF16")
    tensor = compress(RawTensor(bits, "BF16"))
    taken = 8 * (tensor.numbers.nbytes + tensor.rows.nbytes) / bits.size
    # 12, and half a percent: of blocks of which one number in about 10,000 is below 2^-14 of the largest
    assert 12 < taken < 12.2


@given(SEEDS)
@settings(max_examples=30)
def test_the_least_exponent_leaves_the_fewest_blocks_plain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = narrow((rng.standard_normal((1, 9 * BLOCK)) * 2.0).astype(np.float32), "BF16")
    bits[rng.random(bits.shape) < 0.004] >>= 4
    notes, sizes = np.zeros((1, 2), np.int16), np.zeros(1, np.int64)
    survey(bits, notes, sizes)
    exponents = (bits.reshape(-1, BLOCK) >> 8) & 127

    def plain(low: int) -> int:
        return int(((exponents < low) | (exponents >= low + STEPS)).any(axis=1).sum())

    assert plain(int(notes[0, 0])) == min(map(plain, range(128))) == int(notes[0, 1]).bit_count()
    assert sizes[0] == 9 * 48 + 16 * plain(int(notes[0, 0]))


@pytest.mark.parametrize("columns", [16, 704, COLUMNS - 128, COLUMNS + 16, 2 * COLUMNS + 144])
@pytest.mark.parametrize("n_out", [4, 5, 37, 81])
@pytest.mark.parametrize("far", [0, 0.0005, 0.5])
def test_products_are_those_of_bfloat16_to_the_bit(columns: int, n_out: int, far: float) -> None:
    rng = np.random.default_rng(5)
    bits = narrow(rng.standard_normal((n_out, columns), np.float32), "BF16")
    bits[rng.random(bits.shape) < far] >>= 3
    tensor = RawTensor(bits, "BF16")
    numbers = compress(tensor).read(np.float64)
    plain = Matrix("bf16", pack(tensor, "bf16"), numbers)
    compressed = Matrix("bf16z", pack(compress(tensor), "bf16z"), numbers)
    for n_rows in (1, 2, FEW, FEW + 5):
        x = spiky(rng, n_rows, columns)
        np.testing.assert_array_equal(product(compressed, x), product(plain, x))


@pytest.mark.parametrize("n_rows", [1, 3, 19])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("alone", [False, True])
def test_what_is_no_number_shows(n_rows: int, odd: float, alone: bool) -> None:
    """In a block that is plain for it, and in one whose numbers are all that large."""
    numbers = np.full((5, 256), 3e38 if alone else 1.0, np.float32)
    numbers[3, 200] = odd
    tensor = compress(RawTensor(narrow(numbers, "BF16"), "BF16"))
    assert bool(tensor.rows.reshape(5, -1)[3, 1]) != alone
    out = product(Matrix("bf16z", pack(tensor, "bf16z"), tensor.read(np.float64)), np.full((n_rows, 256), 1e-6))
    assert not np.isfinite(out[:, 3]).any()
    assert np.isfinite(np.delete(out, 3, axis=1)).all()


def test_the_kernels_read_where_a_tensor_lies() -> None:
    tensor = compress(RawTensor(random_bits(np.random.default_rng(8), 20, 300), "BF16"))
    numbers, rows = pack(tensor, "bf16z")
    assert numbers.ctypes.data == tensor.numbers.ctypes.data
    assert rows.ctypes.data == tensor.rows.ctypes.data
    assert isinstance(pack(tensor, "bf16z"), Packed)
    assert numbers.ctypes.data % 64 == 0
