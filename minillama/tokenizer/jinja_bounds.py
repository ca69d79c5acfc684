"""How far a chat template may go: steps, seconds and sizes, counted and measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2 import TemplateError

MAX_SOURCE = 200_000  # characters of a template; the longest in use have some 20,000
MAX_SIZE = 4_000_000  # characters of a text, with all it is made of; some million tokens
MAX_STEPS = 500_000  # a conversation of 1,000 messages takes some ten thousand
MAX_SECONDS = 10.0
MAX_BITS = 10_000  # of a whole number
MAX_WIDTH = 100  # to which a number is formatted
MAX_SMALL = 20_000  # characters given to a filter that does much at once


class BoundError(TemplateError):
    """A template went beyond its bounds."""


class Bounds:
    """What a rendering has used up."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from zero."""
        self._steps, self._deadline = 0, time.monotonic() + MAX_SECONDS

    def step(self, size: int = 0) -> None:
        """Count one step, which is to make something of a size."""
        self._steps += 1
        if size > MAX_SIZE:
            raise BoundError(f"it makes a text or list of more than {MAX_SIZE} characters")
        if self._steps > MAX_STEPS:
            raise BoundError(f"it takes more than {MAX_STEPS} steps")
        if time.monotonic() > self._deadline:
            raise BoundError(f"it takes longer than {MAX_SECONDS:g} seconds")

    def measured(self, value: Any) -> Any:
        """The value, if it is not too large; a step."""
        self.step(size_of(value))
        return value

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values of a loop, a step each."""
        for value in values:
            self.step()
            yield value


def check_bits(bits: int) -> None:
    """BoundError for a whole number that is too large."""
    if bits > MAX_BITS:
        raise BoundError(f"it makes a number of more than {MAX_BITS} bits")


def check_width(width: int | str) -> None:
    """BoundError for a width, or a precision, to which nothing needs to be formatted."""
    if (isinstance(width, str) and len(width) > 9) or abs(int(width)) > MAX_WIDTH:
        raise BoundError(f"it formats to a width of more than {MAX_WIDTH}")


def size_of(value: Any) -> int:
    """Characters and items of a value, each as often as it would be printed; once too many, counting stops."""
    total, waiting = 0, [value]
    while waiting and total <= MAX_SIZE:
        value = waiting.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, int):
            total += 1 + value.bit_length() // 3
        elif isinstance(value, list | tuple):
            total += 1 + len(value)
            waiting.extend(value)
        elif isinstance(value, Mapping):
            total += 1 + len(value)
            waiting.extend(value.keys())
            waiting.extend(value.values())
    return total
