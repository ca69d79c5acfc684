"""A safetensors file, checked to the last byte and mapped, never loaded.

The format: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data. The package
of the same name cannot give bfloat16 to NumPy, so this reader is our own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.weights.formats import STORAGE, UNREAD, widen
from minillama.weights.magic import impostor
from minillama.weights.mapped import MappedFile

MAX_HEADER = 100_000_000  # bytes; the format's own limit
MAX_SIDES = 64  # of a tensor; NumPy's own limit
MAX_NAME = 1000  # characters


class Tensor(Protocol):
    """A named weight that is read only when it is needed."""

    @property
    def dtype(self) -> str: ...  # safetensors' name: F32, BF16, ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def stored(self, rows: Array | None = None) -> Array:
        """The whole, or some rows, as they are stored: numbers of the type that STORAGE has for `dtype`."""
        ...

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        """The whole, or some rows, as floats of `dtype`."""
        ...


class StoredTensor:
    """A tensor in a mapped file."""

    def __init__(self, file: MappedFile, dtype: str, shape: tuple[int, ...], offset: int):
        self.file, self.dtype, self.shape, self.offset = file, dtype, shape, offset

    def stored(self, rows: Array | None = None) -> Array:
        if self.dtype in UNREAD:
            raise ValueError(f"{self.file.path} has numbers in the format {self.dtype}, which are not read")
        stored = self.file.array(STORAGE[self.dtype], self.shape, self.offset)
        return stored if rows is None else stored[rows]

    def pieces(self) -> Iterator[Array]:
        """The stored numbers in their order, some at a time, each good until the next."""
        return self.file.pieces(STORAGE[self.dtype], self.offset, nbytes(self))

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return widen(self.stored(rows), self.dtype, dtype)


class ArrayTensor:
    """A tensor that is an array in memory already."""

    def __init__(self, array: Array):
        self.array, self.shape = array, array.shape
        names = {value: name for name, value in STORAGE.items() if name in ("F64", "F32", "F16")}
        if array.dtype not in names:
            raise ValueError(f"a weight must be an array of float16, float32 or float64, not {array.dtype}")
        self.dtype = names[array.dtype]

    def stored(self, rows: Array | None = None) -> Array:
        return self.array if rows is None else self.array[rows]

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return widen(self.stored(rows), self.dtype, dtype)


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor's stored numbers."""
    return _bits(tensor.dtype, tensor.shape) // 8


def _bits(dtype: str, shape: Sequence[int]) -> int:
    return math.prod(shape) * (UNREAD.get(dtype) or 8 * int(STORAGE[dtype].itemsize))


def open_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Every tensor of the file by name, and the file's metadata. ValueError, naming the file, if anything is off."""
    file = MappedFile(path)
    try:
        header, start = _read_header(file)
        metadata = header.pop("__metadata__", None)
        metadata = {} if metadata is None else metadata  # null too, as in the package of that name
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its __metadata__ is not an object of strings")
        return _read_entries(file, header, start), metadata
    except ValueError as error:
        raise ValueError(f"{path} is not a sound safetensors file: {error}; get it again") from None


def _read_header(file: MappedFile) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(bytes(file.array("u1", (min(file.size, 8),), 0)), "little")
    impossible = file.size < 8 or length > MAX_HEADER or 8 + length > file.size
    if impossible and (what := impostor(bytes(file.array("u1", (min(file.size, 64),), 0)))):
        raise ValueError(f"it is {what}")
    if file.size < 8:
        raise ValueError(f"it has {file.size} bytes, too few for a header")
    if length > MAX_HEADER:
        raise ValueError(f"it declares a header of {length} bytes, more than the {MAX_HEADER} allowed")
    if 8 + length > file.size:
        raise ValueError(f"it declares a header of {length} bytes but ends after {file.size} bytes in all")
    try:
        text = bytes(file.array("u1", (length,), 8)).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("its header is not UTF-8 text") from None
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except _DuplicateKeyError as error:
        raise ValueError(f"its header has the name {error} twice") from None
    except (ValueError, RecursionError):
        raise ValueError("its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise ValueError(f"its header is a JSON {type(header).__name__}, not an object")
    return header, 8 + length


def _read_entries(file: MappedFile, header: dict[str, Any], start: int) -> dict[str, StoredTensor]:
    tensors, spans = {}, []
    for name, entry in header.items():
        if len(name) > MAX_NAME or not name.isprintable():
            raise ValueError(f"it has the impossible tensor name {_short(ascii(name))}")
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise ValueError(f"tensor {name} has no dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in STORAGE.keys() | UNREAD.keys():
            raise ValueError(f"tensor {name} has the unknown dtype {_short(repr(dtype))}")
        if not _are_counts(shape) or len(shape) > MAX_SIDES:
            raise ValueError(f"tensor {name} has the impossible shape {_short(repr(shape))}")
        if not _are_counts(offsets) or len(offsets) != 2:
            raise ValueError(f"tensor {name} has the impossible data_offsets {_short(repr(offsets))}")
        begin, end = offsets
        if 8 * (end - begin) != _bits(dtype, shape):
            raise ValueError(f"tensor {name} has {end - begin} bytes of data, which its dtype {dtype} and shape "
                             f"{_short(shape)} contradict")  # fmt: skip
        tensors[name] = StoredTensor(file, dtype, tuple(shape), start + begin)
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise ValueError(f"the data of tensor {name} {'overlaps' if begin < position else 'leaves a hole after'} "
                             "the data before it")  # fmt: skip
        position = end
    if start + position != file.size:
        kind = "is cut short" if file.size < start + position else "has bytes that belong to no tensor"
        raise ValueError(f"it {kind}: {file.size} bytes, where its header says {start + position}")
    return tensors


class _DuplicateKeyError(ValueError):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _DuplicateKeyError(key)
        result[key] = value
    return result


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 100 else text[:100] + "..."
