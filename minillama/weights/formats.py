"""Number formats: how stored bytes become the floats the model computes with."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.layout import PACKED

# safetensors' names, each with the NumPy type of the same bytes. NumPy has no bfloat16: its bits travel as uint16.
STORAGE: dict[str, Any] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "F8_E4M3FNUZ": np.dtype("u1"),
    "F8_E5M2FNUZ": np.dtype("u1"),
    "F8_E8M0": np.dtype("u1"),
}
UNREAD = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}  # further names, for which NumPy has no type; bits of each
FLOATS = ("F64", "F32", "F16", "BF16")  # what weights may be stored as
QUANTS = tuple(form.upper() for form in PACKED)  # and matrices besides: quantized.py, compressed.py


def widen(stored: Array, name: str, dtype: DTypeLike) -> Array:
    """Floats of `dtype` from the stored numbers called `name`; no copy where they are of that type already.

    A bfloat16 is the upper half of a float32, so shifting its bits up by 16 is exact. Numbers that a file holds at
    an odd address are copied all the same: BLAS takes aligned ones only.
    """
    if name == "BF16":
        stored = np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)
    return stored.astype(dtype, copy=not stored.flags.aligned)


def widen_into(stored: Array, name: str, out: Array) -> None:
    """What widen gives, into float32 numbers that are there, side by side."""
    if name == "BF16":
        bits = out.view(np.uint32)
        bits[...] = stored
        np.left_shift(bits, 16, out=bits)
    else:
        out[...] = stored


def narrow(x: Array, name: str) -> Array:
    """Floats as the stored numbers called `name`, rounded to the nearest where they do not fit."""
    return narrow_bfloat16(x) if name == "BF16" else x.astype(STORAGE[name])


def narrow_bfloat16(x: Array) -> Array:
    """The nearest bfloat16 to each float32, ties to even, as uint16 bits; NaN stays NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)
