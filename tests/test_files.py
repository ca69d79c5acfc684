import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from minillama.files import PART, reserve, write_files


def test_bytes_and_writers_into_a_folder_that_is_made(tmp_path: Path) -> None:
    def write(out: BinaryIO) -> None:
        out.write(b"one ")
        out.write(b"two")

    write_files({tmp_path / "a" / "b.txt": b"whole", tmp_path / "a" / "c.txt": write})
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"whole"
    assert (tmp_path / "a" / "c.txt").read_bytes() == b"one two"
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_all_or_nothing(tmp_path: Path) -> None:
    def fails(out: BinaryIO) -> None:
        out.write(b"half")
        raise OSError(28, "No space left on device")

    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    first.write_bytes(b"old")
    third.write_bytes(b"old too")
    with pytest.raises(OSError, match=r"second cannot be written: No space left on device"):
        write_files({first: b"new", second: fails}, remove=[third])
    assert (first.read_bytes(), third.read_bytes()) == (b"old", b"old too")
    assert sorted(tmp_path.iterdir()) == [first, third]


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_files({tmp_path / "file": b"new"})
    assert list(tmp_path.iterdir()) == []


def test_what_is_to_be_removed_goes_last(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    write_files({tmp_path / "new": b"new"}, remove=[tmp_path / "old", tmp_path / "never was"])
    assert [file.name for file in tmp_path.iterdir()] == ["new"]


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    left = tmp_path / f"model-00002-of-00003.safetensors.{process.pid}{PART}"
    others = [tmp_path / f"model.{os.getpid()}{PART}", tmp_path / f"notes.{process.pid}.part", tmp_path / f"x{PART}"]
    for file in (left, *others):
        file.write_bytes(b"half")
    write_files({tmp_path / "config.json": b"{}"})
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "config.json"])


def test_a_sentence_on_what_cannot_be_read_stays_as_it_is(tmp_path: Path) -> None:
    def fails(out: BinaryIO) -> None:
        raise OSError("source.bin cannot be read: Input/output error")

    with pytest.raises(OSError, match=r"^source\.bin cannot be read: Input/output error$"):
        write_files({tmp_path / "out": fails})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot set space aside")
def test_space_is_set_aside_or_said_to_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int, start: int, size: int, number: int = errno.ENOSPC) -> None:
        raise OSError(number, os.strerror(number))

    file = tmp_path / "file"
    write_files({file: lambda out: reserve(out, 5)}, synced=False)
    assert file.stat().st_size == 5
    monkeypatch.setattr(os, "posix_fallocate", fails)
    with pytest.raises(OSError, match="file cannot be written: No space left"):
        write_files({file: lambda out: reserve(out, 9)}, synced=False)
    assert [entry.stat().st_size for entry in tmp_path.iterdir()] == [5]
    monkeypatch.setattr(os, "posix_fallocate", lambda *given: fails(*given, number=errno.EOPNOTSUPP))
    write_files({file: lambda out: reserve(out, 9)}, synced=False)  # then it is written without
    assert file.stat().st_size == 0


def test_what_is_no_file_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved onto a device, a file would take its place: there would be no /dev/null any more."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="a folder has its name"):
        write_files({Path(): b"new"})
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")
        with pytest.raises(OSError, match="pipe cannot be written: a device or a pipe has its name"):
            write_files({Path("pipe"): b"new"})
        assert Path("pipe").is_fifo()
        assert os.listdir() == ["pipe"]
