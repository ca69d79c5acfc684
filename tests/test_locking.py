"""A lock that goes with its process."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minillama import locking
from minillama.locking import Lock

HOLD = """
import sys
from pathlib import Path
from minillama.locking import Lock

lock = Lock(Path(sys.argv[1]))
lock.take()
print("taken", flush=True)
sys.stdin.read()
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    first.take()
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            second.take()
    first.free()
    assert list(tmp_path.iterdir()) == []
    second.take()
    first.free()  # which has it no more
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]
    second.free()


def test_a_process_that_is_killed_holds_it_no_longer(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    line = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        with pytest.raises(BlockingIOError):
            Lock(file).take()
        process.kill()
    assert file.exists()
    lock = Lock(file)
    lock.take()
    lock.free()


def test_a_lock_that_was_freed_between_opening_and_locking_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is gone by then, and a third run may have made another: locking the old one would mean nothing."""
    file, lock = tmp_path / "lock", locking.try_to_lock

    def late(descriptor: int) -> None:
        lock(descriptor)
        os.replace(file, tmp_path / "gone")
        file.write_bytes(b"")

    monkeypatch.setattr(locking, "try_to_lock", late)
    with pytest.raises(BlockingIOError):
        Lock(file).take()


@pytest.mark.skipif(sys.platform == "win32", reason="locks as Unix does")
def test_a_disk_without_locks_gives_it_to_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    first.take()
    second.take()
    first.free()
    second.free()
