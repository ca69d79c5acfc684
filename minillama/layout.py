"""How packed weights lie in memory and in files; kernels/ read this arrangement and weights/ knows it.

q8_0 and q4_0 have the values of ggml's formats of the same names: GROUP columns of a row share a float16 scale d, and a
weight is d times a whole number, -127 .. 127 for q8_0 and -8 .. 7 for q4_0.

TILE rows lie together, so that one vector holds a few columns of all of them (rows and columns are filled up with zeros
to whole tiles and groups). OFFSET is added to every number, which makes it unsigned:

    q8_0    bytes [tile][group][column / 4][row][4]
    q4_0    bytes [tile][group][column / 4 of 16][row][4], the low half of a byte from the first 16 columns of the
            group, the high half from the column 16 further
    scales  float16 [tile][group][row]

bf16z is bfloat16, not a bit of it lost. The exponents of a row are much the same, so that 4 of a number's 16 bits need
not be kept. A row is blocks of BLOCK columns (filled up with any numbers), one after the other:

    near    WORDS words. 128 bytes are the lower halves of the numbers: the fraction, and the last bit of the exponent.
            64 bytes are codes of 4 bits, in the low half of a byte from the first 64 columns, in the high half from the
            others: the sign, and how many the other seven bits of the exponent are above `low`, 0 .. 7. Where a column
            has its byte, of 64, block_place says: so that a vector of numbers is made with few instructions.
    far     FAR words, plain bfloat16, where a number's exponent is further off.

    numbers uint32, for each row how many words further on than this one its blocks begin, filled up to 16 words; blocks
    rows    int16 [row][1 + blocks / 16], `low` and then a bit for each block, 1 where it is far
"""

from __future__ import annotations

GROUP = 32
TILE = 16
OFFSET = {"q8_0": 128, "q4_0": 8}
BITS = {
    "f64": 64.0,
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "bf16z": 12.1,
    "q8_0": 8.5,
    "q4_0": 4.5,
}  # a weight and its part of a scale; of bf16z, as matrices usually come out
QUANTIZED = ("q8_0", "q4_0")
COMPRESSED = "bf16z"
PACKED = (COMPRESSED, *QUANTIZED)  # a matrix is two arrays

BLOCK = 128  # columns, of bf16z
WORDS, FAR = 48, 64  # of 4 bytes, of a block
STEPS = 8  # exponents that a code tells apart, but for their last bit
LEAST_ROWS = 4  # smaller matrices are filled up: kernels read so many rows side by side


def rounded_up(n: int, multiple: int) -> int:
    """n, or the next multiple above it."""
    return -(-n // multiple) * multiple


def tile_bytes(form: str) -> int:
    """Bytes of a group of columns in a tile."""
    return GROUP * TILE // (2 if form == "q4_0" else 1)


def note_words(width: int) -> int:
    """Numbers that are known of a row of bf16z: `low`, and a bit for every block, 16 together."""
    blocks = (width + BLOCK - 1) // BLOCK
    return 1 + (blocks + 15) // 16


def block_place(column: int) -> int:
    """Which byte of 64 belongs to a column of a block: a plain interleaving of bytes then makes vectors of columns that
    are neighbours."""
    vector, lane = column % 64 // 16, column % 16
    return 16 * (lane // 4) + 8 * (vector // 2) + 2 * (lane % 4) + vector % 2
