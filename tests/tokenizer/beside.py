"""What the tests of tokenizers beside those of transformers, 4.34 and 5, share: each call is made of both sides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

Pair = tuple[Any, Any]  # ours and theirs

BATCHES: list[Any] = [
    (["The fox", "a", "One two three four five"], None),
    (["The fox", "a"], ["One two three", "b c d e f g h i"]),
    ([("a b c", "d"), ("e", "f g h")], None),
    (["x"], None),
]


def calls(**others: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the options of a call; `others` are those of which not both versions take the same."""
    options = {
        "add_special_tokens": st.booleans(),
        "padding": st.sampled_from([True, False, "longest", "max_length", "do_not_pad", "nonsense"]),
        "truncation": st.sampled_from([True, False, None, "longest_first", "only_first", "only_second", "nonsense"]),
        "pad_to_multiple_of": st.sampled_from([None, 4, 7]),
        "return_tensors": st.sampled_from([None, None, "np"]),
        "return_token_type_ids": st.booleans(),
        "return_attention_mask": st.booleans(),
        "return_special_tokens_mask": st.booleans(),
        "return_length": st.booleans(),
    }
    return st.fixed_dictionaries({}, optional=options | others)


def cases(**others: Any) -> dict[str, dict[str, Any]]:
    """Settings of tokenizers that are saved and read, with `others` among the settings of the last."""
    with_settings = {
        "add_bos_token": False,
        "add_eos_token": True,
        "truncation_side": "left",
        "model_max_length": 77,
        "chat_template": "{{ messages }}",
    }
    return {
        "as it comes": {},
        "with tokens": {"pad_token": "<pad>", "additional_special_tokens": ["<x>", "<y>"]},
        "with settings": with_settings | others,
    }


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Both sides log what they make of strange arguments."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def plain(value: Any) -> Any:
    """What is compared of an answer: dictionaries as such, arrays as lists with their type."""
    if hasattr(value, "keys"):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        # An empty array is of floats there, for no reason; here it holds ids
        return ("array", value.dtype.kind if value.size else "i", value.tolist())
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def same(pair: Pair, call: Callable[[Any], Any]) -> Any:
    """The answer, which must be the same of both; where theirs is an error, ours must be a ValueError."""
    ours, theirs = pair
    try:
        expected = plain(call(theirs))
    except Exception as error:
        kind = NotImplementedError if isinstance(error, NotImplementedError) else (ValueError, TypeError)
        with pytest.raises(kind):
            call(ours)
        return None
    assert plain(call(ours)) == expected
    return expected


def rows_differ(call: Callable[[], Any]) -> bool:
    """Where rows differ in length, theirs makes an array of objects, and ours says so."""
    try:
        made = call()
    except Exception:
        return False
    except BaseException as error:  # the library under both panics where the stride is all that is left of a text
        assume(type(error).__name__ != "PanicException")
        raise
    return any(isinstance(value, np.ndarray) and value.dtype == object for value in made.values())


def same_tokenizers(facts: Iterable[str], texts: Iterable[str], ours: Any, theirs: Any) -> None:
    """The same facts of both, and the same made of texts: for tokenizers that were saved and read."""
    pair = (ours, theirs)
    for name in facts:
        same(pair, lambda t, name=name: getattr(t, name))
    for text in texts:
        ids = same(pair, lambda t, text=text: t.encode(text))
        same(pair, lambda t, ids=ids: t.decode(ids))
        same(pair, lambda t, ids=ids: t.decode(ids, skip_special_tokens=True))
