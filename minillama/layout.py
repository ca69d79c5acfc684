"""How quantized weights lie in memory and in files; kernels/ read this arrangement and weights/ knows it.

Both formats have the values of ggml's formats of the same names: GROUP columns of a row share a float16 scale d, and a
weight is d times a whole number, -127 .. 127 for q8_0 and -8 .. 7 for q4_0.

TILE rows lie together, so that one vector holds a few columns of all of them (rows and columns are filled up with zeros
to whole tiles and groups). OFFSET is added to every number, which makes it unsigned:

    q8_0    bytes [tile][group][column / 4][row][4]
    q4_0    bytes [tile][group][column / 4 of 16][row][4], the low half of a byte from the first 16 columns of the
            group, the high half from the column 16 further
    scales  float16 [tile][group][row]
"""

GROUP = 32
TILE = 16
OFFSET = {"q8_0": 128, "q4_0": 8}
BITS = {
    "f64": 64.0,
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q4_0": 4.5,
}  # a weight and its part of a scale
QUANTIZED = ("q8_0", "q4_0")


def rounded_up(n: int, multiple: int) -> int:
    """n, or the next multiple above it."""
    return -(-n // multiple) * multiple


def tile_bytes(form: str) -> int:
    """Bytes of a group of columns in a tile."""
    return GROUP * TILE // (2 if form == "q4_0" else 1)
