"""Says whether an answer to an exercise is right, and what is wrong with it if it is not.

    from checks import check
    check("3.1", rms_norm)

An exercise (exercises/, a file a chapter) knows the right function, inputs to try it on, and the mistakes that people
make, each as a function that makes it. An answer that gives the numbers of a mistake is told which one it is.
"""

import copy
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Exercise:
    """A question with its right answer: a function, or a plain value such as a predicted shape.

    cases: the argument lists to call a function with; fixed and asymmetric, so that no two mistakes look alike.
    mistakes: what to tell -> the function (or the value) that is wrong in this way.
    rtol: how far a number may be from the right one, in parts of the largest; 1e-9 is far above what another order of
    float64 additions does, and far below any mistake.
    """

    name: str
    right: Any
    cases: Sequence[tuple[Any, ...]] = ()
    mistakes: dict[str, Any] = field(default_factory=dict)
    rtol: float = 1e-9


class WrongAnswerError(AssertionError):
    """The answer is not right; the message says why. Jupyter shows it as one sentence, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"Not right yet. {self}"]


PASSED: set[str] = set()  # the numbers of the exercises solved in this kernel


def exercises(chapter: int) -> dict[str, Exercise]:
    """The exercises of a chapter, by number."""
    return importlib.import_module(f"exercises.chapter_{chapter:02}").EXERCISES


def check(number: str, answer: Any) -> None:
    """Print that an answer is right, or not written yet; else raise WrongAnswerError, which says what is wrong."""
    exercise = exercises(int(number.split(".")[0]))[number]
    title = f"{number} {exercise.name}"
    if not_written(exercise, answer):
        print(f"{title}: not written yet")
        return
    diagnosis = diagnose(exercise, answer)
    if diagnosis:
        raise WrongAnswerError(f"{title}: {diagnosis}")
    PASSED.add(number)
    print(f"{title}: right")


def not_written(exercise: Exercise, answer: Any) -> bool:
    """Whether the answer is the stub as it was handed out: `...`, or a function that returns it."""
    if not callable(answer):
        return answer is ...
    try:
        with np.errstate(all="ignore"):
            return answer(*copy.deepcopy(exercise.cases[0])) is ...
    except NotImplementedError:
        return True
    except Exception:
        return False  # diagnose() tells of it


def diagnose(exercise: Exercise, answer: Any) -> str | None:
    """What is wrong with an answer in one sentence; None if nothing is."""
    if not callable(exercise.right):
        return _diagnose_value(exercise, answer)
    if not callable(answer):
        return f"hand over the function itself, {exercise.name}, not what it returns"
    given = []
    for case in exercise.cases:
        mine = copy.deepcopy(case)
        try:
            with np.errstate(all="ignore"):  # warnings are told last, when the numbers are right
                given.append(answer(*mine))
        except Exception as error:
            return f"it raised {type(error).__name__}: {error} (for {described(case)})"
        if not same(mine, case, 0):
            return "it changes the arrays it was given: make new ones instead of assigning into them"
    wanted = [exercise.right(*copy.deepcopy(case)) for case in exercise.cases]
    if same(given, wanted, exercise.rtol):
        return wrong_kind(given, wanted) or warning(exercise, answer)
    for told, mistake in exercise.mistakes.items():
        if same(given, list(results_of(mistake, exercise)), exercise.rtol):
            return told
    for case, mine, right in zip(exercise.cases, given, wanted, strict=True):
        if not same(mine, right, exercise.rtol):
            return f"{difference(mine, right, exercise.rtol)} (for {described(case)})"
    raise AssertionError("unreachable: some case differs")


def wrong_kind(given: Sequence[Any], wanted: Sequence[Any]) -> str | None:
    """Which arrays have the right numbers and a type that says something else, such as floats for a mask."""
    for mine, right in zip(given, wanted, strict=True):
        if isinstance(mine, np.ndarray) and isinstance(right, np.ndarray):
            if right.dtype == bool and mine.dtype != bool:
                return f"the numbers are right, but they are {mine.dtype}: booleans are wanted"
            if right.dtype.kind in "iu" and mine.dtype.kind in "fc":
                return f"the numbers are right, but they are {mine.dtype}: whole numbers are wanted"
    return None


def warning(exercise: Exercise, answer: Callable[..., Any]) -> str | None:
    """What NumPy complains of while a right answer is computed; None if nothing."""
    for case in exercise.cases:
        try:
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                answer(*copy.deepcopy(case))
        except FloatingPointError as error:
            return f"the numbers are right, but on the way NumPy warns: {error} (for {described(case)})"
    return None


def results_of(function: Callable[..., Any], exercise: Exercise) -> Iterator[Any]:
    """What a function returns for every case of an exercise; nothing more after a case it fails on."""
    for case in exercise.cases:
        try:
            with np.errstate(all="ignore"):
                result = function(*copy.deepcopy(case))
            yield result
        except Exception:
            return


def _diagnose_value(exercise: Exercise, answer: Any) -> str | None:
    if same(answer, exercise.right, exercise.rtol):
        return None
    for told, mistake in exercise.mistakes.items():
        if same(answer, mistake, exercise.rtol):
            return told
    for told, mistake in exercise.mistakes.items():
        if _makes_too(answer, mistake, exercise.right):
            return f"{told} (and there is more)"
    return f"{answer!r} is not it"


def _makes_too(answer: Any, mistake: Any, right: Any) -> bool:
    """Whether an answer of several items has those that are wrong in a mistake, though others are wrong in it too."""
    if not (isinstance(right, tuple | list) and isinstance(answer, tuple | list) and len(answer) == len(right)):
        return False
    return all(mine == wrong for mine, wrong, item in zip(answer, mistake, right, strict=True) if wrong != item)


def same(a: Any, b: Any, rtol: float) -> bool:
    """Whether two results agree: numbers and arrays within rtol of the largest, shapes and all else exactly."""
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(same(x, y, rtol) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key], rtol) for key in a)
    if not (numeric(a) and numeric(b)):
        return type(a) is type(b) and bool(a == b)
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape:
        return False
    return np.allclose(x, y, rtol=0, atol=rtol * scale(y), equal_nan=True)


def numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic | bool | int | float | complex)


def scale(y: np.ndarray) -> float:
    """The largest finite size in an array."""
    finite = np.abs(y[np.isfinite(y)])
    return float(finite.max(initial=0))


def difference(mine: Any, right: Any, rtol: float) -> str:
    """How a result differs from the right one, where no known mistake explains it."""
    if numeric(mine) and numeric(right):
        return array_difference(np.asarray(mine), np.asarray(right), rtol)
    if isinstance(mine, tuple | list) and isinstance(right, tuple | list):
        if len(mine) != len(right):
            return f"it returns {len(mine)} things where {len(right)} are wanted"
        for i, (a, b) in enumerate(zip(mine, right, strict=True)):
            if not same(a, b, rtol):
                if np.ndim(a) == np.ndim(b) == 0 and numeric(a) and numeric(b):
                    return f"item {i} of what it returns: yours is {a}, right is {b}"
                return f"item {i} of what it returns: {difference(a, b, rtol)}"
    if mine is None:
        return "it returns None: is there a return at its end?"
    if type(mine) is not type(right):
        return f"it returns a {type(mine).__name__}, wanted is a {type(right).__name__}"
    return f"it gives {mine!r}, right is {right!r}"


def array_difference(mine: np.ndarray, right: np.ndarray, rtol: float) -> str:
    if mine.shape != right.shape:
        if mine.T.shape == right.shape and same(mine.T, right, rtol):
            return "the numbers are right, but transposed"
        if mine.size == right.size and same(mine.reshape(right.shape), right, rtol):
            return f"the numbers are right, but the shape is {mine.shape} where {right.shape} is wanted"
        return f"the shape is {mine.shape}, wanted is {right.shape}"
    if np.isnan(mine).any() and not np.isnan(right).any():
        return f"{int(np.isnan(mine).sum())} of {mine.size} numbers are NaN"
    with np.errstate(all="ignore"):
        usable = np.isfinite(mine) & np.isfinite(right) & (right != 0)
        if usable.any() and right.dtype != bool:
            factor = float(np.median(mine[usable] / right[usable]))
            if factor != 0 and abs(factor - 1) > 1e-5 and same(mine, right * factor, max(rtol, 1e-6)):
                every = "every number" if right.size > 1 else "the number"
                return f"{every} is {factor:.6g} times what it should be"
            shift = float(np.median(mine[usable] - right[usable]))
            if abs(shift) > 1e-5 * scale(right) and same(mine, right + shift, max(rtol, 1e-6)):
                return f"every number is {shift:+.6g} away from what it should be"
        off = ~np.isclose(mine, right, rtol=0, atol=rtol * scale(right), equal_nan=True)
    first = tuple(int(i) for i in np.argwhere(off)[0])
    where = f"[{', '.join(map(str, first))}]" if first else "the number"
    digits = 6 if f"{mine[first]:.6g}" != f"{right[first]:.6g}" else 12
    return (
        f"{int(off.sum())} of {mine.size} numbers differ; the first is {where}: "
        f"yours is {mine[first]:.{digits}g}, right is {right[first]:.{digits}g}"
    )


def described(case: Sequence[Any]) -> str:
    """The arguments of a case, arrays by their shapes."""
    return ", ".join(f"shape {x.shape}" if isinstance(x, np.ndarray) and x.ndim else repr(x)[:60] for x in case)
