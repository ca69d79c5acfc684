"""ggml's number formats: blocks of 32 or 256 weights of a row that share scales.

In the older ones a weight is d q, or d q + m. In those called K a block of 256 has 8 or 16 parts with scales of their
own, whole numbers that d (and for minima dmin) is multiplied by. docs/formats.md has each to the bit; source: the
structures and the functions dequantize_row_* in ggml-common.h and ggml-quants.c of the ggml repository.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minillama.arrays import Array

Dequantize = Callable[[Array], Array]


class Block(NamedTuple):
    """A format: how many weights a block has, and in how many bytes. dequantize: blocks (N, nbytes) of bytes to float32
    (N, size); None for plain numbers."""

    name: str
    size: int
    nbytes: int
    dequantize: Dequantize | None = None


def _half(bytes_: Array) -> Array:
    """float16 in two bytes each, (N, 2) -> (N, 1) float32."""
    return np.ascontiguousarray(bytes_).view("<f2").astype(np.float32)


def _nibbles(bytes_: Array) -> Array:
    """(N, M) -> (N, 2, M): the low halves of the bytes, then the high ones."""
    return np.stack((bytes_ & 15, bytes_ >> 4), axis=1)


def _fifth_bits(bytes_: Array) -> Array:
    """Four bytes, a bit a weight, the lowest first: (N, 4) -> (N, 32), 16 or 0."""
    return np.unpackbits(bytes_, axis=1, bitorder="little") << 4


def q8_0(blocks: Array) -> Array:
    return _half(blocks[:, :2]) * blocks[:, 2:].view(np.int8)


def q4_0(blocks: Array) -> Array:
    numbers = _nibbles(blocks[:, 2:]).reshape(-1, 32).astype(np.float32) - 8
    return np.asarray(_half(blocks[:, :2]) * numbers)


def q4_1(blocks: Array) -> Array:
    return _half(blocks[:, :2]) * _nibbles(blocks[:, 4:]).reshape(-1, 32) + _half(blocks[:, 2:4])


def q5_0(blocks: Array) -> Array:
    numbers = _nibbles(blocks[:, 6:]).reshape(-1, 32) | _fifth_bits(blocks[:, 2:6])
    return np.asarray(_half(blocks[:, :2]) * (numbers.astype(np.float32) - 16))


def q5_1(blocks: Array) -> Array:
    numbers = _nibbles(blocks[:, 8:]).reshape(-1, 32) | _fifth_bits(blocks[:, 4:8])
    return _half(blocks[:, :2]) * numbers + _half(blocks[:, 2:4])


def scales_and_minima(packed: Array) -> tuple[Array, Array]:
    """Eight scales and eight minima of six bits in 12 bytes, (N, 12) -> (N, 8) each.

    The first four of each are the low six bits of bytes 0..3 and 4..7. The others have their low four bits in bytes
    8..11, the scale's below the minimum's, and their upper two where those left two bits free.
    """
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate((first & 63, third & 15 | first >> 6 << 4), axis=1)
    minima = np.concatenate((second & 63, third >> 4 | second >> 6 << 4), axis=1)
    return scales, minima


def _parts(blocks: Array, numbers: Array) -> Array:
    """d scale q - dmin minimum for eight parts of 32 numbers (N, 8, 32) each."""
    scales, minima = scales_and_minima(blocks[:, 4:16])
    scaled = (_half(blocks[:, :2]) * scales)[:, :, None] * numbers
    return np.asarray((scaled - (_half(blocks[:, 2:4]) * minima)[:, :, None]).reshape(-1, 256))


def q4_k(blocks: Array) -> Array:
    # 32 bytes hold two parts: the low halves one, the high ones the next
    return _parts(blocks, _nibbles(blocks[:, 16:].reshape(-1, 32)).reshape(-1, 8, 32))


def q5_k(blocks: Array) -> Array:
    low = _nibbles(blocks[:, 48:].reshape(-1, 32)).reshape(-1, 8, 32)
    bits = np.arange(8, dtype=np.uint8)[:, None]  # bit p of 32 bytes belongs to part p
    return _parts(blocks, low | ((blocks[:, 16:48][:, None, :] >> bits) & 1) << 4)


def q6_k(blocks: Array) -> Array:
    # Halves of 128 weights: 64 bytes with low halves, first of weights 0..63 and then of 64..127, and 32 bytes with two
    # bits each of weights n, n + 32, n + 64 and n + 96
    low = _nibbles(blocks[:, :128].reshape(-1, 64)).reshape(-1, 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3
    numbers = (low | high << 4).reshape(-1, 16, 16).astype(np.float32) - 32
    scales = _half(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8)
    return np.asarray((scales[:, :, None] * numbers).reshape(-1, 256))


# By the number that a file has for it
BLOCKS = {
    0: Block("F32", 1, 4),
    1: Block("F16", 1, 2),
    2: Block("Q4_0", 32, 18, q4_0),
    3: Block("Q4_1", 32, 20, q4_1),
    6: Block("Q5_0", 32, 22, q5_0),
    7: Block("Q5_1", 32, 24, q5_1),
    8: Block("Q8_0", 32, 34, q8_0),
    12: Block("Q4_K", 256, 144, q4_k),
    13: Block("Q5_K", 256, 176, q5_k),
    14: Block("Q6_K", 256, 210, q6_k),
    28: Block("F64", 1, 8),
    30: Block("BF16", 1, 2),
}
# Formats that are not read, by the names that people know
UNREAD = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 29: "IQ1_M",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
