"""What an implementation left of its intermediates: a trace, a safetensors or .npz file, or a folder of .npy files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from minillama.arrays import Array
from minillama.debug.traces import Trace, read_metadata
from minillama.weights.formats import FLOATS
from minillama.weights.safetensors import StoredTensor, open_safetensors

MAGIC = b"\x93NUMPY"
INPUT_IDS = "input_ids"  # the ids of the first call, where a dump has them as an array


class Arrays(Mapping[str, Array]):
    """Arrays by name, each read when it is asked for."""

    def __init__(self, readers: Mapping[str, Callable[[], Array]]):
        self._readers = readers

    def __getitem__(self, name: str) -> Array:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def open_dump(path: str | os.PathLike[str]) -> Trace:
    """A dump under the names it has. An array `input_ids` in it is taken as the ids of the first call. ValueError or
    OSError that names the file, and what is wrong with it."""
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(
            f"{place} does not exist: name a trace, a .safetensors or .npz file or a folder of .npy"
        )
    metadata: Mapping[str, str] = {}
    readers: dict[str, Callable[[], Array]]
    if not place.is_dir() and not place.is_file():
        raise OSError(f"{place} is not a file: name a trace, a .safetensors or .npz file or a folder of .npy")
    if place.is_dir():
        readers = {file.stem: partial(_read_npy, file) for file in sorted(place.glob("*.npy"))}
    elif place.suffix == ".npy":
        raise ValueError(f"{place} is one array, whose name is that of its file: name the folder it is in")
    elif zipfile.is_zipfile(place) or place.suffix == ".npz":
        readers = _npz(place)
    else:
        tensors, metadata = open_safetensors(place)
        readers = {name: partial(_read_stored, tensor) for name, tensor in tensors.items()}
    if not readers:
        raise ValueError(f"{place} has no arrays: name a trace, a .safetensors or .npz file or a folder of .npy files")
    trace = read_metadata(metadata, Arrays(readers), str(place))
    if INPUT_IDS in readers and not trace.input_ids:
        ids = np.atleast_2d(readers[INPUT_IDS]())
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise ValueError(f"{place}: {INPUT_IDS} must be (B, T) integers, not {ids.dtype} of shape {ids.shape}")
        trace.input_ids.append(ids.astype(np.int64))
    return trace


def _npz(file: Path) -> dict[str, Callable[[], Array]]:
    try:
        if not zipfile.is_zipfile(file):  # which np.load would leave open
            raise ValueError("it is empty, cut short or of another kind")
        opened = np.load(file, allow_pickle=False)
        return {name: partial(_read_npz, file, opened, name) for name in opened.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is not a sound .npz file: {error}; write it with numpy.savez") from None


def _read_npz(file: Path, opened: Mapping[str, Array], name: str) -> Array:
    try:
        return numbers(opened[name], f"{file}: {name}")
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: {name} cannot be read: {error}; write it with numpy.savez") from None


def _read_npy(file: Path) -> Array:
    try:
        if not file.is_file():
            raise ValueError("it is not a file")  # opening a pipe would wait for ever
        with open(file, "rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:  # NumPy takes anything else for a pickle, and advises to run it
                raise ValueError("it is empty, cut short or of another kind")
        return numbers(np.load(file, mmap_mode="r", allow_pickle=False), str(file))
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file} is not a sound .npy file: {error}; write it with numpy.save") from None


def _read_stored(tensor: StoredTensor) -> Array:
    stored = tensor.stored()
    return tensor.read(np.float32) if tensor.dtype in FLOATS and tensor.dtype != "F64" else stored


def numbers(array: Array, what: str) -> Array:
    """The array itself. ValueError if it does not hold real numbers."""
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{what} holds {array.dtype} and not real numbers")
    return array
