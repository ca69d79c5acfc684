"""Functions as tools. That the schemas are those of transformers is in tests/oracle/test_chat_live.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Optional, Union

import pytest

from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer.tool_schemas import tool_schema


def weather(city: str, days: int = 1) -> str:
    """Tell the weather.

    Args:
        city: Where,
            such as Graz.
        days: For how many days. (choices: [1, 3, 7])

    Returns:
        A sentence.
    """
    return city * days


def many(
    x: list[int],
    y: Optional[dict[str, float]] = None,  # noqa: UP045  # as people write it
    z: Union[int, str] = 3,  # noqa: UP007
    w: Any = None,
    letter: Literal["a", "b"] = "a",
    pair: tuple[int, bool] | None = None,
) -> None:
    """Do many things.

    Over some paragraphs.

    Args:
        x: numbers
        y: things
        z: one (or: other)
        w: what you like
        letter: one of two
        pair: both
    """


def nothing():  # type: ignore[no-untyped-def]  # that there are none is the test
    """Take nothing."""


FUNCTIONS: list[Callable[..., Any]] = [weather, many, nothing]


def test_the_schema_of_a_function() -> None:
    assert tool_schema(weather) == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tell the weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where, such as Graz."},
                    "days": {"type": "integer", "enum": [1, 3, 7], "description": "For how many days."},
                },
                "required": ["city"],
            },
            "return": {"type": "string", "description": "A sentence."},
        },
    }
    assert tool_schema(many)["function"]["parameters"]["properties"]["y"] == {
        "type": "object", "additionalProperties": {"type": "number"}, "nullable": True, "description": "things"
    }  # fmt: skip


def test_a_template_gets_the_schema() -> None:
    tokenizer = load_tokenizer(tale_model())
    messages = [{"role": "user", "content": "Hi"}]
    how: dict[str, Any] = {"chat_template": "{{ tools | tojson }}", "tokenize": False}
    by_schema = tokenizer.apply_chat_template(messages, tools=[tool_schema(weather)], **how)
    assert tokenizer.apply_chat_template(messages, tools=[weather], **how) == by_schema


def silent(x: int) -> None:
    pass


def undescribed(x: int) -> None:
    """Do it."""


def untyped(x) -> None:  # type: ignore[no-untyped-def]
    """Do it.

    Args:
        x: what
    """


def odd(x: bytes) -> None:
    """Do it.

    Args:
        x: what
    """


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (silent, "the tool silent has no docstring: say in one what it does"),
        (
            undescribed,
            "the argument x of the tool undescribed has no description under Args: in the docstring: add one",
        ),
        (untyped, "the argument x of the tool untyped has no type hint: add one"),
        (odd, "no JSON schema is known for the type .*bytes.*: give the tool as a schema"),
    ],
)
def test_what_says_too_little_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tool_schema(function)
