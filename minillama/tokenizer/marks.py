"""Message texts that stay texts: marks that go through a template with them, and tell them from what it writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Mark: TypeAlias = Callable[[str, bool], str]
_NAMES = ("role", "type")  # fields of a message that hold one of a few words, which templates compare


class Marks(NamedTuple):
    """Characters that occur nowhere else, put into texts before they are rendered and taken out afterwards."""

    opened: str  # before a control token that is text
    closed: str  # and behind it
    cut: str  # where a text could be completed to a control token by what stands next to it
    end: str  # where a message to go on with ends

    @classmethod
    def unused(cls, *data: Any) -> Marks:
        """Some that do not occur in texts, or in anything made of them."""
        return cls(*islice(_unused(data), 4))

    def removed_from(self, text: str) -> str:
        return text.translate(dict.fromkeys(map(ord, self)))

    def seen_of(self, text: str) -> str:
        """The text as a template sees it: without all marks but the end of a message to go on with."""
        return text.translate(dict.fromkeys(map(ord, self[:3])))

    def tidied(self, cut: Any) -> Any:
        """A part of a text, or several, without the marks whose control token is not in it."""
        if isinstance(cut, list | tuple):
            return type(cut)(map(self.tidied, cut))
        return cut.replace(self.opened + self.closed, "").lstrip(self.closed).rstrip(self.opened)

    def part(self, text: str, part: slice) -> str:
        """text[part] as of a text without marks, with those that belong there."""
        places = [place for place, c in enumerate(text) if c not in self[:3]]
        taken = places[part]
        if not taken or part.step not in (None, 1):
            return "".join(text[place] for place in taken)
        start, end = taken[0], taken[-1] + 1
        while start and text[start - 1] in self[:3]:
            start -= 1
        while end < len(text) and text[end] in self[:3]:
            end += 1
        return str(self.tidied(text[start:end]))

    def carried_over(self, marked: str, text: str) -> str | None:
        """`text` with the marks of `marked`, which a template has written of the same messages when they were marked;
        None if the two differ in more than white space."""
        unmarked = self.seen_of(marked)
        if unmarked == text:
            return marked
        if "".join(unmarked.split()) != "".join(text.split()):
            return None
        parts, before, at = [], "", 0
        for c in marked:
            if c == self.closed:
                parts.append(c)
            elif c in self[:3]:
                before += c
            elif not c.isspace():
                place = next(place for place in range(at, len(text)) if not text[place].isspace())
                parts += [text[at:place], before, c]
                before, at = "", place + 1
        return "".join([*parts, before, text[at:]])

    def marker(self, control: set[str]) -> Mark:
        """What marks the control tokens in a text, and if it is told so the ends of the text where they could be
        completed to one: a message "</", say, before a message "s>"."""
        tokens, open_ends = re.compile(_either(control)), _OpenEnds(control)

        def mark(text: str, ends: bool) -> str:
            marked = tokens.sub(rf"{self.opened}\g<0>{self.closed}", text)
            start, end = open_ends(text) if ends else (0, 0)
            return self.cut * bool(start) + marked + self.cut * bool(end)

        return mark

    def pieces(self, text: str, added: Mapping[str, tuple[int, bool]]) -> list[str | int]:
        """A text cut at its added tokens: stretches of text, none empty, and ids. Marked tokens are text."""
        pattern = re.compile(
            f"(?P<before>{self.opened}?)(?P<token>{_either(added)})(?P<behind>{self.closed}?)|[{''.join(self)}]"
        )
        pieces: list[str | int] = []
        stretch, start = "", 0
        for match in pattern.finditer(text):
            stretch += text[start : match.start()]
            start = match.end()
            token = match["token"]
            if token and (match["before"] or match["behind"]):
                stretch += token
            elif token:
                pieces += [stretch, added[token][0]] if stretch else [added[token][0]]
                stretch = ""
        stretch += text[start:]
        return [*pieces, stretch] if stretch else pieces


class StandIns:
    """Other characters for those of a control token that a message spells. Marks lie between characters, which a
    template notices that takes single ones, or a part of so many; texts of the same length it treats alike."""

    def __init__(self, control: set[str], *data: Any):
        characters = sorted(set().union(*control))
        stand_ins = islice(_unused((data, *control)), len(characters))
        self._of = {ord(c): stand_in for c, stand_in in zip(characters, stand_ins, strict=True)}
        self._back = {ord(stand_in): chr(c) for c, stand_in in self._of.items()}
        self._tokens, self._open_ends = re.compile(_either(control)), _OpenEnds(control)

    def put(self, text: str, ends: bool) -> str:
        """A Mark: the text with stand-ins where Marks.marker would set marks."""
        changed = self._tokens.sub(lambda token: token[0].translate(self._of), text)
        start, end = self._open_ends(text) if ends else (0, 0)
        last = max(start, len(text) - end)
        return changed[:start].translate(self._of) + changed[start:last] + changed[last:].translate(self._of)

    def marked(self, changed: str, text: str, marks: Marks) -> str | None:
        """`text` with marks before what `changed` has stand-ins for, which a template has written of the same messages
        with these; None if the two differ in anything else."""
        if changed.translate(self._back) != text:
            return None
        return changed.translate({c: marks.opened + own for c, own in self._back.items()})


class _OpenEnds:
    """How many characters at the beginning and at the end of a text belong to a control token if what stands next to
    it completes one."""

    def __init__(self, control: set[str]):
        self.heads = {token[:n] for token in control for n in range(1, len(token))}
        self.tails = {token[n:] for token in control for n in range(1, len(token))}
        self.longest = max(map(len, self.heads), default=0)

    def __call__(self, text: str) -> tuple[int, int]:
        lengths = range(min(self.longest, len(text)), 0, -1)
        start = next((n for n in lengths if text[:n] in self.tails), 0)
        return start, next((n for n in lengths if text[-n:] in self.heads), 0)


def plain_data(value: Any, mark: Mark, field: str = "") -> Any:
    """The value made anew of plain types, its texts marked: a template must not meet objects with methods of ours."""
    if isinstance(value, str):
        return mark(str.__str__(value), field not in _NAMES)
    if isinstance(value, np.generic | np.ndarray):
        return plain_data(value.tolist(), mark, field)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):  # an enumeration's, say, as the number it is
        return int.__int__(value) if isinstance(value, int) else float.__float__(value)
    if isinstance(value, Mapping):
        return {
            mark(key, False) if isinstance(key, str) else plain_data(key, mark): plain_data(item, mark, str(key))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_data(item, mark, field) for item in value]
    raise ValueError(
        f"a chat template takes texts, numbers, lists and dicts, not {type(value).__name__}: "
        "tools, for instance, as JSON schemas"
    )


def _unused(data: Any) -> Iterator[str]:
    """Characters that no text of the data has. Signs (Braille, Byzantine music): no letters, so that words stay words,
    and printable, so that Python does not write them as escapes; then characters for private use."""
    used = set[str]().union(*_texts(data))
    signs = (*range(0x2801, 0x2900), *range(0x1D000, 0x1D0F6), *range(0x10FFFF, 0xF0000, -1))
    return (c for c in map(chr, signs) if c not in used)


def _texts(value: Any) -> Iterator[str]:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.items()))
    elif isinstance(value, Iterable):
        for item in value:
            yield from _texts(item)


def _either(texts: Iterable[str]) -> str:
    """A pattern for any of them, the longest that fits."""
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)"
