"""A file that torch.save wrote (.pth, .pt, .bin), mapped and never unpickled.

The format since PyTorch 1.6: a zip archive (torch_zip) whose members lie under one folder, ROOT/. ROOT/data.pkl is a
pickle (torch_pickle) of dictionaries whose tensors say what part of which storage they are, ROOT/data/KEY the numbers
of a storage, ROOT/byteorder "little" or "big" (absent: little). docs/formats.md has it in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.messages import shown
from minillama.weights.formats import STORAGE, widen
from minillama.weights.magic import PICKLES, ZIP, impostor
from minillama.weights.mapped import MappedFile
from minillama.weights.safetensors import MAX_NAME, StoredTensor, Tensor
from minillama.weights.torch_names import Strided
from minillama.weights.torch_pickle import ForeignError, read_pickle
from minillama.weights.torch_zip import Member, read_members
from minillama.weights.training import check_not_empty, settings_in, weights_in

MAX_PICKLE = 1 << 26  # bytes; that of a model has some 100 a tensor


class StridedTensor:
    """A tensor in a mapped file whose numbers are not dense, or not little-endian. offset and strides are bytes; order:
    "<" or ">"."""

    def __init__(
        self, file: MappedFile, dtype: str, shape: tuple[int, ...], offset: int, strides: tuple[int, ...], order: str
    ):
        self.file, self.dtype, self.shape, self.offset, self.strides = file, dtype, shape, offset, strides
        self._kind = STORAGE[dtype].newbyteorder(order)

    def stored(self, rows: Array | None = None) -> Array:
        numbers = self.file.array(self._kind, self.shape, self.offset, self.strides)
        return (numbers if rows is None else numbers[rows]).astype(STORAGE[self.dtype], copy=False)

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return np.asarray(widen(self.stored(rows), self.dtype, dtype), order="C")


class TorchFile(NamedTuple):
    """tensors: the weights by name. settings: what the file says of the model (llama2.c's model_args)."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]


def open_torch_file(path: Path) -> dict[str, Tensor]:
    """Every weight in the file by name; see read_torch_file."""
    return read_torch_file(path).tensors


def read_torch_file(path: Path) -> TorchFile:
    """The weights in the file. ValueError, naming the file, if anything is off: also for anything but a plain
    dictionary of tensors, or one of several in it, and for the formats of old versions. Nothing of it is executed."""
    file = MappedFile(path)
    _check_kind(file)
    try:
        members = read_members(file)
        root = _root(members)
        order = _byte_order(file, members.get(f"{root}/byteorder"))
        storages = {
            name.removeprefix(f"{root}/data/"): member
            for name, member in members.items()
            if name.startswith(f"{root}/data/")
        }
        text = bytes(file.array("u1", (members[f"{root}/data.pkl"].size,), members[f"{root}/data.pkl"].offset))
        values = read_pickle(text, {key: member.size for key, member in storages.items()})
    except ForeignError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a sound PyTorch file: {error}; get it again") from None
    try:
        found = weights_in(values)
        _check_names(found)
        check_not_empty(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    tensors = {name: _tensor(file, storages[view.key], view, order) for name, view in found.items()}
    return TorchFile(tensors, settings_in(values))


def _check_kind(file: MappedFile) -> None:
    """ValueError that says what the file is, and what to do, if it is no zip archive."""
    head = bytes(file.array("u1", (min(file.size, 512),), 0))
    if head.startswith(ZIP):
        return
    if head.startswith(PICKLES) or head[257:262] == b"ustar":
        age = "0.1" if head[257:262] == b"ustar" else "1.6"
        raise ValueError(
            f"{file.path} is in the format of PyTorch before {age}, which is not read: where PyTorch is installed, "
            f'torch.save(torch.load("OLD", map_location="cpu", weights_only=True), "NEW") makes a file of today from it'
        )
    what = impostor(head[:64]) or f"no zip archive ({file.size} bytes), as torch.save writes since version 1.6"
    raise ValueError(f"{file.path} is not a PyTorch file: it is {what}; get it again")


def _root(members: dict[str, Member]) -> str:
    roots = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise ValueError(f"its archive has {len(roots)} members FOLDER/data.pkl instead of one")
    if f"{roots[0]}/constants.pkl" in members:
        raise ForeignError("it is a TorchScript program (model.state_dict() has the weights alone)")
    if (size := members[f"{roots[0]}/data.pkl"].size) > MAX_PICKLE:
        raise ValueError(f"its pickle has {size} bytes, more than the {MAX_PICKLE} allowed")
    return roots[0]


def _byte_order(file: MappedFile, member: Member | None) -> str:
    stated = b"little" if member is None else bytes(file.array("u1", (min(member.size, 8),), member.offset))
    if stated not in (b"little", b"big"):
        raise ValueError(f"its byteorder is {shown(stated)}, neither little nor big")
    return "<" if stated == b"little" else ">"


def _check_names(found: Mapping[Any, object]) -> None:
    for name in found:
        if type(name) is not str or not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise ValueError(f"it has the impossible tensor name {ascii(name)[:100]}")


def _tensor(file: MappedFile, storage: Member, view: Strided, order: str) -> Tensor:
    size = int(STORAGE[view.dtype].itemsize)
    empty = 0 in view.shape
    # A side of one number may have any stride, which in bytes may be larger than NumPy can hold
    strides = tuple(
        size if empty or side == 1 else stride * size for side, stride in zip(view.shape, view.strides, strict=True)
    )
    offset = storage.offset + view.offset * size
    if order == "<" and (empty or strides == _dense(view.shape, size)):
        return StoredTensor(file, view.dtype, view.shape, offset)
    return StridedTensor(file, view.dtype, view.shape, offset, strides, order)


def _dense(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The strides of numbers of `size` bytes that lie row after row; sides of one have that of a number."""
    return tuple(size if side == 1 else size * math.prod(shape[i + 1 :]) for i, side in enumerate(shape))
