"""A file that is mapped, never loaded."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.layout import rounded_up

PIECE = 1 << 20  # bytes that are read at a time where not all are wanted at once; more outrun the disk's reading ahead


class Mapping(mmap.mmap):
    """A whole file in memory, which knows its name. Reading past the end of a file that has shrunk would kill the
    interpreter."""

    path: Path

    def check(self) -> None:
        """ValueError if the file is shorter than it was when it was mapped."""
        if self.size() < len(self):
            raise _shorter(self.path)


def mappings_of(arrays: Iterable[Array]) -> set[Mapping]:
    """Those that some arrays lie in."""
    found: set[Mapping] = set()
    for array in arrays:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        base = base.obj if isinstance(base, memoryview) else base
        if isinstance(base, Mapping):
            found.add(base)
    return found


def _shorter(path: Path) -> ValueError:
    return ValueError(f"{path} became shorter while it was in use: copy it to its place again and start anew")


class MappedFile:
    """A file mapped into memory for as long as somebody holds a view of it. OSError that names it if it cannot be."""

    def __init__(self, path: Path):
        self.path = path
        if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
            raise OSError(f"{path} is not a file: name a file of weights")
        try:
            # Stays open: its size is looked at before every read
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise OSError(f"{path} cannot be opened: {error.strerror}") from None
        self._turn = threading.Lock()  # to move about in it, where the system cannot read at a place
        weakref.finalize(self, self._file.close)
        self.size = os.fstat(self._file.fileno()).st_size
        self._map: Mapping | bytes = b""
        if self.size:
            self._map = Mapping(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            self._map.path = path

    def __deepcopy__(self, memo: object) -> MappedFile:
        """Itself: nothing is ever written to it."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped, (self.path.absolute(), self.size)

    def array(self, dtype: Any, shape: tuple[int, ...], offset: int, strides: tuple[int, ...] | None = None) -> Array:
        """Numbers from byte `offset` on; strides: bytes from one to the next along each side, if not dense."""
        if isinstance(self._map, Mapping):
            self._map.check()
        return np.ndarray(shape, dtype, self._map, offset, strides)

    def forget(self, offset: int, size: int) -> None:
        """Let go of what has been read of a stretch, which would stay with the process. It can be read again."""
        if isinstance(self._map, Mapping) and hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            start, end = rounded_up(offset, mmap.PAGESIZE), (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
            if start < end:
                self._map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def pieces(self, dtype: Any, offset: int, size: int) -> Iterator[Array]:
        """`size` bytes as numbers, PIECE of them at a time, each good until the next. They are read past the mapping,
        which is faster from a disk, and whose pages would stay with the process."""
        room = memoryview(bytearray(min(size, PIECE)))
        for start in range(offset, offset + size, PIECE):
            wanted, got = room[: min(PIECE, offset + size - start)], 0
            while got < len(wanted):
                try:
                    more = self._read_into(wanted[got:], start + got)
                except OSError as error:
                    raise OSError(f"{self.path} cannot be read: {error.strerror}") from None
                if not more:
                    raise _shorter(self.path)
                got += more
            yield np.frombuffer(wanted, dtype)

    def _read_into(self, room: memoryview, start: int) -> int:
        """Read what fits from byte `start` on; how many bytes that were. Except on Windows, which has no fork, without
        the file's own place: a forked process shares that."""
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [room], start)
        if hasattr(os, "pread"):
            data = os.pread(self._file.fileno(), len(room), start)
            room[: len(data)] = data
            return len(data)
        with self._turn:
            self._file.seek(start)
            return self._file.readinto(room) or 0


def _mapped(path: Path, size: int) -> MappedFile:
    """A file from its pickle."""
    file = MappedFile(path)
    if file.size != size:
        raise ValueError(f"{path} has another size than when it was pickled: open it anew")
    return file
