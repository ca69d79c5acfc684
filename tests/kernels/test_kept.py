from __future__ import annotations

import ast
import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba import njit
from numba.core.caching import CacheImpl, IndexDataCacheFile

from minillama.kernels import kept
from minillama.kernels.decoder import forward
from minillama.kernels.kept import is_compiled, is_kept, kernel
from minillama.kernels.llvm import inner

KERNEL = """
from minillama.kernels.kept import kernel

@kernel
def add(a, b):
    return a + {} * b
"""


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(kept, "_told", set())
    caplog.set_level(logging.INFO, "minillama")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose kernels are kept in it."""
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path


def add(here: Path, factor: int = 2) -> Any:
    """a + factor * b, as another process would have it from its file."""
    file = here / "some_kernel.py"
    file.write_text(KERNEL.format(factor))
    spec = importlib.util.spec_from_file_location("some_kernel", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.add


def files(here: Path, ending: str) -> list[Path]:
    return sorted((here / "kept").rglob(f"*.{ending}"))


def made() -> Any:
    @njit
    def twice(x: Any) -> Any:
        return x + x

    return twice


def test_what_runs_in_this_process_is_compiled() -> None:
    twice = made()
    assert not is_compiled(twice, (1,))
    twice(1)
    assert is_compiled(twice, (2,))
    assert not is_compiled(twice, (np.zeros(3),))


def test_what_no_kernel_takes_is_not() -> None:
    assert not is_compiled(forward, ("a text", 3))


def test_what_was_compiled_before_is_kept(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not is_compiled(add(here), (1, 2))
    assert add(here)(1, 2) == 5
    assert is_compiled(add(here), (1, 2))
    assert not is_compiled(add(here), (1.0, 2))
    assert is_kept(add(here))
    assert add(here)(10, 20) == 50
    assert caplog.messages == []


def test_of_a_changed_file_nothing_is(here: Path) -> None:
    assert add(here, 2)(1, 2) == 5
    assert not is_compiled(add(here, 3), (1, 2))
    assert add(here, 3)(1, 2) == 7


def test_without_any_folder(here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])  # as where none can be written
    function = add(here)
    assert not is_kept(function)
    assert not is_compiled(function, (1, 2))
    assert caplog.messages == []  # a run that compiles nothing hears nothing of it
    assert function(1, 2) == 5
    assert add(here)(1, 2) == 5
    (said,) = caplog.messages
    assert said.startswith("compiled kernels cannot be kept, as no folder for them can be written: every run compiles")
    assert said.endswith("set NUMBA_CACHE_DIR to a folder that can be written")


@pytest.mark.parametrize("what", ["_save_index", "_save_data"])
def test_a_full_disk(what: str, here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert add(here, 2)(1, 2) == 5
    before = {file: file.read_bytes() for file in files(here, "nbi")}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(IndexDataCacheFile, what, full)
        assert add(here, 2)(1.5, 2) == 5.5
    (said,) = caplog.messages
    assert f"cannot be kept in {files(here, 'nbi')[0].parent} (No space left on device): every run" in said
    if what == "_save_index":
        assert before == {file: file.read_bytes() for file in files(here, "nbi")}
    assert is_compiled(add(here, 2), (1, 2))  # what was there is there


def test_a_disk_that_fills_between_an_index_and_its_code(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's new index names the file of the old code then."""
    assert add(here, 2)(1, 2) == 5

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(IndexDataCacheFile, "_save_data", full)
        assert add(here, 3)(1, 2) == 7
    assert not is_compiled(add(here, 3), (1, 2))
    assert add(here, 3)(1, 2) == 7
    assert is_compiled(add(here, 3), (1, 2))


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "others"])
def test_a_damaged_file(ending: str, damage: str, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert add(here)(1, 2) == 5
    (file,) = files(here, ending)
    data = file.read_bytes()
    middle = len(data) // 2
    file.write_bytes({
        "empty": b"",
        "cut": data[:middle],
        "zeros": data[:middle] + bytes(len(data) - middle - 100) + data[-100:],
        "others": b"\x80\x04N.",  # a pickle of None
    }[damage])  # fmt: skip
    assert not is_compiled(add(here), (1, 2))
    assert add(here)(1, 2) == 5
    assert is_compiled(add(here), (1, 2))
    assert not [said for said in caplog.messages if "cannot be kept" in said]


def test_a_file_of_somebody_else(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its index cannot be read, and can be replaced."""
    assert add(here)(1, 2) == 5
    load, refused = IndexDataCacheFile._load_index, [True]

    def denied(self: Any) -> Any:
        if refused[0]:
            raise PermissionError(13, "Permission denied")
        return load(self)

    def flush(self: Any) -> None:
        refused[0] = False
        self._save_index({})

    with monkeypatch.context() as patch:
        patch.setattr(IndexDataCacheFile, "_load_index", denied)
        patch.setattr(IndexDataCacheFile, "flush", flush)
        assert add(here)(1, 2) == 5
    assert is_compiled(add(here), (1, 2))


def test_where_numba_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.config, "DISABLE_JIT", 1)

    @kernel
    def add(a: int, b: int) -> int:
        return a + 2 * b

    assert add(1, 2) == 5
    assert not is_compiled(add, (1, 2))
    assert not is_kept(add)


@pytest.mark.parametrize(
    "settings", [{"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}, {"NUMBA_DISABLE_JIT": "1"}]
)
def test_the_command_tells_its_story_all_the_same(settings: dict[str, str]) -> None:
    """Where kernels can be kept nowhere, as in an installation that belongs to somebody else."""
    elsewhere = {"NUMBA_CACHE_DIR": os.devnull}  # with which the command asks Numba whether they are compiled
    command = [sys.executable, "-m", "minillama.generate", "--max-new-tokens", "3"]
    done = subprocess.run(command, env=os.environ | elsewhere | settings, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Once upon a time ")


def made_by_a_factory(number: int, other: Any = None) -> Any:
    @inner
    def made(x: int) -> int:
        return x * number if other is None else x

    return made


def test_functions_of_one_factory_have_names_of_their_own() -> None:
    """By which compiled code knows them, beside a number that each process gives anew: two that only what the factory
    was given tells apart would be mistaken for each other where one was compiled in another process."""
    names = [made_by_a_factory(number).py_func.__qualname__ for number in (2, 3, 2)]
    assert names[0] == names[2] != names[1]
    outer = [made_by_a_factory(1, made_by_a_factory(number)).py_func.__qualname__ for number in (2, 3, 2)]
    assert outer[0] == outer[2] != outer[1]


@pytest.mark.parametrize("file", sorted(Path(kept.__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_every_function_that_a_factory_makes_for_kernels_is_so_named(file: Path) -> None:
    tree = ast.parse(file.read_text())
    nested = [
        node for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef)
        for node in ast.walk(outer) if isinstance(node, ast.FunctionDef) and node is not outer
    ]  # fmt: skip
    decorated = {ast.unparse(decorator) for node in nested for decorator in node.decorator_list}
    assert not {name for name in decorated if name.startswith("njit")}
