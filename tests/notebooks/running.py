"""Runs the notebooks of the course, as they are or with the solutions written into their exercises.

python -m tests.notebooks.running 03 05     runs chapters 3 and 5 and keeps what they print
python -m tests.notebooks.running           runs all of them
"""

import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

COURSE = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(COURSE.glob("[0-9][0-9]_*.ipynb"))
MARK = re.compile(r"# Exercise (\d+\.\d+)")


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def exercise_of(source: str) -> str | None:
    """The number of the exercise that a cell is the stub of: its first line is `# Exercise 3.1: ...`."""
    found = MARK.match(source)
    return found[1] if found else None


def solutions(chapter: str) -> dict[str, str]:
    """The solutions of a chapter by the number of the exercise: each begins with a line `# Exercise 3.1`."""
    file = COURSE / "solutions" / f"chapter_{chapter}.py"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    parts = re.split(r"^(?=# Exercise )", text, flags=re.M)[1:]  # before the first are the imports
    return {str(exercise_of(part)): part.rstrip() + "\n" for part in parts}


def solved(notebook: NotebookNode, answers: dict[str, str]) -> NotebookNode:
    """The notebook with every stub replaced by its solution, and a last cell that asks for all of them."""
    notebook = copy.deepcopy(notebook)
    numbers = {exercise_of(cell.source) for cell in notebook.cells} - {None}
    assert numbers == set(answers), f"stubs {sorted(map(str, numbers))}, solutions {sorted(answers)}"
    for cell in notebook.cells:
        number = exercise_of(cell.source)
        if number:
            cell.source = answers[number]
    if numbers:
        last = f"import checks\nassert {sorted(map(str, numbers))} == sorted(checks.PASSED), checks.PASSED"
        notebook.cells.append(nbformat.v4.new_code_cell(last))
    return notebook


def run(notebook: NotebookNode, folder: Path) -> None:
    """Execute the notebook in place, in a fresh kernel; an error in a cell is raised."""
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
        record_timing=False,
        coalesce_streams=True,  # else a cell's prints come in as many pieces as the clock happens to make of them
    ).execute()


def texts(cell: NotebookNode) -> str:
    """What a cell printed or returned as text, its figures aside."""

    def parts() -> Iterator[str]:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                yield output.text
            elif "image/png" not in output.data:
                yield output.data.get("text/plain", "")

    return "".join(parts())


def normalized(notebook: NotebookNode, chapter: str) -> NotebookNode:
    """Without what differs from machine to machine and run to run."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"c{chapter}-{i:03}"
        cell.metadata = {key: cell.metadata[key] for key in ("tags",) if key in cell.metadata}
    return notebook


def main(chapters: list[str]) -> None:
    for path in NOTEBOOKS:
        chapter = path.name[:2]
        if chapters and chapter not in chapters:
            continue
        notebook = read(path)
        run(notebook, COURSE)
        nbformat.write(normalized(notebook, chapter), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
