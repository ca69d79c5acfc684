"""A property is tried on drawn cases until one breaks it, and that case is made as small as it can be."""

from __future__ import annotations

import copy
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, configuration, given, settings
from hypothesis.errors import Flaky

from minillama.config import LlamaConfig
from minillama.testing.base import Case, Implementation, Mismatch, Property
from minillama.testing.levels import Level

OWN = (Path(__file__).parent, Path(__file__).parent / "properties")
SHOWN = 8  # numbers of an array that are printed
QUIET = settings(
    derandomize=True,  # the same cases in every run
    database=None,  # no folder is left behind
    deadline=None,  # a first call may compile
    phases=(Phase.generate, Phase.shrink),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


class ConformanceError(AssertionError):
    """An implementation breaks a property; the message says which, in which case, and how."""


class ConformanceWarning(UserWarning):
    """A property could not be tried, because the implementation lacks something."""


@dataclass(frozen=True)
class Outcome:
    """What became of a property: skipped is why it could not be tried, or None if it holds."""

    property: Property
    skipped: str | None

    def __repr__(self) -> str:
        return f"<{self.property.id} {'holds' if self.skipped is None else f'is skipped: {self.skipped}'}>"


class _Broken(Exception):  # noqa: N818  # the one kind of failure that hypothesis sees
    pass


def run(prop: Property, implementation: Implementation, level: Level, examples: int | None = None) -> Outcome:
    """Try a property, on no more cases than `examples`. ConformanceError if it does not hold; skipped where a function
    is missing or raises NotImplementedError in any case, though the others are tried all the same."""
    missing = [name for name in prop.needs if name not in implementation]
    if missing:
        return Outcome(prop, f"there is no function {' and no '.join(missing)}")
    calls = {name: with_copies(value) if callable(value) else value for name, value in implementation.items()}
    lacking: list[str] = []
    causes: list[frozenset[str]] = []
    smallest: list[tuple[Case, str]] = []  # the last that hypothesis tries is the smallest

    @settings(QUIET, max_examples=min(prop.examples, examples or prop.examples))
    @given(prop.cases(level))
    def try_case(drawn: Case) -> None:
        case, told = copy.deepcopy(drawn), None  # which a property may change
        try:
            prop.holds(calls, case, level)
        except NotImplementedError as error:
            lacking.append(str(error) or "a case")
        except Mismatch as mismatch:
            told = str(mismatch)
            causes.append(mismatch.causes)
        except Exception as error:
            told = f"it raised {type(error).__name__}: {error}\n{_where(error)}"
            causes.append(frozenset())
        if told is not None:
            smallest[:] = [(case, told)]
            raise _Broken

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"), nothing_left_behind():
            warnings.simplefilter("ignore")  # of the implementation's own making, such as an overflow it means
            try_case()
    except (_Broken, Flaky):  # which has failed once, and then not: the implementation draws lots
        message = _message(prop, level, *smallest[0], frozenset.intersection(*causes))
        raise ConformanceError(message) from None
    return Outcome(prop, f"not implemented: {lacking[0]}" if lacking else None)


def check(properties: Sequence[Property], implementation: Implementation, level: Level) -> list[Outcome]:
    """Run properties one after the other; ConformanceError for the first that is broken, ConformanceWarning for each
    that is skipped."""
    outcomes = []
    for prop in properties:
        outcomes.append(run(prop, implementation, level))
        if outcomes[-1].skipped:
            warnings.warn(f"{prop.id} is skipped: {outcomes[-1].skipped}", ConformanceWarning, stacklevel=3)
    return outcomes


def with_copies(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which may overwrite what it is given."""
    return lambda *arguments: fn(*copy.deepcopy(arguments))


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Hypothesis notes in a folder which constants local modules have: here in one that is deleted afterwards."""
    before = vars(configuration).get("__hypothesis_home_directory")
    with tempfile.TemporaryDirectory() as folder:
        configuration.set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            configuration.set_hypothesis_home_dir(before)


def _message(prop: Property, level: Level, case: Case, told: str, causes: frozenset[str]) -> str:
    lines = [f"{prop.id}: {prop.sentence}", *told.splitlines()]
    lines += [f"smallest case, {level.name}:", *(f"  {name}: {shown(value)}" for name, value in case.items())]
    if causes:
        lines.append(f"these are the numbers one gets where {', or where '.join(sorted(causes))}")
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A drawn value in a line: arrays by their type and shape, small ones with their numbers."""
    if isinstance(value, dict) and any(isinstance(item, np.ndarray) for item in value.values()):
        return f"{len(value)} arrays"
    if isinstance(value, LlamaConfig):
        usual = LlamaConfig().to_dict()
        return ", ".join(f"{name}={item!r}" for name, item in value.to_dict().items() if item != usual[name])
    if not isinstance(value, np.ndarray):
        return repr(value)
    kind = f"{value.dtype} {value.shape}"
    if value.size > SHOWN:
        return kind
    numbers = np.array2string(value, separator=", ", formatter={"float_kind": str})
    return f"{kind} {' '.join(numbers.split())}"


def _where(error: Exception) -> str:
    """The innermost line of the adapter that an exception went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent not in OWN]
    if not frames:
        return "when it was called"
    deepest = [frame for frame in frames if frame.filename == frames[0].filename][-1]  # not inside of a framework
    return f"in {deepest.name}, {Path(deepest.filename).name}:{deepest.lineno}"
