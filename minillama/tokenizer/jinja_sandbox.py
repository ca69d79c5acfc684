"""Jinja for chat templates. A template comes with a checkpoint, so it is a stranger's program: it runs in Jinja's
immutable sandbox, sees plain data only, and stops when it takes more steps, time or memory than a template needs.

How it is held. Every loop, call, operator, filter and literal of a template is a step, and steps and seconds are
counted. Every value is measured where it is made, its items included, so that doubling a text or a list again and again
ends soon; what can grow further at once (`*`, `**`, replace, join, indent, formatting) is measured before it is done,
and methods and filters that only pad are left out.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, filters, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from minillama.messages import shown

MAX_SOURCE = 200_000  # characters of a template; the longest in use have some 20,000
MAX_SIZE = 4_000_000  # characters of a text, with all it is made of; some million tokens
MAX_STEPS = 500_000  # a conversation of 1,000 messages takes some ten thousand
MAX_SECONDS = 10.0
MAX_BITS = 10_000  # of a whole number
MAX_WIDTH = 100  # to which a number is formatted

FILTERS = """
    abs attr capitalize count d default dictsort e escape first float groupby int items last length list lower map max
    min reject rejectattr reverse safe select selectattr sort string sum title trim truncate unique upper urlencode
    wordcount
"""
TEXT_METHODS = """
    capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace
    istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip
    split splitlines startswith strip swapcase title upper
