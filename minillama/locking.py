"""A lock that one process holds at a time, and none that has ended."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what some network disks answer


class Lock:
    """A lock on a file that is made for it. The system frees it when its process ends, however that ends."""

    def __init__(self, file: Path):
        self.file = file
        self._descriptor: int | None = None

    def take(self) -> None:
        """BlockingIOError if somebody has it. On a disk that has no locks everybody gets it."""
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try_to_lock(descriptor)
            if not os.path.samestat(os.fstat(descriptor), os.stat(self.file)):
                raise BlockingIOError(errno.EAGAIN, "freed and taken by others meanwhile")
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, FileNotFoundError):
                raise BlockingIOError(errno.EAGAIN, "freed by others meanwhile") from None
            raise
        self._descriptor = descriptor

    def drop(self) -> None:
        """Free it, as the end of the process would."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def free(self) -> None:
        """Free it, and remove its file."""
        if self._descriptor is None:
            return
        if sys.platform == "win32":  # where no open file can be removed
            self.drop()
        with contextlib.suppress(OSError):
            self.file.unlink()
        self.drop()


if sys.platform == "win32":

    def try_to_lock(descriptor: int) -> None:
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError(errno.EAGAIN, "locked") from None

else:

    def try_to_lock(descriptor: int) -> None:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
