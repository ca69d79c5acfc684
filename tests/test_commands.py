"""What all commands do alike: one sentence about what is wrong, and an exit status."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minillama import bench, commands, compare, convert, evaluate, generate, notebooks, trace
from minillama.benchmarks import convert_speed, trace_speed

Capture = pytest.CaptureFixture[str]
COMMANDS: list[Callable[[list[str]], int]] = [
    bench.main, compare.main, convert.main, evaluate.main, generate.main, notebooks.main, trace.main,
]  # fmt: skip


@pytest.mark.parametrize("main", COMMANDS, ids=lambda main: main.__module__)
def test_a_wrong_option_is_one_line(main: Callable[[list[str]], int], capfd: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--no-such-option", "a", "b", "c"])
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("minillama: ")
    assert err.endswith(f": see python -m {main.__module__} --help\n")


@pytest.mark.parametrize("module", [convert_speed, trace_speed])
def test_so_are_those_of_the_measurements(module: Any, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["command", "--repeats", "some"])
    with pytest.raises(SystemExit, match="2"):
        module.main()
    said = "minillama: --repeats must be a whole number, not 'some': see python -m "
    assert capfd.readouterr().err == f"{said}{module.__name__} --help\n"


def test_long_and_broken_arguments_stay_one_line(capfd: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        generate.main(["a\nb", "x" * 10_000])
    err = capfd.readouterr().err
    assert err.startswith("minillama: unrecognized arguments: a b xxx")
    assert (err.count("\n"), len(err) < 600) == (1, True)


def fail(error: Exception) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no locator\navailable"), ImportError("no locator available"), KeyError("no locator available")],
)
def test_an_error_that_nobody_foresaw_is_one_line(error: Exception, capfd: Capture) -> None:
    assert commands.status_of(fail(error)) == 1
    err = capfd.readouterr().err
    assert err.startswith(f"minillama: unexpected {type(error).__name__}: ")
    assert "no locator available" in err
    assert err.endswith("with what the same command prints under python -X dev\n")
    assert err.count("\n") == 1
    assert commands.status_of(fail(error), failed=2) == 2


def test_its_traceback_is_there_for_who_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sys.flags", SimpleNamespace(dev_mode=True))
        with pytest.raises(RuntimeError, match="no locator"):
            commands.status_of(fail(RuntimeError("no locator")))


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\rb", "a\udcffb"])
def test_a_name_stays_on_its_line(name: str, capfd: Capture) -> None:
    """No name of a file ends the line of a message, or moves the cursor of the terminal that shows it."""
    assert generate.main(["--weights", name]) == 1
    assert convert.main(["--check", name]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 2
    assert all(line.isprintable() for line in err.splitlines())
    assert err.count(ascii(name)[1:-1] + " does not exist") == 2


def test_so_does_a_name_in_a_warning(capfd: Capture) -> None:
    line = commands.OneLine("minillama: %(message)s").format(
        logging.LogRecord("minillama", logging.WARNING, "", 0, "no template in %s", ("a\n\x1b[2Jb",), None)
    )
    assert line == "minillama: no template in a\\n\\x1b[2Jb"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("command", ["generate --max-new-tokens 1", "trace --ids 1 --list"])
def test_output_that_cannot_be_written_is_named(command: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", *f"minillama.{command}".split()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (ended.returncode, ended.stderr) == (
        1,
        "minillama: standard output cannot be written: No space left on device\n",
    )


def test_a_picture_where_a_folder_is(tmp_path: Path) -> None:
    (tmp_path / "x.html").mkdir()
    with pytest.raises(ValueError, match=r"--html cannot write .*x\.html: a folder has its name"):
        commands.check_output("--html", str(tmp_path / "x.html"), (".html",))


@pytest.mark.skipif(sys.platform == "win32", reason="where such a file can be read, its length is 0")
@pytest.mark.parametrize("command", ["generate --prompt -", "generate --chat", "evaluate -"])
def test_input_that_cannot_be_read_is_named(command: str, tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as only_written:
        ended = subprocess.run(
            [sys.executable, "-m", *f"minillama.{command}".split()], stdin=only_written, capture_output=True, text=True
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "minillama: standard input cannot be read: Bad file descriptor"


def test_an_error_of_the_system_names_its_file(capfd: Capture) -> None:
    assert commands.status_of(fail(PermissionError(13, "Permission denied", "some.json"))) == 1
    assert capfd.readouterr().err == "minillama: some.json cannot be opened: Permission denied\n"
