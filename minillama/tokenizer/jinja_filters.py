"""The filters and text methods of chat templates that can make much of little at once: measured before they do it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import index
from typing import Any

from jinja2 import filters
from jinja2.sandbox import SandboxedEnvironment, SandboxedFormatter
from markupsafe import Markup

from minillama.tokenizer.jinja_bounds import (
    MAX_SIZE,
    MAX_SMALL,
    MAX_SOURCE,
    MAX_WIDTH,
    BoundError,
    Bounds,
    check_width,
    size_of,
)
from minillama.tokenizer.marks import Marks

# Those of Jinja that make no more than they are given, or whose result is measured before it is made much of
PLAIN = """
    abs attr capitalize d default dictsort e escape filesizeformat first float forceescape groupby int items last
    list lower map max min random reject rejectattr reverse safe select selectattr sort string sum title
    truncate unique upper urlencode wordcount xmlattr
"""
SMALL = ("pprint", "striptags")  # and those that take long for a long text
_METHODS = """
    capitalize casefold center count endswith expandtabs find index isalnum isalpha isascii isdecimal isdigit
    isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition removeprefix
    removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title
    upper zfill
"""
TEXT_METHODS = frozenset(_METHODS.split())
# What looks past marks, and what may cut a text between marks
_ASKING = {"count", "endswith", "find", "index", "rfind", "rindex", "startswith"}
_ASKING |= {name for name in TEXT_METHODS if name.startswith("is")}
_CUTTING = ("split", "rsplit", "splitlines", "partition", "rpartition")
_ENDS = ("strip", "lstrip", "rstrip", "removeprefix", "removesuffix")

_SPEC = re.compile(r"[-#0 +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?.?", re.DOTALL)  # behind the % and a name


class BoundedFilters:
    """Filters by name, and methods of texts, within bounds. marks: what they look past in a text, and tojson leaves."""

    def __init__(self, environment: SandboxedEnvironment, bounds: Bounds):
        self._environment, self._bounds = environment, bounds
        self.marks: Marks | None = None

    def unmarked(self, value: Any) -> Any:
        """A text without marks; anything else as it is."""
        return self.marks.seen_of(value) if self.marks and isinstance(value, str) else value

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Those that are not Jinja's own."""
        own = {name: self._small(filters.FILTERS[name]) for name in SMALL}
        return own | {
            "batch": self._batch,
            "center": lambda value, width=80: self._padded("center", str(value), width),
            "count": self._length,
            "format": lambda value, *args, **kwargs: self.formatted(value, kwargs or args),
            "indent": self._indent,
            "join": self.join,
            "length": self._length,
            "replace": lambda s, old, new, count=None: self.replace(str(s), str(old), str(new), count),
            "round": self._round,
            "slice": self._slice,
            "tojson": self._tojson,
            "trim": lambda value, chars=None: self._without_ends(str(value), "strip", chars),
            "wordwrap": self._wordwrap,
        }

    def method(self, text: str, name: str) -> Callable[..., Any] | None:
        """A method of a text that has to be measured before it is called, or to look past marks; else None."""
        if name == "replace":
            return lambda *args, **kwargs: self.replace(text, *args, **kwargs)
        if name == "join":
            return lambda values: self.join(values, text)
        if name in ("center", "ljust", "rjust", "zfill", "expandtabs"):
            return lambda *args, **kwargs: self._padded(name, text, *args, **kwargs)
        if self.marks and name in _ASKING:
            return lambda *args: getattr(self.unmarked(text), name)(*map(self._unmarked_ends, args))
        if self.marks and name in _ENDS:
            return lambda *ends: self._without_ends(text, name, *ends)
        if self.marks and name in _CUTTING:
            return lambda *args, **kwargs: self._tidied(getattr(text, name)(*args, **kwargs))
        return None

    def part(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """value[start:stop:step]"""
        part = slice(start, stop, step)
        return self.marks.part(value, part) if self.marks and isinstance(value, str) else value[part]

    def _without_ends(self, text: str, name: str, *ends: Any) -> Any:
        clean, ends = self.unmarked(text), tuple(map(self.unmarked, ends))
        left = getattr(clean, name)(*ends)
        taken = len(clean) - len(left)  # at the beginning, at the end, or at both
        start = 0 if name.startswith("r") and name != "removeprefix" else taken
        start = len(clean) - len(clean.lstrip(*ends)) if name == "strip" else start
        return self.part(text, start, start + len(left), None)

    def _unmarked_ends(self, ends: Any) -> Any:
        return tuple(map(self.unmarked, ends)) if isinstance(ends, tuple) else self.unmarked(ends)

    def _tidied(self, value: Any) -> Any:
        return self.marks.tidied(value) if self.marks else value

    def _length(self, value: Any) -> int:
        return len(self.unmarked(value))

    def replace(self, text: str, old: str, new: str, count: int | None = -1) -> str:
        times = text.count(old) if count is None or count < 0 else min(count, text.count(old))
        self._bounds.step(len(text) + times * len(new))
        return str(self._tidied(text.replace(old, new, times)))

    def join(self, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            value = map(filters.make_attrgetter(self._environment, attribute), value)
        measured, counted = self._bounds.measured, self._bounds.counted
        texts = [measured(one if isinstance(one, str) else str(one)) for one in counted(value)]
        self._bounds.step(sum(map(len, texts)) + len(texts) * len(str(d)))
        return str(d).join(texts)

    def formatted(self, form: str, values: Any) -> str:
        """`form % values`."""
        self._check_form(form)
        for width in _widths(form):
            self._bounds.step()
            check_width(MAX_WIDTH + 1 if "*" in width else width or 0)
        times = form.count("%(") if isinstance(values, Mapping) else 1  # a name may stand in it again and again
        self._bounds.step(len(form) + times * size_of(values))
        return str(self._bounds.measured(form % values))

    def brace_formatted(self, form: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """`form.format(*args, **kwargs)`."""
        if isinstance(form, Markup):
            raise BoundError("it formats a text that is marked safe: leave that out")
        self._check_form(form)
        return str(self._bounds.measured(_Formatter(self._environment, self._bounds).vformat(form, args, kwargs)))

    def _check_form(self, form: str) -> None:
        self._bounds.step(len(form))
        if len(form) > MAX_SOURCE:
            raise BoundError(f"it formats with a text of more than {MAX_SOURCE} characters")

    def _padded(self, method: str, text: str, *args: Any, **kwargs: Any) -> str:
        width = next(iter((*args, *kwargs.values())), 8)
        if isinstance(width, int):
            self._bounds.step(len(text) + width * (max(text.count("\t"), 1)))
        return str(getattr(text, method)(*args, **kwargs))

    def _small(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def filter_(value: Any, *args: Any, **kwargs: Any) -> Any:
            self._check_small(value)
            return function(value, *args, **kwargs)

        return filter_

    def _check_small(self, value: Any) -> None:
        if size_of(value) > MAX_SMALL:
            raise BoundError(f"it gives a filter that takes long more than {MAX_SMALL} characters")

    def _batch(self, value: Iterable[Any], linecount: int, fill_with: Any = None) -> list[Any]:
        if fill_with is not None:
            self._bounds.step(index(linecount) * (1 + size_of(fill_with)))
        return list(filters.do_batch(self._bounds.counted(value), linecount, fill_with))

    def _slice(self, value: Iterable[Any], slices: int, fill_with: Any = None) -> list[Any]:
        self._bounds.step(index(slices) * (1 + size_of(fill_with)))
        return list(self._bounds.counted(filters.sync_do_slice(list(value), slices, fill_with)))

    def _round(self, value: float, precision: int = 0, method: str = "common") -> float:
        check_width(precision)
        if not isinstance(value, int | float):
            raise TypeError(f"round takes a number, not a value of type {type(value).__name__}")
        return filters.do_round(value, precision, method)  # type: ignore[arg-type]  # it checks the name itself

    def _indent(self, s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        indent = width if isinstance(width, str) else " " * min(width, MAX_SIZE)
        self._bounds.step(len(s) + (s.count("\n") + 1) * len(indent))
        return filters.do_indent(s, indent, first, blank)

    def _wordwrap(
        self,
        s: str,
        width: int = 79,
        break_long_words: bool = True,
        wrapstring: str | None = None,
        break_on_hyphens: bool = True,
    ) -> str:
        self._check_small(s)
        self._bounds.step(len(s) * (1 + len(wrapstring or "\n")))  # at most a line for each character
        return filters.do_wordwrap(self._environment, s, width, break_long_words, wrapstring, break_on_hyphens)

    def _tojson(
        self,
        x: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Without the escapes for HTML of Jinja's own, as transformers has it."""
        if indent is not None:
            indent = indent[:MAX_WIDTH] if isinstance(indent, str) else min(indent, MAX_WIDTH)
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        parts, size = [], 0
        for part in encoder.iterencode(x):
            size += len(part)
            self._bounds.step(size)
            parts.append(part)
        text = "".join(parts)
        for character in (self.marks or "") if ensure_ascii else "":
            text = text.replace(json.dumps(character)[1:-1], character)
        return text


class _Formatter(SandboxedFormatter):
    """str.format as the sandbox does it, a step for each field, the widths and the whole measured."""

    def __init__(self, environment: SandboxedEnvironment, bounds: Bounds):
        super().__init__(environment)
        self._bounds, self._size = bounds, 0

    def format_field(self, value: Any, format_spec: str) -> Any:
        for width in re.findall(r"\d+", format_spec):
            check_width(width)
        return self._grown(super().format_field(value, format_spec))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return self._grown(super().convert_field(value, conversion))

    def _grown(self, made: Any) -> Any:
        self._size += size_of(made)
        self._bounds.step(self._size)
        return made


def _widths(form: str) -> Iterator[str]:
    """The widths and precisions of a form for `%`, read as Python reads it."""
    at = form.find("%")
    while at >= 0:
        at += 1
        if form.startswith("(", at):
            depth = 0
            for end in range(at, len(form)):
                depth += {"(": 1, ")": -1}.get(form[end], 0)
                if depth == 0:
                    break
            else:
                return  # Python refuses a name without an end
            at = end + 1
        spec = _SPEC.match(form, at)
        assert spec is not None  # it matches nothing, too
        yield from (width or "" for width in spec.groups())
        at = form.find("%", spec.end())
