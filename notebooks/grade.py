"""Grade the answers to the bug hunt of chapter 13:  python grade.py answers.json

In the notebook it is `from grade import grade` and `grade({1: "scale-missing", 2: "gelu"})`. The folder of solutions is
not needed: what is right is kept as digests only.
"""

import argparse
import difflib
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bughunt.causes import CAUSES
from bughunt.key import KEY

PART = {cause: part for part, causes in CAUSES.items() for cause in causes}

EXAMPLE = """the answers are an object of numbers and causes:
  {"1": "scale-missing", "2": "gelu"}
what may be a cause stands in bughunt/causes.py

example:
  python grade.py answers.json
"""


@dataclass
class Grades:
    """Numbers of the mutants by what became of the answers. wrong: with what to tell of each."""

    right: list[int] = field(default_factory=list)
    wrong: dict[int, str] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        wrong = [f"{number:3}  {told}" for number, told in self.wrong.items()]
        missing = [f"not answered: {', '.join(map(str, self.missing))}"] if self.missing else []
        right = [f"right: {', '.join(map(str, self.right))}"] if self.right else []
        return "\n".join([*right, *wrong, *missing, f"{len(self.right)} of {len(KEY)}"])


def digest(number: int, cause: str) -> str:
    """What stands in the key for a right answer. The number makes two equal causes look different."""
    return hashlib.sha256(f"the bug hunt of minillama, mutant {number}: {cause}".encode()).hexdigest()[:16]


def right_cause(number: int) -> str:
    return next(cause for cause in PART if digest(number, cause) == KEY[number])


def graded(answers: Mapping[Any, Any]) -> Grades:
    """Grade causes by the number of the mutant; `...`, None and "" are no answer. An answer may be an object with its
    "cause" and whatever else. ValueError for what is no number of a mutant."""
    given = {_number(number): _cause(answer) for number, answer in answers.items()}
    grades = Grades()
    for number in KEY:
        cause = given.get(number)
        if cause is None:
            grades.missing.append(number)
        elif digest(number, cause) == KEY[number]:
            grades.right.append(number)
        else:
            grades.wrong[number] = hint(number, cause)
    return grades


def hint(number: int, cause: str) -> str:
    """What to tell of a wrong answer: which part to look at."""
    if cause not in PART:
        near = difflib.get_close_matches(cause, PART, 1)
        return f"{cause} is not in the list of causes" + (f": {near[0]} is" if near else "")
    part = PART[right_cause(number)]
    if PART[cause] == part:
        return f"not {cause}, but the part is right: {part}"
    return f"not {cause}: look at the {part}"


def _number(number: Any) -> int:
    try:
        found = int(number)
    except (TypeError, ValueError):
        found = 0
    if found not in KEY:
        raise ValueError(f"the answers name mutant {number!r}: their numbers are 1 to {len(KEY)}")
    return found


def _cause(answer: Any) -> str | None:
    if isinstance(answer, Mapping):
        answer = answer.get("cause")
    return None if answer in (None, ..., "") else str(answer).strip()


def grade(answers: Mapping[Any, Any]) -> None:
    """Print what is right, wrong and missing of {number: cause}."""
    print(graded(answers))


def read_answers(path: str) -> Mapping[Any, Any]:
    """The object in a JSON file, or in standard input for `-`. ValueError or OSError that names the file."""
    name = "standard input" if path == "-" else path
    form = 'write an object of numbers and causes, such as {"1": "scale-missing"}'
    try:
        answers = json.loads(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError(f"{name} cannot be read ({error.strerror}): name the file with the answers") from None
    except ValueError as error:
        raise ValueError(f"{name} is not JSON ({error}): {form}") from None
    if not isinstance(answers, dict):
        raise ValueError(f"{name} holds no object: {form}")
    return answers


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. 0: all thirty are right; 1: not all; 2: there is nothing to grade."""
    parser = argparse.ArgumentParser(
        prog="python grade.py",
        description="Grade the answers to the bug hunt. The exit status is 0 if all are right, else 1; 2 if the file "
        "cannot be graded.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("answers", metavar="FILE", help="the answers, as JSON; - for standard input")
    parser.add_argument("--json", action="store_true", help="print an object, for programs")
    args = parser.parse_args(argv)
    try:
        grades = graded(read_answers(args.answers))
    except (OSError, ValueError) as error:
        print(f"grade: {error}", file=sys.stderr)
        return 2
    if args.json:
        told = {"right": grades.right, "wrong": grades.wrong, "missing": grades.missing, "of": len(KEY)}
        print(json.dumps(told))
    else:
        print(grades)
    return 0 if len(grades.right) == len(KEY) else 1


if __name__ == "__main__":
    sys.exit(main())
