"""A folder that is made in several runs."""

import json
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from minillama.staging import JOURNAL, LOCK, PARTIAL, Staging


def killed_after(folder: Path, recipe: str, *names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that finishes these files and is ended without any chance to clean up."""
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "__exit__", lambda self, *rest: self._lock.drop())
        with Staging(folder, recipe) as staging:
            for name in names:
                staging.add(name, name.encode(), keep=True)
            (staging.partial / "next.part").write_bytes(b"ha")


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_files_appear_together(tmp_path: Path) -> None:
    def write(out: BinaryIO) -> None:
        out.write(b"two")

    folder = tmp_path / "new" / "folder"
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(b"")
    (folder / "other").write_bytes(b"")
    with Staging(folder, "a") as staging:
        staging.add("one", b"one", keep=True)
        staging.add("two", write)
        assert names(folder) == [PARTIAL, "old", "other"]
        staging.commit(remove=[folder / "old"])
    assert names(folder) == ["one", "other", "two"]
    assert (folder / "two").read_bytes() == b"two"


def test_what_a_killed_run_has_finished_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_after(tmp_path, "a", "one", "two", monkeypatch=monkeypatch)
    with Staging(tmp_path, "a") as staging:
        assert names(staging.partial) == [JOURNAL, LOCK, "one", "two"]
        assert [staging.has(name) for name in ("one", "two", "next")] == [True, True, False]
        for name in staging.kept:
            staging.reuse(name)
        staging.commit()
    assert names(tmp_path) == ["one", "two"]


def test_a_run_that_was_killed_while_its_files_were_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_after(tmp_path, "a", "one", "two", monkeypatch=monkeypatch)
    os.replace(tmp_path / PARTIAL / "one", tmp_path / "one")
    with Staging(tmp_path, "a") as staging:
        assert staging.kept == ["one", "two"]
        assert (staging.place("one"), staging.place("two")) == (tmp_path / "one", staging.partial / "two")


@pytest.mark.parametrize("change", ["another recipe", "longer", "rewritten", "gone", "journal", "nested", "list"])
def test_what_is_not_trusted(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_after(tmp_path, "a", "one", monkeypatch=monkeypatch)
    one, journal = tmp_path / PARTIAL / "one", tmp_path / PARTIAL / JOURNAL
    if change == "longer":
        one.write_bytes(b"one more")
    elif change == "rewritten":
        stat = one.stat()
        one.write_bytes(b"eno")
        os.utime(one, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    elif change == "gone":
        one.unlink()
    elif change == "journal":
        journal.write_bytes(b"{")
    elif change == "nested":
        journal.write_bytes(b"[" * 100_000)
    elif change == "list":
        journal.write_text(json.dumps({"recipe": "a", "files": ["one"]}))
    with Staging(tmp_path, "b" if change == "another recipe" else "a") as staging:
        assert not staging.has("one")
        assert staging.kept == []


def test_an_error_leaves_what_was_there_and_what_is_finished(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"old")

    def fails(out: BinaryIO) -> None:
        out.write(b"ha")
        raise OSError(28, "No space left on device")

    def run() -> None:
        with Staging(tmp_path, "a") as staging:
            staging.add("one", b"new", keep=True)
            staging.add("two", fails)

    with pytest.raises(OSError, match=r"two cannot be written: No space left on device"):
        run()
    assert (tmp_path / "one").read_bytes() == b"old"
    assert names(tmp_path / PARTIAL) == [JOURNAL, "one"]


def test_nothing_is_left_where_nothing_is_worth_keeping(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    def run() -> None:
        with Staging(folder, "a") as staging:
            staging.add("config.json", b"{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not folder.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_bytes(b"")
    (tmp_path / "out").mkdir()
    try:
        (tmp_path / "out" / PARTIAL).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError:
        pytest.skip("links need rights here")
    with pytest.raises(OSError, match="is not a folder: remove that"), Staging(tmp_path / "out", "a"):
        pass
    assert names(tmp_path / "elsewhere") == ["precious"]


def test_a_second_run_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with Staging(tmp_path, "a") as staging:
        staging.add("one", b"one", keep=True)
        with pytest.raises(OSError, match="is being written to by another run: wait for its end") as caught:
            Staging(tmp_path, "b").__enter__()
        assert str(caught.value).startswith(str(tmp_path))
        assert names(staging.partial) == [JOURNAL, LOCK, "one"]
        staging.commit()
    assert names(tmp_path) == ["one"]
