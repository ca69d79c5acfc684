"""A folder of files that take long to make: they appear together, and what an interrupted run has finished is kept.

Files are made in the subfolder PARTIAL. A journal there says of each finished one how large it is and when it was
written, and by which recipe: everything that decides what the files hold. Another recipe begins anew.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from minillama.files import read_bytes, sync_folder, write_files, write_synced
from minillama.locking import Lock

PARTIAL, JOURNAL, LOCK = ".minillama.partial", "journal.json", "lock"


class Staging:
    """The files of one folder on their way. To be used as a context: whatever goes wrong leaves the folder as it was,
    and in PARTIAL what is finished; nothing, if nothing is worth keeping. One process at a time can; OSError for a
    second one."""

    def __init__(self, folder: Path, recipe: str):
        self.folder, self.partial, self.recipe = folder, folder / PARTIAL, recipe
        self._new = not folder.exists()
        self._lock = Lock(self.partial / LOCK)
        self._kept: dict[str, list[int]] = {}  # finished files -> size, time of writing
        self.names: list[str] = []  # of all files that this run has finished or found

    def __enter__(self) -> Staging:
        with _told(self.folder):
            if self.partial.is_symlink() or (self.partial.exists() and not self.partial.is_dir()):
                raise OSError(f"{self.partial} is not a folder: remove that")
            self.partial.mkdir(parents=True, exist_ok=True)
            if folders := [file for file in self.partial.iterdir() if file.is_dir()]:
                raise OSError(f"{folders[0]} is a folder, and no conversion has made it: remove that")
            try:
                self._lock.take()
            except BlockingIOError:
                raise OSError(
                    f"{self.folder} is being written to by another run: wait for its end, or name another folder"
                ) from None
            try:
                self._kept = self._read_journal()
                self._clear(keep=self._kept)
            except OSError:
                self._lock.free()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):
                self._clear(keep=self._kept)
        self._lock.free()
        if kind is not None and not self._kept:
            with contextlib.suppress(OSError):
                self.partial.rmdir()
                if self._new:
                    self.folder.rmdir()

    def place(self, name: str) -> Path:
        """Where a finished file is now: in PARTIAL, or moved out of it already by a run that was killed then."""
        return self.partial / name if (self.partial / name).exists() else self.folder / name

    def has(self, name: str) -> bool:
        """Whether an earlier run with the same recipe has finished this file, and nobody has changed it since."""
        return name in self._kept and _stamp(self.place(name)) == self._kept[name]

    @property
    def kept(self) -> list[str]:
        """The files that a later run with the same recipe need not make again."""
        return [name for name in self._kept if self.has(name)]

    def add(self, name: str, contents: bytes | Callable[[BinaryIO], None], keep: bool = False) -> None:
        """Make a file. keep: for a later run, should this one not come to its end."""
        part = self.partial / f"{name}.part"
        with _told(self.folder / name):
            write_synced(part, contents)
            os.replace(part, self.partial / name)
            sync_folder(self.partial)
        self.names.append(name)
        if keep:
            self._kept[name] = _stamp(self.partial / name)
            journal = {"recipe": self.recipe, "files": self._kept}
            write_files({self.partial / JOURNAL: json.dumps(journal, indent=2).encode()})

    def reuse(self, name: str) -> None:
        """Take a file that is there, as has() says, or that others have written into `partial`."""
        self.names.append(name)

    def commit(self, remove: Iterable[Path] = ()) -> None:
        """Move all files into the folder, delete those to `remove` and then PARTIAL."""
        for name in self.names:
            with _told(self.folder / name):
                if (self.partial / name).exists():
                    os.replace(self.partial / name, self.folder / name)
        with _told(self.folder):
            for file in remove:
                file.unlink(missing_ok=True)
            sync_folder(self.folder)
            self._clear(keep=())
        self._lock.free()
        with contextlib.suppress(OSError):  # a run that begins now has a right to it
            self.partial.rmdir()

    def _read_journal(self) -> dict[str, list[int]]:
        """What is finished; nothing, if the journal is of another recipe or cannot be read."""
        try:
            journal = json.loads(read_bytes(self.partial / JOURNAL))
            return dict(journal["files"]) if journal["recipe"] == self.recipe else {}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return {}

    def _clear(self, keep: Iterable[str]) -> None:
        wanted = {*keep, JOURNAL, LOCK} if keep else {LOCK}
        for file in self.partial.iterdir():
            if file.name not in wanted:
                file.unlink()


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Errors of the system as one that names the file; those without a number are sentences already."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(f"{file} cannot be written: {error.strerror or error}") from None


def _stamp(file: Path) -> list[int]:
    try:
        status = file.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
