"""No message is a page: whatever of a user's values is shown in one is cut."""

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minillama.config import LlamaConfig
from minillama.generation import GenerationConfig
from minillama.messages import listed, shown

FILES = sorted((Path(__file__).parents[1] / "minillama").rglob("*.py"))


def test_a_value_is_shown_as_python_writes_it_while_that_is_short() -> None:
    assert shown("a'b") == repr("a'b")
    assert shown([1, 2.5, None, (True,)]) == "[1, 2.5, None, (True,)]"
    assert shown({"a": [1]}) == "{'a': [1]}"


LONG = {
    "list": [7] * 10**5,
    "text": "x" * 10**6,
    "dictionary": {i: i for i in range(10**4)},
    "number": -(10**5000),
    "array": np.arange(10**6),
    "nested": [["y" * 90] * 9] * 9,
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_value_is_cut(name: str) -> None:
    assert len(shown(LONG[name])) <= 103


def test_many_names_are_counted() -> None:
    assert listed(["b", "a"]) == "b, a"
    assert listed([f"<0x{b:02X}>" for b in range(256)], most=3) == "<0x00>, <0x01>, <0x02> and 253 more"
    assert len(listed(["z" * 10**6] * 10**4)) < 1200


def test_settings_with_long_values() -> None:
    for make in (
        lambda: GenerationConfig(eos_token_id=[-1] * 10**5),
        lambda: GenerationConfig(bad_words_ids=[[]] * 10**5),
        lambda: LlamaConfig(eos_token_id=["x"] * 10**5),
        lambda: LlamaConfig(rope_scaling=["x"] * 10**5),
        lambda: LlamaConfig(vocab_size=-(10**5000)),
    ):
        with pytest.raises(ValueError, match="must be ") as error:
            make()
        assert len(str(error.value)) < 250
        assert "4300" not in str(error.value)


def _unbounded(node: ast.FormattedValue) -> Iterator[str]:
    """What a part of a message shows whole, however long it is."""
    constant = isinstance(node.value, ast.Name) and node.value.id.isupper()
    if node.conversion == ord("r") and not constant and not _cut(node.value):
        yield f"{ast.unparse(node.value)}!r"
    for call in ast.walk(node.value):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "', '.join":
            names = [part.id for part in ast.walk(call.args[0]) if isinstance(part, ast.Name) and part.id != "map"]
            if not all(name.isupper() or name == "str" for name in names) and not any(
                map(_cut, ast.walk(call.args[0]))
            ):
                yield ast.unparse(call)


def _cut(value: ast.AST) -> bool:
    return isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice)


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.parts[-2:]))
def test_messages_show_values_with_shown_and_lists_with_listed(file: Path) -> None:
    found = [
        f"{file.name}:{node.lineno}: {part}"
        for raised in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(raised, ast.Raise) and "AttributeError" not in ast.unparse(raised)  # of names that programs hold
        for node in ast.walk(raised)
        if isinstance(node, ast.FormattedValue)
        for part in _unbounded(node)
    ]
    assert not found
