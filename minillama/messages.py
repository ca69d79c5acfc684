"""Values as error messages show them: enough to recognise them, and never a page."""

from __future__ import annotations

from collections.abc import Iterable
from reprlib import Repr
from typing import Any

_REPR = Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = _REPR.maxdict = _REPR.maxarray = 8
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 100
_REPR.maxlevel = 3


def shown(value: Any, most: int = 100) -> str:
    """The value as Python writes it, of long lists and texts the beginning, in about `most` characters."""
    try:
        text = _REPR.repr(value)
    except Exception:  # a number of thousands of digits; a repr that raises
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."


def listed(names: Iterable[Any], most: int = 10) -> str:
    """Names with commas between them, of many the first and how many more there are."""
    every = [str(name) for name in names]
    texts = [name if len(name) <= 100 else f"{name[:100]}..." for name in every[:most]]
    return ", ".join(texts) + (f" and {len(every) - most} more" if len(every) > most else "")


def printable(text: str) -> str:
    """The text in one line: spells out line ends and escape sequences, which names of files may have and terminals
    would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
