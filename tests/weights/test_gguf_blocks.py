"""ggml's formats of blocks, beside the gguf package's own way to read them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from minillama.weights.gguf_blocks import BLOCKS, UNREAD, Block, q4_0, q6_k

OF_BLOCKS = {number: block for number, block in BLOCKS.items() if block.dequantize is not None}


@pytest.mark.parametrize("number", OF_BLOCKS)
def test_the_same_numbers_as_the_gguf_package(number: int) -> None:
    """Blocks of any bytes, scales that are infinite or no numbers among them."""
    block, kind = OF_BLOCKS[number], gguf.GGMLQuantizationType(number)
    blocks = np.random.default_rng(number).integers(0, 256, (500, block.nbytes), np.uint8)
    assert block.dequantize is not None
    with np.errstate(all="ignore"):
        ours, theirs = block.dequantize(blocks), gguf.quants.dequantize(blocks, kind)
    assert ours.shape == (500, block.size)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)


def test_names_and_sizes_are_those_of_the_gguf_package() -> None:
    theirs = {kind.value: Block(kind.name, *sizes)[:3] for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: block[:3] for number, block in BLOCKS.items()} == {number: theirs[number] for number in BLOCKS}
    assert {number: theirs[number][0] for number in UNREAD} == UNREAD
    assert not UNREAD.keys() & BLOCKS.keys()


def test_a_block_by_hand() -> None:
    """As ggml-common.h describes them: a scale of 0.5, then low halves of the first 16 weights, high of the others."""
    block = np.array([[0x00, 0x38, *range(0x10, 0x100, 0x10), 0x9F]], np.uint8)
    low, high = [-4.0] * 15 + [3.5], [0.5 * (n - 8) for n in range(1, 16)] + [0.5]
    np.testing.assert_array_equal(q4_0(block), [[*low, *high]])
    # of Q6_K: all numbers 0, which is -32; scales 1, 2, ... of 16 weights each; d = 2
    sixes = np.zeros((1, 210), np.uint8)
    sixes[0, 192:208], sixes[0, 208:] = np.arange(1, 17), [0x00, 0x40]
    np.testing.assert_array_equal(q6_k(sixes), [np.repeat(np.arange(1, 17) * 2 * -32.0, 16)])
