import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from minillama import files
from minillama.files import PART, read_bytes, reserve, write_files
from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizerFast
from tests.bad import Capture, assert_refused, checkpoint


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


# -- pipes --------------------------------------------------------------------------------------------------------

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")


def pipe(file: Path) -> Path:
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    return file


def written(file: Path, *parts: bytes, after: float = 0.0) -> threading.Thread:
    """A program that opens a pipe after some seconds and writes into it, with pauses."""

    def write() -> None:
        time.sleep(after)
        with open(file, "wb", buffering=0) as out:
            for part in parts:
                out.write(part)
                time.sleep(0.1)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@needs_pipes
def test_a_pipe_that_nobody_writes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with pytest.raises(OSError, match="it is a pipe, and no program writes to it"):
        read_bytes(pipe(tmp_path / "pipe"))


@needs_pipes
@pytest.mark.parametrize(
    "parts",
    [[b"one ", b"two"], [b"x" * 200_000, b"y" * 200_000], [b"", b"", b"late"], []],
    ids=["two", "long", "late", "no"],
)
def test_what_comes_through_a_pipe(parts: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.15)
    file = pipe(tmp_path / "pipe")
    writer = written(file, *parts, after=0.05)
    assert read_bytes(file) == b"".join(parts)
    writer.join()


@needs_pipes
@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_the_pipe_of_a_shell() -> None:
    """`<(...)` is one: a tokenizer through it is read once, though the library reads files by itself."""
    reading, writing = os.pipe()
    text = (tale_model() / "tokenizer.json").read_bytes()

    def write() -> None:
        with open(writing, "wb") as out:
            out.write(text)

    writer = threading.Thread(target=write)
    writer.start()
    tokenizer = LlamaTokenizerFast(tokenizer_file=f"/dev/fd/{reading}")
    writer.join()
    os.close(reading)
    assert tokenizer.encode("The fox") == LlamaTokenizerFast.from_pretrained(tale_model()).encode("The fox")


FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "additional_chat_templates/rag.jinja",
)  # fmt: skip


@needs_pipes
@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_the_place_of_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    folder = checkpoint(tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    words = f"{pipe(folder / name)} cannot be read: it is a pipe, and no program writes to it"
    assert_refused(capfd, ["--weights", folder, "--max-new-tokens", 1], words)


@needs_pipes
@pytest.mark.parametrize("option", ["--config", "--tokenizer", "--prompt-file"])
@pytest.mark.parametrize("ending", ["", ".json", ".model", ".bin"])
def test_a_pipe_as_an_option(
    option: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    file = pipe(tmp_path / f"pipe{ending}")
    weights = checkpoint(tmp_path / "model") / "model.safetensors"
    words = f"{file} cannot be read: it is a pipe, and no program writes to it"
    assert_refused(capfd, ["--weights", weights, option, file], words)
