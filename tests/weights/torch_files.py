"""Files as torch.save writes them, made without torch: a writer of pickles and one of zip archives."""

from __future__ import annotations

import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillama.arrays import Array

STORAGES = {"<f8": "Double", "<f4": "Float", "<f2": "Half", "<u2": "BFloat16", "<i8": "Long", "<i4": "Int",
            "<i2": "Short", "|i1": "Char", "|u1": "Byte", "|b1": "Bool"}  # fmt: skip
MARK, TUPLE, REDUCE, STOP, PERSID = b"(", b"t", b"R", b".", b"Q"
ORDERED = b"ccollections\nOrderedDict\n)R"
V2 = ("torch._utils", "_rebuild_tensor_v2")


class Raw(bytes):
    """Opcodes that make one value."""


class View(NamedTuple):
    """A tensor: a storage by its key, its type, how many numbers that has, and what part of it is meant."""

    key: str
    kind: str
    count: int
    offset: Any
    shape: Any
    strides: Any


def named(module: str, name: str) -> Raw:
    return Raw(b"c" + module.encode() + b"\n" + name.encode() + b"\n")


def called(module: str, name: str, *args: Any) -> Raw:
    return Raw(named(module, name) + opcodes(args) + REDUCE)


def opcodes(value: Any) -> bytes:
    """The opcodes that make a value, as Python's protocol 2 has them."""
    match value:
        case Raw():
            return value
        case View(key, kind, count, offset, shape, strides):
            storage = Raw(opcodes(("storage", named("torch", f"{kind}Storage"), key, "cpu", count)) + PERSID)
            return called(*V2, storage, offset, shape, strides, False, Raw(ORDERED))
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if 0 <= value < 256:
            return b"K" + bytes([value])
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            length = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return MARK + b"".join(map(opcodes, value)) + TUPLE
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(opcodes(key) + opcodes(item) for key, item in value.items()) + b"u"
    raise TypeError(type(value))


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + opcodes(value) + STOP


def viewed(key: str, array: Array) -> View:
    """A dense tensor that is the whole of a storage."""
    strides = tuple(stride // array.itemsize for stride in np.empty(array.shape, array.dtype).strides)
    return View(key, STORAGES[array.dtype.str], array.size, 0, array.shape, strides)


def zipped(members: Mapping[str, bytes] | Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive; names may come twice."""
    out = BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(out, "w", method) as archive:  # of names given twice
        for name, data in members.items() if isinstance(members, Mapping) else members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def torch_bytes(
    pickle: bytes,
    storages: Mapping[str, bytes] | None = None,
    root: str = "archive",
    more: Mapping[str, bytes] | None = None,
) -> bytes:
    """A whole file from its pickle and the bytes of its storages."""
    members = {f"{root}/data.pkl": pickle, f"{root}/byteorder": b"little"}
    members |= {f"{root}/data/{key}": data for key, data in (storages or {}).items()}
    return zipped(
        members | {f"{root}/{name}": data for name, data in (more or {}).items()} | {f"{root}/version": b"3\n"}
    )


def torch_save(tensors: Mapping[str, Array], file: Path, wrap: str | None = None, **beside: Any) -> Path:
    """Write arrays (uint16: the bits of bfloat16) as a state_dict; wrap: within a dictionary, by that name."""
    values: Any = {name: viewed(str(number), array) for number, (name, array) in enumerate(tensors.items())}
    values = {wrap: values, **beside} if wrap else values | beside
    storages = {str(number): array.tobytes() for number, array in enumerate(tensors.values())}
    file.write_bytes(torch_bytes(pickled(values), storages))
    return file
