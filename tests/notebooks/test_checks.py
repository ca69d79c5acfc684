"""The checks of the exercises: the right answer passes, every mistake is told by its name, a stub is left alone."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.notebooks.running import COURSE, NOTEBOOKS, exercise_of, read, solutions

sys.path.append(str(COURSE))  # as in a notebook, whose folder is on the path

import checks

CHAPTERS = sorted(int(file.stem[-2:]) for file in (COURSE / "exercises").glob("chapter_*.py"))
ALL = [(number, exercise) for chapter in CHAPTERS for number, exercise in checks.exercises(chapter).items()]
every = pytest.mark.parametrize(("number", "exercise"), ALL, ids=lambda value: value if type(value) is str else "")


def results(exercise: Any, function: Any) -> list[Any]:
    return list(checks.results_of(function, exercise)) if callable(function) else [function]


@every
def test_the_right_answer_passes(number: str, exercise: Any, capsys: pytest.CaptureFixture[str]) -> None:
    checks.PASSED.discard(number)
    checks.check(number, exercise.right)
    assert capsys.readouterr().out == f"{number} {exercise.name}: right\n"
    assert number in checks.PASSED


@every
def test_a_mistake_is_told_by_its_name(number: str, exercise: Any) -> None:
    for told, mistake in exercise.mistakes.items():
        with pytest.raises(checks.WrongAnswerError) as wrong:
            checks.check(number, mistake)
        assert str(wrong.value) == f"{number} {exercise.name}: {told}"


@every
def test_three_different_wrong_answers_are_rejected(number: str, exercise: Any) -> None:
    """At least three, and no two of them with the same results: each would be told as the first."""
    told = [results(exercise, mistake) for mistake in exercise.mistakes.values()]
    assert len(told) >= 3
    for i, one in enumerate(told):
        assert not any(checks.same(one, other, exercise.rtol) for other in told[:i])


@every
def test_a_stub_is_left_alone(number: str, exercise: Any, capsys: pytest.CaptureFixture[str]) -> None:
    checks.check(number, (lambda *_: ...) if callable(exercise.right) else ...)
    assert capsys.readouterr().out.endswith("not written yet\n")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stubs_checks_and_solutions_go_together(path: Any) -> None:
    chapter = path.name[:2]
    cells = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    stubs = [number for number in map(exercise_of, cells) if number]
    known = set(checks.exercises(int(chapter))) if int(chapter) in CHAPTERS else set()
    assert set(stubs) == known == set(solutions(chapter))
    for number in stubs:
        assert any(f'check("{number}"' in source for source in cells)


def diagnosis(right: Any, answer: Any, *cases: tuple[Any, ...]) -> str | None:
    return checks.diagnose(checks.Exercise("f", right, cases), answer)


def test_what_is_said_of_a_mistake_nobody_foresaw() -> None:
    x = np.array([[1.0, -2, 5], [0.5, 8, -3]])

    def twice(x: Any) -> Any:
        return 2 * x

    assert diagnosis(twice, twice, (x,)) is None
    assert "3 times" not in str(diagnosis(twice, twice, (x,)))
    nearly = str(diagnosis(twice, lambda x: 2 * x * (1 + 1e-8), (x,)))  # not "1 times"
    assert "yours is 2.00000002, right is 2 " in nearly
    told: dict[str, Any] = {
        "every number is 1.5 times": lambda x: 3 * x,
        "every number is +0.25 away": lambda x: 2 * x + 0.25,
        "right, but transposed": lambda x: 2 * x.T,
        "the shape is (6,) where (2, 3)": lambda x: 2 * x.ravel(),
        "the shape is (2,), wanted is (2, 3)": lambda x: x.sum(1),
        "it returns None": lambda x: None,
        "1 of 6 numbers are NaN": lambda x: np.where(x == 8, np.nan, 2 * x),
        "1 of 6 numbers differ; the first is [1, 2]: yours is 7, right is -6": lambda x: np.where(x == -3, 7, 2 * x),
        "it raised ZeroDivisionError": lambda x: 1 / 0,
        "it changes the arrays": lambda x: np.multiply(x, 2, out=x),
        "hand over the function itself": 2 * x,
    }
    for sentence, answer in told.items():
        assert sentence in str(diagnosis(twice, answer, (x,)))


def test_the_type_of_an_array_counts() -> None:
    def odd(x: Any) -> Any:
        return x % 2 == 1

    x = np.arange(5)
    assert "float64: booleans are wanted" in str(diagnosis(odd, lambda x: odd(x) + 0.0, (x,)))
    assert "float64: whole numbers are wanted" in str(diagnosis(np.negative, lambda x: -1.0 * x, (x,)))
    assert diagnosis(np.negative, lambda x: -x.astype(np.int16), (x,)) is None


def test_a_warning_is_told_where_the_numbers_are_right() -> None:
    def sigmoid(x: Any) -> Any:
        return 0.5 * np.tanh(x / 2) + 0.5

    def naive(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    assert diagnosis(sigmoid, naive, (np.array([-3.0, 2]),)) is None
    assert "NumPy warns: overflow" in str(diagnosis(sigmoid, naive, (np.array([-3000.0, 2]),)))
    assert "of 2 numbers differ" in str(diagnosis(sigmoid, lambda x: naive(x) + x, (np.array([-3000.0, 2]),)))


def test_results_of_other_kinds() -> None:
    def words(text: str) -> list[str]:
        return text.split()

    assert diagnosis(words, words, ("a b",)) is None
    assert "2 things where 3" in str(diagnosis(words, lambda text: text.split()[1:], ("a b c",)))
    assert "item 1" in str(diagnosis(words, lambda text: ["a", "x"], ("a b",)))
    assert "item 0 of what it returns: yours is 2, right is 1" in str(diagnosis(lambda n: [n], lambda n: [2 * n], (1,)))
    assert "'x', right is 'b'" in str(diagnosis(words, lambda text: ["a", "x"], ("a b",)))


def notebooks_text() -> Iterator[str]:
    for path in NOTEBOOKS:
        yield from (cell.source for cell in read(path).cells)


def test_the_course_needs_no_network() -> None:
    for source in notebooks_text():
        assert not any(
            word in source for word in ("urllib", "requests", "urlopen", "!pip", "%pip", "snapshot_download")
        )
