"""How packed weights lie in memory and in files; kernels/ read this arrangement and weights/ knows it.

The formats of WHOLE have the values of ggml's formats of the same names: whole numbers q with scales, by groups of
GROUP columns of a row. In those called K a block of 256 columns has scales for its parts, which are whole numbers too.

    q8_0, q4_0, q5_0    w = d (q - offset), a float16 d for every group; q of 8, 4 and 5 bits
    q4_1, q5_1          w = d q + m, a float16 d and m for every group
    q4_k, q5_k          w = d scale q - dmin minimum, a float16 d and dmin for a block, and a scale and a minimum of 6
                        bits for each of its 8 groups
    q6_k                w = d scale (q - 32), a float16 d for a block, and a scale of 8 bits for every 16 columns

TILE rows lie together, so that one vector holds a few columns of all of them (rows and columns are filled up with zeros
to whole tiles and blocks). A tile has of each block its numbers, words of 4 bytes [word][row][4], and in another array
its scales:

    numbers  q8_0         8 words: columns 4 k .. 4 k + 3
             q4_0, q4_1   4 words: in the low half of a byte from the first 16 columns of the group, in the high half
                          from the column 16 further
             q5_0, q5_1   the same, and a word with the fifth bits: of its byte c bit k belongs to column 4 k + c
             q4_k         32 words, as ggml has them: 8 for two groups, the low halves of one, the high ones of the next
             q5_k         the same, and 8 words with the fifth bits: bit g belongs to group g
             q6_k         32 words: of a half of the block 8 for its groups 0 and 2, 8 for 1 and 3, in the low and the
                          high halves; and 16 with two bits more: 8 for each half, bits 2 g and 2 g + 1 of its group g
    scales   16 float16 d; then, where there are, 16 m or dmin
             q4_k, q5_k   12 planes of 16 bytes: plane g has the scale of group g in its low 6 bits and in the upper two
                          those of its minimum; plane 8 + g / 2 has the minimum's other 4, as numbers of 4 bits lie
             q6_k         16 planes of 16 signed bytes, one for every 16 columns

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

from collections.abc import Iterable
from typing import NamedTuple

GROUP = 32
TILE = 16


class Whole(NamedTuple):
    """A format of whole numbers with scales. block: columns that share scales. numbers, scales: bytes of a block of one
    row. offset: what is taken off a number. terms: what its products need to know of a group of activations, see
    terms_of."""

    bits: int
    block: int
    numbers: int
    scales: int
    offset: int
    terms: tuple[str, ...]

    @property
    def bits_of_all(self) -> float:
        """Of a weight and its part of the scales."""
        return 8 * (self.numbers + self.scales) / self.block


WHOLE = {
    "q8_0": Whole(8, GROUP, 32, 2, 128, ("128 sums",)),
    "q4_0": Whole(4, GROUP, 16, 2, 8, ("8 sums",)),
    "q4_1": Whole(4, GROUP, 16, 4, 0, ("scaled sum",)),
    "q5_0": Whole(5, GROUP, 20, 2, 16, ("16 sums",)),
    "q5_1": Whole(5, GROUP, 20, 4, 0, ("scaled sum",)),
    "q4_k": Whole(4, 256, 128, 16, 0, ("scaled sum",)),
    "q5_k": Whole(5, 256, 160, 16, 0, ("scaled sum",)),
    "q6_k": Whole(6, 256, 192, 18, 32, ("32 low sums", "32 high sums")),
}
QUANTIZED = tuple(WHOLE)
MADE = ("q8_0", "q4_0")  # those that weights are quantized to here; the others are read
COMPRESSED = "bf16z"
PACKED = (COMPRESSED, *QUANTIZED)  # a matrix is two arrays
# A weight and its part of a scale; of bf16z, as matrices usually come out
BITS = {"f64": 64.0, "f32": 32.0, "f16": 16.0, "bf16": 16.0, "bf16z": 12.1} | {
    name: form.bits_of_all for name, form in WHOLE.items()
}

BLOCK = 128  # columns, of bf16z
WORDS, FAR = 48, 64  # of 4 bytes, of a block
STEPS = 8  # exponents that a code tells apart, but for their last bit
LEAST_ROWS = 4  # smaller matrices are filled up: kernels read so many rows side by side


def rounded_up(n: int, multiple: int) -> int:
    """n, or the next multiple above it."""
    return -(-n // multiple) * multiple


def tile_bytes(form: str) -> int:
    """Bytes of the numbers of a block in a tile."""
    return TILE * WHOLE[form].numbers


def tile_scales(form: str) -> int:
    """Numbers of 16 bits that the scales of a block in a tile take."""
    return TILE * WHOLE[form].scales // 2


def terms_of(forms: Iterable[str]) -> tuple[str, ...]:
    """What the products with weights in these formats need to know of each group of activations, beside its whole
    numbers and their scale: its sum times an offset, or that of its low or high half, all made negative; or its sum
    times its scale, which the minima are multiplied by."""
    return tuple(dict.fromkeys(term for form in forms for term in WHOLE[form].terms))


def note_words(width: int) -> int:
    """Numbers that are known of a row of bf16z: `low`, and a bit for every block, 16 together."""
    blocks = (width + BLOCK - 1) // BLOCK
    return 1 + (blocks + 15) // 16


def block_place(column: int) -> int:
    """Which byte of 64 belongs to a column of a block: a plain interleaving of bytes then makes vectors of columns that
    are neighbours."""
    vector, lane = column % 64 // 16, column % 16
    return 16 * (lane // 4) + 8 * (vector // 2) + 2 * (lane % 4) + vector % 2
