"""The examples in the documentation print what it says, and its table of tests names tests that exist."""

import ast
import doctest
import re
from typing import Any

import pytest

from tests.tiny import LLAMA2_TOKENIZER, ROOT

PAGE = ROOT / "docs" / "huggingface.md"
EXAMPLES = re.findall(r"^```pycon\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.M)


def test_the_examples_of_the_page() -> None:
    globs: dict[str, Any] = {"LLAMA_2": LLAMA2_TOKENIZER}
    run = 0
    for number, text in enumerate(EXAMPLES):
        if "LLAMA_2" in text and not LLAMA2_TOKENIZER.exists():
            continue
        example = doctest.DocTestParser().get_doctest(text, globs, f"example {number}", str(PAGE), 0)
        runner = doctest.DocTestRunner()
        runner.run(example, clear_globs=False)
        assert runner.summarize().failed == 0
        globs = example.globs  # an example goes on where the one before it ended
        run += 1
    assert run >= 3


def rows() -> list[tuple[str, str]]:
    table = PAGE.read_text(encoding="utf-8").split("## Every class", 1)[1]
    return [(name, tests) for name, tests in ROW.findall(table) if not set(name) <= set("- ") and tests != "test"]


@pytest.mark.parametrize(("name", "tests"), rows())
def test_every_row_names_tests_that_exist(name: str, tests: str) -> None:
    named = re.findall(r"`([\w/.]+\.py)::(\w+)`", tests)
    assert named, f"{name} has no test"
    for file, function in named:
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in functions, f"{name}: {file} has no {function}"


def test_the_table_is_not_empty() -> None:
    assert len(rows()) > 100


def test_every_finding_is_in_the_table() -> None:
    folder = ROOT / "findings"
    rows = re.findall(r"^\| `([\w.-]+\.sh)` \|", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == sorted(file.name for file in folder.glob("*.sh"))
    for name in rows:
        script = (folder / name).read_text(encoding="utf-8")
        assert re.search(r"pip\"? install .*==\d", script), f"{name} pins no version"
        assert "import minillama" not in script
