"""python -m minillama.notebooks: what it copies, what it leaves alone, and what it opens."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from minillama import notebooks
from minillama.notebooks import FIRST, FOLDER, course_files, main
from minillama.shipped import course
from tests.bad import Capture, assert_refused, command


def hand_out(capfd: Capture, *arguments: object) -> str:
    """The command copies, and complains of nothing; standard output."""
    status, out, err = command(capfd, *arguments, "--no-open", run=main)
    assert (status, err) == (0, "")
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_all_that_a_student_needs(tmp_path: Path, capfd: Capture) -> None:
    place = tmp_path / "new" / "lessons"
    out = hand_out(capfd, place)
    assert str(place) in out
    assert contents(place) == course_files()
    for name in (FIRST, "checks.py", "exercises/chapter_03.py", "solutions/chapter_03.py", "figures/__init__.py"):
        assert (place / name).read_bytes() == (course() / name).read_bytes()


def test_the_default_folder(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hand_out(capfd)
    assert [file.name for file in tmp_path.iterdir()] == [FOLDER]


def test_without_solutions_then_with(tmp_path: Path, capfd: Capture) -> None:
    hand_out(capfd, tmp_path, "--no-solutions")
    assert not (tmp_path / "solutions").exists()
    assert (tmp_path / "exercises" / "chapter_03.py").exists()
    hand_out(capfd, tmp_path)
    assert contents(tmp_path) == course_files()


def test_what_running_it_leaves_is_not_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("03_x.ipynb", "checks.py", "__pycache__/checks.pyc", ".ipynb_checkpoints/03_x.ipynb", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(notebooks, "course", lambda: tmp_path)
    assert set(course_files()) == {"03_x.ipynb", "checks.py"}


def test_work_is_never_overwritten(tmp_path: Path, capfd: Capture) -> None:
    hand_out(capfd, tmp_path)
    (tmp_path / FIRST).write_text("a student's work")
    (tmp_path / "checks.py").unlink()
    (tmp_path / "my notes.txt").write_text("mine")
    status, _, err = command(capfd, tmp_path, "--no-open", run=main)
    assert status == 0
    assert FIRST in err
    assert err.count("\n") == 1
    assert contents(tmp_path) == course_files() | {FIRST: b"a student's work", "my notes.txt": b"mine"}


def test_many_changed_files_are_counted(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "course_files", lambda solutions: {f"{n}.py": b"new" for n in range(8)})
    for n in range(8):
        (tmp_path / f"{n}.py").write_text("old")
    _, _, err = command(capfd, tmp_path, "--no-open", run=main)
    assert "0.py, 1.py, 2.py, 3.py, 4.py and 3 more" in err


def test_a_file_in_the_way(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "file").write_text("kept")
    assert_refused(capfd, [tmp_path / "file"], "is not a folder", run=main)
    assert_refused(capfd, [tmp_path / "file" / "course"], tmp_path / "file", run=main)
    assert contents(tmp_path) == {"file": b"kept"}


def test_an_empty_path(capfd: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([""])
    assert "empty" in capfd.readouterr().err


def test_jupyter_opens_in_the_folder(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that stands in for JupyterLab writes down how it was called, and ends with status 7."""
    (tmp_path / "jupyterlab.py").write_text(
        "import json, os, sys\njson.dump([os.getcwd(), sys.argv[1:]], open('called.json', 'w'))\nsys.exit(7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(notebooks, "NEEDED", ("jupyterlab",))
    before = signal.getsignal(signal.SIGINT)
    place = tmp_path / "course"
    assert command(capfd, place, run=main) == (7, "", "")
    where, arguments = json.loads((place / "called.json").read_text())
    assert Path(where).samefile(place)
    assert arguments == [FIRST]
    assert signal.getsignal(signal.SIGINT) is before


def test_without_jupyter_the_course_is_there_all_the_same(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks, "NEEDED", ("json", "no_such_jupyter"))
    assert_refused(capfd, [tmp_path], tmp_path, "no_such_jupyter is missing", "python -m pip install", run=main)
    assert contents(tmp_path) == course_files()
