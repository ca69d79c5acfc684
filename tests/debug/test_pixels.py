"""Numbers as pictures: which shade each has, what a block shows, and that the file is a PNG."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.debug.pixels import NONE, SHADES, block_of, largest, legend, picture


def pixels(uri: str | None) -> Array:
    """The shades of a picture, read as the standard says."""
    assert uri is not None
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        body = data[at + 4 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(body),)
        chunks[body[:4]] = body[4:]
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"]
    columns, lines, *kind = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert kind == [8, 3, 0, 0, 0]
    assert len(chunks[b"PLTE"]) == 3 * len(chunks[b"tRNS"]) == 3 * (SHADES + 1)
    flat = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(lines, columns + 1)
    assert not flat[:, 0].any()
    return flat[:, 1:]


def test_a_block_shows_its_largest_number() -> None:
    values = np.zeros((5, 7))
    values[1, 2], values[0, 0], values[4, 6], values[2, 5] = -0.9, 0.4, 0.1, np.nan
    np.testing.assert_array_equal(largest(values, (2, 3)), [[-0.9, 0, 0], [0, np.nan, 0], [0, 0, 0.1]])
    np.testing.assert_array_equal(largest(values, (1, 1)), values)
    shades = pixels(picture(np.array([[-2, -1, 0, 1, 2, np.inf]]), (1, 1)))
    assert shades.tolist() == [[0, 0, SHADES // 2, SHADES - 1, SHADES - 1, NONE]]


@pytest.mark.parametrize("sides", [(1, 1), (1, 32000), (128, 2048), (3000, 3000)])
def test_blocks_are_as_small_as_there_is_room_for(sides: tuple[int, int]) -> None:
    high, wide = block_of(sides, 4000)
    drawn = -(-sides[0] // high) * -(-sides[1] // wide)
    assert drawn <= 4000
    assert drawn > 1000 or (high, wide) == (1, 1) or sides[0] == 1


def test_the_legend_has_all_shades_in_order() -> None:
    assert pixels(legend()).tolist() == [list(range(SHADES))]
