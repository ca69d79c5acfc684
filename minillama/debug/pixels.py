"""Numbers from -1 to 1 as the pixels of a small picture, in a data: URI.

A pixel is blue or orange by its sign and the more transparent the nearer to 0, which suits a light page and a dark one.
Large arrays are drawn in blocks: a pixel is the largest number of its block, so that no single one is lost.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib

import numpy as np

from minillama.arrays import Array

ROWS, COLUMNS = 160, 320  # of a picture at most: what a telephone shows without leaving some out
SHADES = 63  # from -1 over 0, the one in the middle, to 1
NONE = SHADES  # what is no number, or infinite
NEGATIVE, POSITIVE, NO_NUMBER = (38, 118, 222), (226, 88, 0), (208, 0, 148)


def picture(values: Array, block: tuple[int, int]) -> str:
    """An array (rows, columns), drawn in blocks of so many rows and columns."""
    values = largest(values, block)
    shades = np.rint((np.clip(values, -1, 1) + 1) / 2 * (SHADES - 1))
    return png(np.where(np.isfinite(values), shades, NONE))


def legend() -> str:
    """All shades from -1 to 1, a pixel each."""
    return png(np.arange(SHADES)[None])


def block_of(shape: tuple[int, int], pixels: int) -> tuple[int, int]:
    """The smallest block with which a picture has no more than so many pixels, ROWS and COLUMNS."""
    rows, columns = math.ceil(shape[0] / ROWS), math.ceil(shape[1] / COLUMNS)
    while (high := math.ceil(shape[0] / rows)) * (wide := math.ceil(shape[1] / columns)) > pixels:
        rows, columns = (rows + 1, columns) if high > wide else (rows, columns + 1)
    return rows, columns


def largest(values: Array, block: tuple[int, int]) -> Array:
    """Of each block the number with the largest absolute value; what is not finite is larger than all."""
    (rows, columns), (high, wide) = values.shape, block
    padded = np.pad(values, ((0, -rows % high), (0, -columns % wide)))  # zeros are never larger
    tiles = padded.reshape(len(padded) // high, high, -1, wide).swapaxes(1, 2)
    blocks = tiles.reshape(*tiles.shape[:2], -1)
    at = np.where(np.isfinite(blocks), np.abs(blocks), np.inf).argmax(axis=-1)
    return np.take_along_axis(blocks, at[..., None], axis=-1)[..., 0]


def palette() -> list[tuple[int, int, int, int]]:
    """Red, green, blue and opacity of every shade, 0 to 255. Opacity rises faster at first, as small numbers are many
    and should be seen."""
    tints = np.linspace(-1, 1, SHADES)
    opacity = np.rint(255 * np.abs(tints) ** 0.8)
    shades = [(*(NEGATIVE if tint < 0 else POSITIVE), int(alpha)) for tint, alpha in zip(tints, opacity, strict=True)]
    return [*shades, (*NO_NUMBER, 255)]


def png(shades: Array) -> str:
    """A picture of shades (rows, columns) as a PNG with a palette (W3C, "Portable Network Graphics", 3rd edition)."""
    rows, columns = shades.shape
    colours = palette()
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)  # 8 bits a pixel, of a palette
    lines = np.pad(shades.astype(np.uint8), ((0, 0), (1, 0)))  # before each line the number of its filter: none
    parts = {
        b"IHDR": header,
        b"PLTE": bytes(value for colour in colours for value in colour[:3]),
        b"tRNS": bytes(colour[3] for colour in colours),
        b"IDAT": zlib.compress(lines.tobytes(), 9),
        b"IEND": b"",
    }
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts.items()
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()
