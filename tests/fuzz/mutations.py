"""Changes of a file that are likely to reach far into its reader, drawn from a seed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from random import Random
from typing import Any

from tests.weights.torch_files import zipped

NUMBERS = [0, 1, 2, 3, 7, 8, 16, 63, 64, 255, 256, 1 << 15, (1 << 16) - 1, 1 << 31, (1 << 31) - 1, (1 << 32) - 1,
           1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]  # fmt: skip
VALUES: list[Any] = [None, True, False, "", "x", "a\nb", "q_proj", "F16", "../x", "\0", "\ud800", "é" * 300, [], {},
                     [[]], [0], -1, 0, 1, 2, 0.5, -0.0, 1e-300, 1e308, 1e999, -1e999, float("nan"), 1 << 31, 1 << 62,
                     1 << 63, 1 << 64, -(1 << 63), 10**400]  # fmt: skip
FRAGMENTS = [b"null", b"[", b"]", b"{", b"}", b'"', b",", b":", b"-", b"1e999", b"\\u0000", b"\\ud800", b"\xff", b"\0",
             b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x80\x02", b"cos\nsystem\n", b"R", b".", b"h\0", b"q\0",
             b"<0x41>", b"[" * 2000]  # fmt: skip


def mutated(data: bytes, others: Sequence[bytes], rng: Random, shape: str) -> bytes:
    """`data` with one change or some; others: to take pieces from. shape: "bytes", "json" (a value of it changes),
    "header" (JSON behind its length, then more) or "zip" (a member changes)."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        change = _SHAPES.get(shape) if rng.random() < 0.6 else None
        try:
            data = change(data, rng) if change else _bytes(data, others, rng)
        except (ValueError, RecursionError, zipfile.BadZipFile, KeyError, NotImplementedError, EOFError):
            data = _bytes(data, others, rng)
    return data[: 1 << 16]


def _bytes(data: bytes, others: Sequence[bytes], rng: Random) -> bytes:
    # Headers come first: half of all changes are within the first 256 bytes
    at = rng.randrange(min(len(data), 256) + 1 if rng.random() < 0.5 else len(data) + 1)
    length = rng.choice((1, 2, 4, 8, 16, 64))
    match rng.randrange(9):
        case 0:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 1:
            old = data[at] if at < len(data) else 0
            return data[:at] + bytes([old ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        case 2:
            size, number = (
                rng.choice((2, 4, 8)),
                rng.choice(NUMBERS) * rng.choice((1, 1, -1)) + rng.choice((0, 0, 1, -1)),
            )
            return (
                data[:at] + (number % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]
            )
        case 3:
            return data[:at]
        case 4:
            return data[:at] + data[at + length :]
        case 5:
            return data[:at] + data[at : at + length] * 2 + data[at + length :]
        case 6:
            return data[:at] + rng.choice(FRAGMENTS) + data[at + rng.choice((0, length)) :]
        case 7:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            return data[:at] + other[begin : begin + length] + data[at + length :]
        case _:
            return data[:at] + rng.randbytes(length) + data[at + rng.choice((0, length)) :]


def _json(data: bytes, rng: Random) -> bytes:
    value = json.loads(data)
    places = _places(value)
    if not places:
        return json.dumps(rng.choice(VALUES)).encode()
    parent, key = rng.choice(places)
    match rng.randrange(6):
        case 0 if isinstance(parent, dict):
            parent[rng.choice([*map(str, VALUES[:14]), *parent])] = parent.pop(key)
        case 1:
            del parent[key]
        case 2:
            parent[key] = rng.choice([of[at] for of, at in places])
        case 3 if isinstance(parent[key], int):
            parent[key] += rng.choice((1, -1, 2, 8, -parent[key] * 2, parent[key]))
        case _:
            parent[key] = rng.choice(VALUES)
    return json.dumps(value).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place within a JSON value: a list or an object, and the index or key in it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    found = [(value, key) for key in keys]
    for key in keys:
        found += _places(value[key])
    return found


def _header(data: bytes, rng: Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    text = _json(data[8 : 8 + length], rng)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _zip(data: bytes, rng: Random) -> bytes:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist() if info.file_size < 1 << 16]
    wanted = [place for place, (name, _) in enumerate(members) if name.endswith("data.pkl")]
    place = rng.choice(wanted) if wanted and rng.random() < 0.9 else rng.randrange(len(members))
    name, contents = members[place]
    members[place] = (name, _bytes(contents, [contents], rng))
    return zipped(members)


_SHAPES: dict[str, Callable[[bytes, Random], bytes]] = {"json": _json, "header": _header, "zip": _zip}
