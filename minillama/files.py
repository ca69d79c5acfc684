"""Files that are written whole or not at all, and read if they have an end."""

import contextlib
import errno
import os
import select
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

PATIENCE = 1.0  # seconds for a program to open the other end of a pipe
PART = ".minillama.part"  # behind the name and the process that writes it


def write_files(
    files: Mapping[Path, bytes | Callable[[BinaryIO], None]], remove: Iterable[Path] = (), synced: bool = True
) -> None:
    """Write all `files`, each from its bytes or by a function that writes them; then delete those to `remove`.

    Each is written beside its place under a name of its own and synced to the disk; when all are, they are moved into
    place. Whatever goes wrong before that leaves what was there untouched. What a process that was killed has left in
    the folders is removed. synced: False for what is easily made again, which a crash of the machine may then spoil.
    OSError that names the file; one of a function that has no number is a sentence already.
    """
    parts = {file: file.parent / f"{file.name}.{os.getpid()}{PART}" for file in files}
    file = next(iter(files), Path())
    try:
        for folder in {file.parent for file in files}:
            remove_left_behind(folder)
        for file, contents in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder has its name")
            if file.exists() and not file.is_file():  # /dev/null would become a file
                raise FileExistsError(errno.EEXIST, "a device or a pipe has its name")
            write(parts[file], contents, synced)
        for file, part in parts.items():
            os.replace(part, file)
        for file in remove:
            file.unlink(missing_ok=True)
        for folder in {file.parent for file in files} if synced else ():
            sync_folder(folder)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(f"{file} cannot be written: {error.strerror or error}") from None
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def read_bytes(file: str | os.PathLike[str]) -> bytes:
    """What is in a file, or comes through a pipe, as `<(...)` of a shell is one. OSError if it cannot be read, is a
    device, which might never end, or a pipe that no program writes to."""
    with open(file, "rb", opener=_open_at_once) as opened:
        kind = os.fstat(opened.fileno()).st_mode
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            raise OSError(errno.EINVAL, "it is a device")
        if stat.S_ISFIFO(kind) and hasattr(os, "mkfifo"):  # not on Windows, where such a file never waits
            return _from_pipe(opened.fileno())
        return opened.read()


def _open_at_once(file: str, flags: int) -> int:
    """A descriptor; of a pipe too, though no program has its other end."""
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))


def _from_pipe(descriptor: int) -> bytes:
    """What comes through a pipe until its writers have closed it. OSError if none comes within PATIENCE."""
    parts = []
    if not select.select([descriptor], [], [], PATIENCE)[0]:
        with contextlib.suppress(BlockingIOError):  # a writer is there, and takes its time
            if not (part := os.read(descriptor, 1)):
                raise OSError(errno.EINVAL, "it is a pipe, and no program writes to it")
            parts.append(part)
    os.set_blocking(descriptor, True)
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def remove_left_behind(folder: Path) -> None:
    """Remove parts of files whose processes have ended before they could."""
    import psutil  # as late as this: few who import the package write anything

    for part in folder.glob(f"*{PART}"):
        pid = part.name.removesuffix(PART).rpartition(".")[2]
        if pid.isdecimal() and len(pid) < 10 and not psutil.pid_exists(int(pid)):
            part.unlink(missing_ok=True)


def write_synced(file: Path, contents: bytes | Callable[[BinaryIO], None]) -> None:
    """Write one file where it is; when that returns, it is on the disk."""
    write(file, contents, synced=True)


def write(file: Path, contents: bytes | Callable[[BinaryIO], None], synced: bool) -> None:
    """Write one file where it is. synced: it is on the disk then."""
    with open(file, "wb") as out:
        if isinstance(contents, bytes):
            out.write(contents)
        else:
            contents(out)
        if synced:
            out.flush()
            os.fsync(out.fileno())


def reserve(out: BinaryIO, size: int) -> None:
    """Have the file system set that many bytes aside, where it can: what does not fit is known before the work, and
    writing is quicker. OSError if there is no room."""
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        try:
            os.posix_fallocate(out.fileno(), 0, size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def sync_folder(folder: Path) -> None:
    """Have the names of the files in a folder on the disk too, where the system can do that (Windows cannot)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
