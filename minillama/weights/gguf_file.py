"""The container that is GGUF: typed metadata and tensor infos, checked to the last byte, and data that stays mapped.

    "GGUF"  version u32  tensors u64  pairs u64
    pairs of metadata    key string, type u32, value
    tensor infos         name string, dimensions u32, each u64, type u32, offset u64
    data                 from the next multiple of general.alignment on, to which offsets are relative

A string is its length, u64, and UTF-8; all numbers are little endian. Source: docs/gguf.md of the ggml repository. The
reader of the gguf package trusts what a file says of its sizes, so this one is our own: a length is compared with the
bytes that are left before anything is made of it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from minillama.messages import shown
from minillama.weights.gguf_blocks import BLOCKS, UNREAD
from minillama.weights.magic import impostor
from minillama.weights.mapped import MappedFile

MAGIC = b"GGUF"
MAX_NAME = 64  # bytes of a tensor's name, and
MAX_KEY = 65535  # of a metadata key: the format's own limits
MAX_DIMENSIONS = 4
# Types of metadata, by number
NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
T = TypeVar("T", int, float, str, bool)


class GGUFTensor(NamedTuple):
    """A tensor as the file describes it. shape: as NumPy has it, the other way round than in the file. offset: from
    the beginning of the file."""

    kind: str
    shape: tuple[int, ...]
    offset: int


class GGUF(NamedTuple):
    """A sound GGUF file, or several parts of a model together. owners: the files of tensors that are in other parts."""

    file: MappedFile
    metadata: Mapping[str, Any]  # texts, numbers, lists of texts, and arrays of numbers
    tensors: Mapping[str, GGUFTensor]
    owners: Mapping[str, MappedFile] = {}

    def file_of(self, name: str) -> MappedFile:
        """Where the data of a tensor are."""
        return self.owners.get(name, self.file)


def read_gguf(path: Path) -> GGUF:
    """The metadata of a file and where its tensors are. ValueError, naming the file, if anything is off."""
    file = MappedFile(path)
    try:
        with open(path, "rb") as stream:
            return _read(file, _Reader(stream, file.size))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as GGUF: {error}") from None


def _read(file: MappedFile, reader: _Reader) -> GGUF:
    magic = reader.take(min(4, file.size))
    if magic != MAGIC:
        what = impostor(magic + reader.take(min(28, file.size - len(magic)))) or "something else, or broken"
        raise ValueError(f"it begins with {shown(magic)} and not with {shown(MAGIC)}, so it is {what}")
    version = reader.number("<I")
    if version and not version & 0xFFFF:
        raise ValueError("its numbers are big endian, and only little-endian files are read: convert it")
    if version not in (2, 3):
        raise ValueError(f"it is of version {version}, and 2 and 3 are read: convert the model anew")
    tensors, pairs = reader.number("<Q"), reader.number("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(reader.counted(pairs, 13, "pairs of metadata")):
        key = reader.name(MAX_KEY, "metadata key")
        if key in metadata:
            raise ValueError(f"it has the metadata {key[:100]} twice")
        metadata[key] = reader.value(key)
    infos: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for _ in range(reader.counted(tensors, 33, "tensors")):
        name = reader.name(MAX_NAME, "tensor name")
        if name in infos:
            raise ValueError(f"it has the tensor {name} twice")
        infos[name] = _info(reader, name)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment >= 1 << 31:
        raise ValueError(f"its general.alignment is {shown(alignment)}, and must be a power of two")
    start = -(-reader.position // alignment) * alignment
    return GGUF(file, metadata, _placed(file, infos, start, alignment))


def _info(reader: _Reader, name: str) -> tuple[str, tuple[int, ...], int]:
    dimensions = reader.number("<I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(f"the tensor {name} has {dimensions} dimensions, and may have 1 to {MAX_DIMENSIONS}")
    shape = tuple(reader.number("<Q") for _ in range(dimensions))[::-1]
    kind, offset = reader.number("<I"), reader.number("<Q")
    if kind not in BLOCKS:
        raise ValueError(
            f"the tensor {name} is in the format {UNREAD.get(kind, f'number {kind}')}, which is not read: get the "
            "model in another, such as Q8_0 or Q4_K_M"
        )
    if 0 in shape or shape[-1] % BLOCKS[kind].size:
        raise ValueError(f"the tensor {name} has the shape {shape}, impossible in {BLOCKS[kind].name}")
    return BLOCKS[kind].name, shape, offset


def _placed(
    file: MappedFile, infos: Mapping[str, tuple[str, tuple[int, ...], int]], start: int, alignment: int
) -> dict[str, GGUFTensor]:
    sizes = {block.name: block for block in BLOCKS.values()}
    spans = []
    for name, (kind, shape, offset) in infos.items():
        if offset % alignment:
            raise ValueError(f"the tensor {name} is at {offset}, and not at a multiple of the alignment {alignment}")
        nbytes = math.prod(shape) // sizes[kind].size * sizes[kind].nbytes
        if start + offset + nbytes > file.size:
            raise ValueError(
                f"it is cut short: the tensor {name} ends at {start + offset + nbytes} and the file has {file.size} "
                "bytes; get it again"
            )
        spans.append((offset, offset + nbytes, name))
    end = 0
    for begin, stop, name in sorted(spans):
        if begin < end:
            raise ValueError(f"the data of the tensor {name} overlaps that of another")
        end = stop
    return {name: GGUFTensor(kind, shape, start + offset) for name, (kind, shape, offset) in infos.items()}


class _Reader:
    """What stands in a file from its beginning on. It is read, not mapped: a file that shrinks meanwhile does no harm.
    ValueError where the file ends before it does."""

    def __init__(self, stream: BinaryIO, size: int):
        self.stream, self.size, self.position = stream, size, 0

    def take(self, count: int, what: str = "its header") -> bytes:
        if count > self.size - self.position:
            raise ValueError(
                f"it is cut short: {what} needs {count} bytes, and {self.size - self.position} are left; get it again"
            )
        taken = self.stream.read(count)
        self.position += count
        if len(taken) != count:
            raise ValueError("it became shorter while it was being read; get it again")
        return taken

    def counted(self, count: int, least: int, what: str) -> int:
        """The count, if so many things of at least that many bytes each can follow."""
        if count * least > self.size - self.position:
            raise ValueError(f"it says that it has {count} {what}, which do not fit into its {self.size} bytes")
        return count

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, what: str) -> str:
        try:
            return self.take(self.number("<Q"), what).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{what} is not UTF-8 text") from None

    def name(self, longest: int, what: str) -> str:
        text = self.text(f"a {what}")
        if not text or len(text.encode()) > longest or not text.isprintable():
            raise ValueError(f"it has the impossible {what} {ascii(text)[:100]}")
        return text

    def value(self, key: str) -> Any:
        what = f"the metadata {key[:100]}"
        kind = self.number("<I")
        if kind == STRING:
            return self.text(what)
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind != ARRAY:
            raise ValueError(f"{what} is of the unknown type {kind}")
        kind, count = self.number("<I"), self.number("<Q")
        if kind == STRING:
            return [self.text(what) for _ in range(self.counted(count, 8, f"texts in {key[:100]}"))]
        if kind not in NUMBERS:
            raise ValueError(
                f"{what} is an array of "
                + ("arrays, which llama.cpp does not read either" if kind == ARRAY else f"the unknown type {kind}")
            )
        dtype = np.dtype(NUMBERS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize, what), dtype)


def field(metadata: Mapping[str, Any], key: str, kind: type[T], otherwise: T | None = None) -> T:
    """The value of a key. ValueError if it is of another type, or if it is missing and there is no `otherwise`."""
    value = metadata.get(key, otherwise)
    if value is None:
        raise ValueError(f"its metadata have no {key}")
    if type(value) is not kind:
        what = f"a text of {len(value)} characters" if isinstance(value, str) else repr(value)[:60].replace("\n", " ")
        raise ValueError(f"its {key} must be of type {kind.__name__}, not {what}")
    return value


def shortest(number: float) -> float:
    """The number that somebody wrote down before it was rounded to float32, as 1e-05 for 9.9999997e-06."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(number)))
