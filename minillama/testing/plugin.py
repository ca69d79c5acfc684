"""The options of the suite, which pytest has only where it is asked to run it:

pytest --pyargs minillama.testing.suite --impl mypkg.adapter --level bf16
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from minillama.testing import NEEDS

if TYPE_CHECKING:
    from minillama.testing.base import Implementation
    from minillama.testing.levels import Level

SUITE = re.compile(r"minillama[./\\]testing([./\\]suite|[/\\]?$)")
IMPLEMENTATION: pytest.StashKey[Implementation] = pytest.StashKey()
LEVEL: pytest.StashKey[Level] = pytest.StashKey()


def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    if any(SUITE.search(arg) for arg in args):
        group = parser.getgroup("minillama", "minillama's conformance suite")
        group.addoption("--impl", metavar="MODULE", help="the module whose functions are tested, as mypkg.adapter")
        group.addoption("--level", help="float32, bf16 or quantized (default: the module's own, else float32)")
        group.addoption(
            "--examples", type=int, metavar="N", help="try N cases of a property at most (default: 10 to 50)"
        )


def pytest_configure(config: pytest.Config) -> None:
    """pytest.UsageError, which is printed as one sentence, if there is nothing to test or nothing to test it with."""
    if not hasattr(config.option, "impl"):
        return
    try:
        from minillama.testing.levels import level_named

        module = named_module(config.option.impl, str(config.invocation_params.dir))
        if config.option.examples is not None and config.option.examples < 1:
            raise ValueError(f"--examples must be 1 or more, not {config.option.examples}")
        config.stash[IMPLEMENTATION] = implementation_of(module)
        config.stash[LEVEL] = level_named(config.option.level or getattr(module, "level", "float32"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header(config: pytest.Config) -> str | None:
    return f"minillama: {config.option.impl}, level {config.stash[LEVEL].name}" if LEVEL in config.stash else None


def named_module(name: str | None, folder: str) -> Any:
    """The adapter, which may lie in the folder that pytest was started in. ValueError that says why there is none."""
    if name is None:
        raise ValueError("name the module whose functions are to be tested, as in --impl mypkg.adapter")
    if name.endswith(".py") or "/" in name or "\\" in name:
        raise ValueError(f"--impl names a module, as in mypkg.adapter, and not a file: {name}")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(f"--impl {name} cannot be imported: {type(error).__name__}: {error}") from None


def implementation_of(module: Any) -> Implementation:
    """The functions and constants of an adapter. ValueError if it has no function to test."""
    try:
        from minillama.testing.checks import CONSTANTS, FUNCTIONS
        from minillama.testing.properties.rope import layout_of
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise ValueError(NEEDS.format("hypothesis")) from None
    found = {name: getattr(module, name) for name in (*FUNCTIONS, *CONSTANTS) if hasattr(module, name)}
    if not found.keys() & set(FUNCTIONS):
        raise ValueError(f"{module.__name__} has none of the functions {', '.join(FUNCTIONS)}: define one or more")
    layout_of(found)
    return found
