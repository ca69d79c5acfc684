"""What a PyTorch file may name in its pickle, and what a tensor is there: a view of a storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minillama.weights.formats import STORAGE

MAX_SIDES = 32  # of a tensor; the least that any version of NumPy allows


@dataclass(frozen=True)
class Global:
    """What the pickle may name: a type of storage, a number format, or a function."""

    name: str
    dtype: str | None = None


@dataclass(frozen=True)
class Storage:
    """The numbers of a member `data/KEY`; dtype None: of whatever type the tensor says."""

    key: str
    dtype: str | None
    nbytes: int


@dataclass(frozen=True)
class Strided:
    """A view of a storage. offset and strides are in numbers, not bytes."""

    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_STORAGES = {
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32", "Short": "I16",
    "Char": "I8", "Byte": "U8", "Bool": "BOOL",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_UNTYPED = ("torch.storage.UntypedStorage", "torch.UntypedStorage")
GLOBALS = {
    made.name: made
    for made in (
        *(Global(f"torch.{name}Storage", dtype) for name, dtype in _STORAGES.items()),
        *(Global(f"torch.{name}", dtype) for name, dtype in _DTYPES.items()),
        *map(Global, _UNTYPED),
        *map(Global, ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")),
        *map(Global, ("torch._utils._rebuild_parameter", "torch.Size", "collections.OrderedDict")),
    )
}


def strided(storage: Storage, dtype: str, offset: Any, shape: Any, strides: Any) -> Strided:
    """A view of a storage that lies within it, no two of its numbers in one place."""
    if not (_are_counts((offset,)) and _are_counts(shape) and _are_counts(strides) and len(shape) == len(strides)):
        raise ValueError(f"a tensor of storage {storage.key} has an impossible offset, shape or stride")
    count, room = math.prod(shape), storage.nbytes // int(STORAGE[dtype].itemsize)
    span = 1
    for stride, side in sorted(zip(strides, shape, strict=True)) if count else ():
        if side > 1:
            if stride < span:
                raise ValueError(f"a tensor of storage {storage.key} has numbers that overlap each other")
            span += (side - 1) * stride
    if offset + (span if count else 0) > room:
        raise ValueError(f"a tensor of storage {storage.key} reaches beyond its {room} numbers")
    return Strided(storage.key, dtype, offset, shape, strides)


def _are_counts(values: Any) -> bool:
    if type(values) is not tuple or len(values) > MAX_SIDES:  # before all are looked at: it may be very long
        return False
    return all(type(value) is int and 0 <= value < 1 << 63 for value in values)
