"""Quantized matrices: numbers of 8 or 4 bits in groups with a scale, arranged as minillama.layout says.

In a safetensors file a quantized matrix NAME is two tensors, as they lie in memory: NAME.q8_0 or NAME.q4_0, bytes, and
NAME.scales, float16; one in bf16z (weights/compressed.py) is two as well. config.json has a `quantization_config` that
says so, with a version; docs/formats.md has it all.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.forking import cached_property
from minillama.layout import (
    COMPRESSED,
    GROUP,
    LEAST_ROWS,
    PACKED,
    TILE,
    WHOLE,
    note_words,
    rounded_up,
    tile_bytes,
    tile_scales,
)
from minillama.weights.compressed import ROWS, CompressedTensor
from minillama.weights.formats import STORAGE
from minillama.weights.safetensors import Tensor
from minillama.weights.streaming import pieces
from minillama.weights.tiles import FIELDS, read_rows

METHOD, VERSION = "minillama", 1
SOME = 1 << 22  # weights that are made floats at a time
SCALES = "scales"
_NOTES = ("source_crc32", "relative_error", "relative_error_of_ggml")


class Made(NamedTuple):
    """From what a matrix was quantized, and its root mean square error relative to that of the weights: with the
    scales it has, and with those that ggml takes."""

    source: Tensor
    error: float
    error_of_ggml: float


class QuantizedTensor:
    """A matrix (n_out, width) in a format of whole numbers, its bytes and its scales in memory or mapped.

    made: how it was quantized, if that was here and now.
    """

    def __init__(
        self,
        form: str,
        shape: tuple[int, int],
        numbers: Array,
        scales: Array,
        made: Made | None = None,
    ):
        self.form, self.shape, self.made = form, shape, made
        self.dtype = form.upper()
        self.numbers, self.scales = numbers.reshape(-1), scales.reshape(-1)
        columns = WHOLE[form].block
        blocks = rounded_up(shape[0], TILE) // TILE * (rounded_up(shape[1], columns) // columns)
        if (self.numbers.size, self.scales.size) != (blocks * tile_bytes(form), blocks * tile_scales(form)):
            raise ValueError(f"{self.numbers.size} bytes and {self.scales.size} scales are no {form} matrix of {shape}")

    @property
    def source(self) -> Tensor | None:
        """What it was made of, if that was here and now."""
        return None if self.made is None else self.made.source

    @property
    def float_scales(self) -> Array:
        """Those of the scales that are float16: in formats with blocks of 256 the others are whole numbers."""
        halves = TILE * (2 if "m" in FIELDS[self.form] else 1)
        return self.scales.reshape(-1, tile_scales(self.form))[:, :halves].reshape(-1)

    @property
    def parts(self) -> dict[str, tuple[str, Array]]:
        """What a file has of it: the ends of the names, each with the number format and the array."""
        kind = scales_kind(self.form)
        return {self.form: ("U8", self.numbers), SCALES: (kind, self.scales.view(STORAGE[kind]))}

    def stored(self, rows: Array | None = None) -> Array:
        """The bytes in tiles, where rows have none of their own."""
        if rows is not None:
            raise ValueError("rows of a quantized matrix are not stored by themselves: read them")
        return self.numbers

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        """The whole, or some rows, as floats of `dtype`."""
        wanted = np.arange(self.shape[0])[slice(None) if rows is None else rows]
        out = np.empty((wanted.size, self.shape[1]), dtype)
        numbers, scales, step = self.numbers, self.scales, max(1, SOME // self.shape[1])
        for start in range(0, wanted.size, step):  # some rows at a time: memory for these
            part = wanted.reshape(-1)[start : start + step]
            out[start : start + step] = read_rows(self.form, numbers, scales, self.shape[1], part)
        return out.reshape(*wanted.shape, self.shape[1])


PackedTensor: TypeAlias = QuantizedTensor | CompressedTensor


@dataclass(frozen=True)
class PackedLater:
    """A matrix that is quantized or compressed when it is read or written, and not kept."""

    source: Tensor
    form: str
    name: str
    pack: Callable[[Tensor, str], PackedTensor]

    @property
    def dtype(self) -> str:
        return self.form.upper()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @cached_property
    def words(self) -> int:
        """The size in bf16z, which is known when it is made only."""
        return self.made().numbers.size

    def made(self) -> PackedTensor:
        """ValueError that names it if it holds what cannot be quantized."""
        try:
            return self.pack(self.source, self.form)
        except ValueError as error:
            raise ValueError(f"{self.name} cannot be quantized: {error}") from None

    def stored(self, rows: Array | None = None) -> Array:
        return self.made().stored(rows)

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return self.made().read(dtype, rows)


class RawTensor:
    """An array that is written as it is."""

    def __init__(self, array: Array, dtype: str):
        self.array, self.dtype, self.shape = array, dtype, array.shape

    def stored(self, rows: Array | None = None) -> Array:
        return self.array if rows is None else self.array[rows]

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return self.stored(rows).astype(dtype)


def spelled_out(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a file holds them: quantized ones first, which keeps all of them aligned, as two tensors each."""
    quantized: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, PackedTensor):
            (form, (kind, numbers)), (beside, (other, array)) = tensor.parts.items()
            quantized[f"{name}.{form}"] = RawTensor(numbers, kind)
            others[f"{name}.{beside}"] = RawTensor(array, other)
        else:
            others[name] = tensor
    return quantized | others


