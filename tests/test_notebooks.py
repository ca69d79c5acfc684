"""Every notebook runs from top to bottom with the exercises solved, and prints what is committed."""

import ast
import shutil
from pathlib import Path

import pytest

from tests.notebooks.running import COURSE, NOTEBOOKS, exercise_of, read, run, solutions, solved, texts

chapters = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.long
@chapters
@pytest.mark.filterwarnings("default")  # of the libraries that run the notebook
def test_a_notebook_runs_and_prints_what_is_committed(path: Path, tmp_path: Path) -> None:
    course = shutil.copytree(COURSE, tmp_path / "course")  # a student's folder
    committed = read(path)
    notebook = solved(committed, solutions(path.name[:2]))
    run(notebook, course)
    for before, now in zip(committed.cells, notebook.cells, strict=False):  # one more at the end asks for all answers
        if now.cell_type == "code" and "check(" not in now.source and not exercise_of(now.source):
            assert texts(now) == texts(before), f"a second run of this cell prints something else:\n{now.source}"


@chapters
def test_a_notebook_is_committed_as_it_runs(path: Path) -> None:
    """Executed in order, stubs and all, without an error, and small enough to open anywhere."""
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert not [o for cell in cells for o in cell.outputs if o.output_type in ("error", "display_data_error")]
    assert not [o for cell in cells for o in cell.outputs if o.get("name") == "stderr"]
    assert path.stat().st_size < 400_000


@chapters
def test_a_notebook_asserts_something(path: Path) -> None:
    code = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
    asserts = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Assert)]
    assert len(asserts) >= 3
