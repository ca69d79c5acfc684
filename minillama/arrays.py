"""The one type every room shares, and how what a caller gives is made one."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]


def as_array(name: str, values: Any) -> Array:
    """The argument of that name as an array. ValueError if it has rows of different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths: pad them") from None


def integers(name: str, values: Any, ndim: int | None = None) -> Array:
    """The argument of that name as int64, in which no sum or product of ids overflows. ValueError for anything else."""
    array = as_array(name, values)
    if (ndim is not None and array.ndim != ndim) or (array.size and not np.issubdtype(array.dtype, np.integer)):
        kind = "an" if ndim is None else f"a {ndim}-dimensional"
        raise ValueError(f"{name} must be {kind} array of integers, not {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def floats(name: str, values: Any, dtype: DTypeLike) -> Array:
    """The argument of that name as floats of one dtype. ValueError for what is no real number."""
    array = as_array(name, values)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must hold real numbers, not {array.dtype}")
    return array.astype(dtype, copy=False)


def check_ids(name: str, ids: Array, vocab_size: int) -> None:
    """ValueError that names the first id outside 0 .. vocab_size - 1."""
    bad = (ids < 0) | (ids >= vocab_size)
    if bad.any():
        raise ValueError(f"{name} has the id {ids[bad][0]}, outside the vocabulary 0..{vocab_size - 1}")


def plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON has it: numbers and arrays of NumPy, and tuples, as numbers and lists, inside lists and
    dictionaries too. What is nested more than 100 deep stays as it is."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple) and depth < 100:
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, dict) and depth < 100:
        return {
            key.item() if isinstance(key, np.generic) else key: plain(item, depth + 1) for key, item in value.items()
        }
    return value
