"""Blocks of ggml's formats as tiles that kernels read (minillama.layout says how both lie), and back: the same numbers
in another order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minillama.arrays import Array
from minillama.layout import TILE, WHOLE, rounded_up, tile_scales
from minillama.weights.gguf_blocks import BLOCKS, scales_and_minima

FORMATS = {block.name.lower(): block for block in BLOCKS.values() if block.name.lower() in WHOLE}
# What a block has, in ggml's order, and how many bytes: float16 scales "d" and "m", scales of parts, and numbers, of
# which the lower four bits or all, and those above
FIELDS: dict[str, dict[str, int]] = {
    "q8_0": {"d": 2, "low": 32},
    "q4_0": {"d": 2, "low": 16},
    "q4_1": {"d": 2, "m": 2, "low": 16},
    "q5_0": {"d": 2, "high": 4, "low": 16},
    "q5_1": {"d": 2, "m": 2, "high": 4, "low": 16},
    "q4_k": {"d": 2, "m": 2, "scales": 12, "low": 128},
    "q5_k": {"d": 2, "m": 2, "scales": 12, "high": 32, "low": 128},
    "q6_k": {"low": 128, "high": 64, "scales": 16, "d": 2},
}


class Parts(NamedTuple):
    """Blocks of some rows: the bytes of their numbers (rows, blocks, ..), their float16 scales as uint16, and bytes of
    scales."""

    numbers: Array
    halves: Array
    planes: Array


def to_parts(form: str, blocks: Array) -> Parts:
    """Blocks (rows, blocks, bytes) as what tiles have of them."""
    ends = np.cumsum([*FIELDS[form].values()])[:-1]
    field = dict(zip(FIELDS[form], np.split(blocks, ends, axis=2), strict=True))
    low, high = field["low"], field.get("high")
    if form == "q8_0":
        low = low ^ 128  # which adds 128 to an int8
    if high is not None and WHOLE[form].block == 32:
        high = _by_column_of_four(high)
    halves = [np.ascontiguousarray(field[name]).view("<u2") for name in ("d", "m") if name in field]
    planes = field.get("scales", blocks[:, :, :0])
    if has_six_bits(form):
        planes = _in_planes(planes)
    return Parts(low if high is None else np.concatenate((low, high), axis=2), np.concatenate(halves, axis=2), planes)


def has_six_bits(form: str) -> bool:
    """Whether the scales of parts are packed, with minima among them."""
    return {"scales", "m"} <= FIELDS[form].keys()


def to_blocks(form: str, parts: Parts) -> Array:
    """The inverse."""
    size = FIELDS[form]["low"]
    low, high = parts.numbers[:, :, :size], parts.numbers[:, :, size:]
    if high.shape[2] and WHOLE[form].block == 32:
        high = _by_place(high)
    bytes_ = np.ascontiguousarray(parts.halves, "<u2").view(np.uint8)
    planes = _out_of_planes(parts.planes) if has_six_bits(form) else parts.planes
    field = {"low": low ^ 128 if form == "q8_0" else low, "high": high, "scales": planes}
    field |= {"d": bytes_[:, :, :2], "m": bytes_[:, :, 2:]}
    return np.concatenate([field[name] for name in FIELDS[form]], axis=2)


def _by_column_of_four(bits: Array) -> Array:
    """The fifth bits of a group, bit n of 4 bytes for column n: bit k of byte c for column 4 k + c."""
    by_four = np.unpackbits(bits, axis=2, bitorder="little").reshape(*bits.shape[:2], 8, 4)
    return np.packbits(by_four.swapaxes(2, 3), axis=3, bitorder="little")[..., 0]


def _by_place(bits: Array) -> Array:
    by_byte = np.unpackbits(bits, axis=2, bitorder="little").reshape(*bits.shape[:2], 4, 8)
    return np.packbits(by_byte.swapaxes(2, 3).reshape(*bits.shape[:2], 32), axis=2, bitorder="little")


def _in_planes(packed: Array) -> Array:
    """ggml's 12 bytes of scales and minima (see gguf_blocks.py) as the 12 that tiles have."""
    scales, minima = (part.reshape(*packed.shape[:2], 8) for part in scales_and_minima(packed.reshape(-1, 12)))
    return np.concatenate((scales | minima >> 4 << 6, minima[:, :, ::2] & 15 | minima[:, :, 1::2] << 4), axis=2)


def _out_of_planes(planes: Array) -> Array:
    scales, lower = planes[:, :, :8] & 63, planes[:, :, 8:]
    minima = np.stack((lower & 15, lower >> 4), axis=3).reshape(scales.shape) | planes[:, :, :8] >> 6 << 4
    first = scales[:, :, :4] | scales[:, :, 4:] >> 4 << 6
    second = minima[:, :, :4] | minima[:, :, 4:] >> 4 << 6
    return np.concatenate((first, second, scales[:, :, 4:] & 15 | minima[:, :, 4:] << 4), axis=2)


# -- tiles --------------------------------------------------------------------------------------------------------


def numbers_of(parts: Parts) -> Array:
    """The numbers of some rows, uint8, tile by tile."""
    return _tiles(np.ascontiguousarray(parts.numbers).view(np.uint32)).reshape(-1).view(np.uint8)


def scales_of(parts: Parts) -> Array:
    """Their scales, as float16, whatever they are."""
    halves, planes = _tiles(parts.halves), _tiles(parts.planes)
    both = [part.reshape(*part.shape[:2], -1).view(np.uint16) for part in (halves, planes)]
    return np.concatenate(both, axis=2).reshape(-1).view(np.float16)


def blocks_of(form: str, numbers: Array, scales: Array, width: int, rows: Array) -> Array:
    """Some rows of a matrix in tiles, `width` columns wide, as ggml's blocks (rows, blocks, bytes)."""
    blocks = rounded_up(width, WHOLE[form].block) // WHOLE[form].block
    tile, row = rows // TILE, rows % TILE
    words = numbers.view(np.uint32).reshape(-1, blocks, WHOLE[form].numbers // 4, TILE)[tile, :, :, row]
    beside = scales.view(np.uint16).reshape(-1, blocks, tile_scales(form))
    count = 2 if "m" in FIELDS[form] else 1
    halves = beside[:, :, : count * TILE].reshape(-1, blocks, count, TILE)[tile, :, :, row]
    planes = scales.view(np.uint8).reshape(len(beside), blocks, -1)[:, :, 2 * count * TILE :]
    planes = planes.reshape(len(beside), blocks, planes.shape[2] // TILE, TILE)[tile, :, :, row]
    return to_blocks(form, Parts(np.ascontiguousarray(words).view(np.uint8), halves, planes))


def read_rows(form: str, numbers: Array, scales: Array, width: int, rows: Array) -> Array:
    """The same as float32, (rows, width)."""
    stored = blocks_of(form, numbers, scales, width, rows)
    dequantize = FORMATS[form].dequantize
    assert dequantize is not None
    with np.errstate(over="ignore", invalid="ignore"):  # NaN scales: the result shows them
        floats = dequantize(stored.reshape(-1, stored.shape[2]))
    return floats.reshape(len(rows), stored.shape[1] * FORMATS[form].size)[:, :width]


def _tiles(rows: Array) -> Array:
    """(rows, blocks, n) -> (tiles, blocks, n, 16), filled up with rows of zeros."""
    count = rounded_up(len(rows), TILE)
    if count > len(rows):
        rows = np.pad(rows, ((0, count - len(rows)), (0, 0), (0, 0)))
    return np.ascontiguousarray(rows.reshape(count // TILE, TILE, *rows.shape[1:]).transpose(0, 2, 3, 1))
