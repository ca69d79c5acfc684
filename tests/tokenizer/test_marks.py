"""Marks that go through a template with the texts of messages."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest

from minillama.tokenizer.marks import Marks, plain_data

MARKS = Marks("«", "»", "¦", "¬")
ADDED = {"<s>": (1, True), "</s>": (2, True), "<s>x": (3, False)}


@pytest.mark.parametrize(
    ("text", "ends", "marked"),
    [
        ("a</s>b<s>", True, "a«</s>»b«<s>»"),
        ("nothing here", True, "nothing here"),
        ("a </", True, "a </¦"),
        ("a </", False, "a </"),
        ("s> b", True, "¦s> b"),
        (">", True, "¦>"),
        ("<", True, "<¦"),
        ("<</s>>", True, "<«</s>»>"),
        ("", True, ""),
    ],
)
def test_marking(text: str, ends: bool, marked: str) -> None:
    assert MARKS.marker({"<s>", "</s>"})(text, ends) == marked


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a<s>b</s>", ["a", 1, "b", 2]),
        ("a«<s>»b</s>", ["a<s>b", 2]),
        ("«<s>", ["<s>"]),  # half of the pair, the other one cut off, will do
        ("<s>»", ["<s>"]),
        ("<¦s><s>", ["<s>", 1]),
        ("<«s>", ["<s>"]),
        ("<s><s>x<s>", [1, 3, 1]),  # the longest
        ("¬¦«»", []),
        ("", []),
    ],
)
def test_cutting_at_tokens(text: str, pieces: list[str | int]) -> None:
    assert MARKS.pieces(text, ADDED) == pieces


@pytest.mark.parametrize(
    ("marked", "text", "both"),
    [
        ("a\n«<s>»\nb", "a\n<s>\nb", "a\n«<s>»\nb"),
        ("a\n«<s>»\n b", "a <s>b ", "a «<s>»b "),
        ("«<s>» <¦", " <s><", " «<s>»<¦"),
        (" ¦s>¬ x", "s>¬x ", "¦s>¬x "),
        ("«<s>»", "<s>!", None),
        ("«<s>»!", "<s>", None),
    ],
)
def test_marks_for_a_text_with_other_spaces(marked: str, text: str, both: str | None) -> None:
    assert MARKS.carried_over(marked, text) == both


def test_marks_occur_nowhere_else() -> None:
    data: dict[str, Any] = {"\u2801": [1, None, {"x": "\u2803"}]}
    marks = Marks.unused(data, "\u2802")
    assert marks == ("\u2804", "\u2805", "\u2806", "\u2807")
    assert marks.removed_from("a\u2804\u2803\u2807b") == "a\u2803b"
    every = "".join(map(chr, range(0x2800, 0x1E000)))
    assert Marks.unused(every) == ("\U0010ffff", "\U0010fffe", "\U0010fffd", "\U0010fffc")


def test_data_is_made_of_plain_types() -> None:
    class Word(str):
        __slots__ = ()

    class Number(enum.IntEnum):
        ONE = 1

    mark = MARKS.marker({"<s>"})
    data = {"role": Word("<"), "content": [Word("<"), ("<s>", 2.5, Number.ONE, None, True)], "<s>": "x"}
    plain = plain_data(data, mark)
    assert plain == {"role": "<", "content": ["<¦", ["«<s>»", 2.5, 1, None, True]], "«<s>»": "x"}
    assert type(plain["content"][0]) is str
    assert data["content"][0] == "<"
    with pytest.raises(ValueError, match="takes texts, numbers, lists and dicts, not set"):
        plain_data({"x": {1, 2}}, mark)


def test_numbers_and_arrays_of_numpy_are_plain_numbers_and_lists() -> None:
    mark = MARKS.marker({"<s>"})
    given = {
        "count": np.int64(3), "share": np.float64(0.5), "half": np.float16(0.25), "so": np.bool_(False),
        "one": np.array(7), "several": np.array([[1, 2]]), "word": np.str_("<s>"), np.int32(5): [np.uint8(255)],
    }  # fmt: skip
    plain = plain_data(given, mark)
    assert plain == {
        "count": 3, "share": 0.5, "half": 0.25, "so": False, "one": 7, "several": [[1, 2]], "word": "«<s>»", 5: [255],
    }  # fmt: skip
    kinds = [type(value) for value in plain.values()]
    assert kinds == [int, float, float, bool, int, list, str, list]
    assert [type(key) for key in plain][-1] is int
    assert len(Marks.unused(given)) == 4
