"""What all commands do alike: one sentence about what is wrong, and an exit status."""

from __future__ import annotations

from collections.abc import Callable
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
    said = "minillama: argument --repeats: invalid int value: 'some': see python -m "
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