class Part(NamedTuple):
    """What a file says of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(STORAGE[self.dtype].itemsize)


def parts(name: str, tensor: Tensor) -> dict[str, Part]:
    """The tensors of a file that make up this one: itself, or of a quantized one, which may not be made yet, two."""
    if not isinstance(tensor, PackedTensor | PackedLater):
        return {name: Part(tensor.dtype, tensor.shape)}
    if tensor.form == COMPRESSED:
        words = tensor.words if isinstance(tensor, PackedLater) else tensor.numbers.size
        notes = max(tensor.shape[0], LEAST_ROWS) * note_words(tensor.shape[1])
        return {f"{name}.{COMPRESSED}": Part("U32", (words,)), f"{name}.{ROWS}": Part("I16", (notes,))}
    columns = WHOLE[tensor.form].block
    blocks = rounded_up(tensor.shape[0], TILE) // TILE * (rounded_up(tensor.shape[1], columns) // columns)
    numbers = Part("U8", (blocks * tile_bytes(tensor.form),))
    scales = Part(scales_kind(tensor.form), (blocks * tile_scales(tensor.form),))
    return {f"{name}.{tensor.form}": numbers, f"{name}.{SCALES}": scales}


def scales_kind(form: str) -> str:
    """What a file says of the scales' numbers: in formats with blocks of 256 they are not all float16."""
    return "F16" if WHOLE[form].block == GROUP else "U16"


def put_together(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of a file, quantized ones made of their two parts. ValueError where a part is missing or wrong."""
    found = dict(tensors)
    for name in tensors:
        base, _, form = name.rpartition(".")
        if form not in PACKED or base not in shapes:
            continue
        ending, kinds = (ROWS, ("U32", "I16")) if form == COMPRESSED else (SCALES, ("U8", scales_kind(form)))
        numbers, beside = found.pop(name), found.pop(f"{base}.{ending}", None)
        if beside is None:
            raise ValueError(f"{name} has no {base}.{ending} beside it")
        if (numbers.dtype, beside.dtype) != kinds:
            raise ValueError(
                f"{name} and its {ending} must be {' and '.join(kinds)}, not {numbers.dtype} and {beside.dtype}"
            )
        rows, columns = shapes[base]
        try:
            if form == COMPRESSED:
                found[base] = CompressedTensor((rows, columns), numbers.stored(), beside.stored())
            else:
                found[base] = QuantizedTensor(form, (rows, columns), numbers.stored(), beside.stored().view(np.float16))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def checksum(*tensors: Tensor) -> str:
    """The CRC-32 of the stored bytes, one tensor after the other, in hexadecimal."""
    crc = 0
    for tensor in tensors:
        for piece in pieces(tensor):
            crc = zlib.crc32(piece.view(np.uint8).data, crc)
    return f"{crc:08x}"


def checksum_note(name: str) -> str:
    """Where the header of a file has the checksum of a quantized matrix."""
    return f"crc32.{name}"


def provenance(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """For the header of a file: the checksum of each packed matrix, numbers and then what is beside them; and of one
    that was made here, the checksum of what it was made from, and if it was quantized its errors. Every note has 8
    characters."""
    notes = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, PackedTensor):
            notes[checksum_note(name)] = checksum(*(RawTensor(array, kind) for kind, array in tensor.parts.values()))
            if tensor.source is not None:
                notes[f"source_crc32.{name}"] = checksum(tensor.source)
            if isinstance(tensor, QuantizedTensor) and tensor.made is not None:
                notes[f"relative_error.{name}"] = f"{tensor.made.error:.6f}"
                notes[f"relative_error_of_ggml.{name}"] = f"{tensor.made.error_of_ggml:.6f}"
    return notes


def empty_provenance(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Notes of the same names and lengths, before what they say is known."""
    notes = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, PackedTensor | PackedLater):
            notes[checksum_note(name)] = "?" * 8
            if isinstance(tensor, PackedLater) or tensor.source is not None:
                known = _NOTES[:1] if tensor.form == COMPRESSED else _NOTES
                notes |= {f"{what}.{name}": "?" * 8 for what in known}
    return notes


def quantization_config(form: str) -> dict[str, Any]:
    """What config.json says of a quantized checkpoint."""
    return {"quant_method": METHOD, "version": VERSION, "format": form}