"""


class _BoundError(TemplateError):
    """A template went beyond its bounds."""


class ChatTemplate:
    """A compiled template. ValueError, one sentence, if it is not sound."""

    def __init__(self, source: str):
        if len(source) > MAX_SOURCE:
            raise ValueError(
                f"the chat template has {len(source)} characters, and at most {MAX_SOURCE} are read: use another"
            )
        self._environment = _Environment()
        self._environment.begin()
        try:
            tree = _Measured().visit(self._environment.parse(source))
            tree.set_environment(self._environment)
            code = self._environment.compile(tree)
            self._template = self._environment.template_class.from_code(
                self._environment, code, self._environment.make_globals(None)
            )
        except TemplateSyntaxError as error:
            message = f"{error.message} (line {error.lineno})"
            raise ValueError(f"the chat template is not sound Jinja: {message}") from None
        except (TemplateError, SyntaxError, RecursionError, MemoryError, OverflowError, ValueError) as error:
            raise ValueError(f"the chat template cannot be compiled: {_said(error)}") from None

    def render(self, variables: Mapping[str, Any], unescaped: str = "") -> str:
        """The text for variables that are plain data. unescaped: characters that tojson leaves as they are.

        ValueError, one sentence, if the template refuses, fails or goes beyond its bounds.
        """
        self._environment.begin(unescaped)
        parts, size = [], 0
        try:
            for part in self._template.generate(variables):
                size += len(part)
                self._environment.step(size)
                parts.append(part)
        except _RefusalError as error:
            raise ValueError(f"the chat template refuses this conversation: {_said(error)}") from None
        except _BoundError as error:
            raise ValueError(f"the chat template was stopped: {_said(error)}") from None
        except Exception as error:  # a template can raise whatever Python's operators raise
            raise ValueError(f"the chat template fails on this conversation: {_said(error)}") from None
        return "".join(parts)


class _RefusalError(TemplateError):
    """What raise_exception of a template raises."""


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with transformers' settings, filters and globals, and with counters."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_GenerationTag, loopcontrols]
        )
        own: dict[str, Callable[..., Any]] = {
            "format": self._format,
            "indent": self._indent,
            "join": self._join,
            "replace": lambda text, old, new, count=-1: self._replace(str(text), str(old), str(new), count),
            "tojson": self._tojson,
        }
        self.filters = {name: self._stepping(self.filters[name]) for name in FILTERS.split()}
        self.filters |= {name: self._stepping(function) for name, function in own.items()}
        self.globals = {
            "range": safe_range,
            "dict": lambda *args, **kwargs: dict(*args, **kwargs),  # not the type, which has methods of its own
            "namespace": _Namespace,
            "cycler": Cycler,
            "joiner": Joiner,
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: datetime.now().strftime(form[:MAX_WIDTH]),
        }
        self.begin()

    def begin(self, unescaped: str = "") -> None:
        """Count from zero."""
        self._steps, self._deadline = 0, time.monotonic() + MAX_SECONDS
        self._unescaped = unescaped

    def step(self, size: int = 0) -> None:
        """Count one step, which is to make something of a size."""
        self._steps += 1
        if size > MAX_SIZE:
            raise _BoundError(f"it makes a text or list of more than {MAX_SIZE} characters")
        if self._steps > MAX_STEPS:
            raise _BoundError(f"it takes more than {MAX_STEPS} steps")
        if time.monotonic() > self._deadline:
            raise _BoundError(f"it takes longer than {MAX_SECONDS:g} seconds")

    def measured(self, value: Any) -> Any:
        """The value, if it is not too large; a step."""
        self.step(_size(value))
        return value

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values of a loop, a step each."""
        for value in values:
            self.step()
            yield value

    def concatenated(self, *values: Any) -> str:
        """The operator `~`."""
        self.step(sum(map(_size, values)))
        return self.measured("".join(map(str, values)))

    def concat(self, parts: Iterable[str]) -> str:  # how macros and set blocks join theirs
        parts = list(parts)
        self.step(sum(map(len, parts)))
        return "".join(parts)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        if isinstance(__obj, LoopContext) and args:  # the next level of a recursive loop
            args = (__self.counted(args[0]), *args[1:])
        text, method = getattr(__obj, "__self__", None), getattr(__obj, "__name__", None)
        if isinstance(text, str) and method == "replace":
            return __self._replace(text, *args, **kwargs)
        if isinstance(text, str) and method == "join":
            return __self._join(args[0], text)
        return __self.measured(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            self._check_bits(left.bit_length() * abs(right))
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            self._check_bits(left.bit_length() + right.bit_length())
        elif operator == "*":
            times, value = (left, right) if isinstance(left, int) else (right, left)
            self.step(_size(value) * times if isinstance(times, int) else 0)
        elif operator == "%" and isinstance(left, str):
            return self._format(left, *(right if isinstance(right, tuple) else (right,)))
        return self.measured(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str | bytes | int | float) and attr not in TEXT_METHODS.split():
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """None: str.format is not among the methods that are let through."""

    def _stepping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)  # what Jinja notes on a filter as well
        def filter_(*args: Any, **kwargs: Any) -> Any:
            return self.measured(function(*args, **kwargs))

        return filter_

    def _check_bits(self, bits: int) -> None:
        if bits > MAX_BITS:
            raise _BoundError(f"it makes a number of more than {MAX_BITS} bits")

    def _replace(self, text: str, old: str, new: str, count: int | None = -1) -> str:
        times = text.count(old) if count is None or count < 0 else min(count, text.count(old))
        self.step(len(text) + times * len(new))
        return text.replace(old, new, times)

    def _join(self, values: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            values = map(filters.make_attrgetter(self, attribute), values)
        texts = [self.measured(value if isinstance(value, str) else str(value)) for value in self.counted(values)]
        self.step(sum(map(len, texts)) + len(texts) * len(str(d)))
        return str(d).join(texts)

    def _format(self, form: str, *args: Any, **kwargs: Any) -> str:
        widths = re.findall(r"%(?:\([^)]*\))?[-#0 +]*([\d*]*)\.?([\d*]*)", form)
        if any("*" in width or int(width or 0) > MAX_WIDTH for pair in widths for width in pair):
            raise _BoundError(f"it formats to a width of more than {MAX_WIDTH}")
        self.step(len(form) + _size(args) + _size(kwargs))
        return self.measured(form % (kwargs or args))

    def _indent(self, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        indent = width if isinstance(width, str) else " " * min(width, MAX_SIZE)
        self.step(len(text) + (text.count("\n") + 1) * len(indent))
        return filters.do_indent(text, indent, first, blank)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Without the escapes for HTML of Jinja's own."""
        if indent is not None:
            indent = indent[:MAX_WIDTH] if isinstance(indent, str) else min(indent, MAX_WIDTH)
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        parts, size = [], 0
        for part in encoder.iterencode(value):
            size += len(part)
            self.step(size)
            parts.append(part)
        text = "".join(parts)
        for character in self._unescaped if ensure_ascii else "":
            text = text.replace(json.dumps(character)[1:-1], character)
        return text


def _raise_exception(message: str) -> None:
    raise _RefusalError(str(message))


class _Namespace(Namespace):
    """Shows nothing of what it holds, which could be itself, and takes no private names."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise TemplateError(f"a namespace has no place for the private name {shown(name)}")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


class _GenerationTag(Extension):
    """{% generation %} ... {% endgeneration %} marks what the assistant said, for training; here it does nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=lineno)


class _Measured(NodeTransformer):
    """Has a template's loops, literals and `~` go through the environment."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _through("counted", node, node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("concatenated", node, *node.nodes)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("measured", node, node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("measured", node, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("measured", node, node) if node.ctx == "load" else node


def _through(method: str, node: nodes.Node, *values: nodes.Node) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), list(values), [], None, None, lineno=node.lineno)


def _size(value: Any) -> int:
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
