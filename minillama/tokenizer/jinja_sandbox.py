"""Jinja for chat templates. A template comes with a checkpoint, so it is a stranger's program: it runs in Jinja's
immutable sandbox, sees plain data only, and stops when it takes more steps, time or memory than a template needs.

How it is held. Every loop, call, operator, filter and literal of a template is a step, and steps and seconds are
counted. Every value is measured where it is made, its items included, so that doubling a text or a list again and again
ends soon; what can grow further at once (`*`, `**`, replace, join, indent, padding, formatting) is measured before it
is done. What takes long for a long text (pprint, wordwrap) gets short ones only; urlize is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
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
from minillama.tokenizer.jinja_bounds import MAX_SOURCE, MAX_WIDTH, BoundError, Bounds, check_bits, size_of
from minillama.tokenizer.jinja_filters import PLAIN, TEXT_METHODS, BoundedFilters
from minillama.tokenizer.marks import Marks

_COMPARING = ("eq", "equalto", "==", "ne", "!=", "in", "lower", "upper")  # tests that look at what a text says
_SCOPES = ("_loop_vars", "_block_vars")  # what Jinja adds to the arguments of a call in a loop or a block


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
            named = re.match(r"No filter named '(\w+)'", message)
            if named and named[1] in filters.FILTERS:
                raise ValueError(
                    f"the chat template uses the filter {named[1]}, which is left out here as nothing bounds what it "
                    f"does (line {error.lineno})"
                ) from None
            raise ValueError(f"the chat template is not sound Jinja: {message}") from None
        except (TemplateError, SyntaxError, RecursionError, MemoryError, OverflowError, ValueError) as error:
            raise ValueError(f"the chat template cannot be compiled: {_said(error)}") from None

    def render(self, variables: Mapping[str, Any], marks: Marks | None = None) -> str:
        """The text for variables that are plain data. marks: characters in them that the template does not see when it
        compares texts, looks at their ends or takes their length, and that tojson leaves as they are.

        ValueError, one sentence, if the template refuses, fails or goes beyond its bounds.
        """
        self._environment.begin(marks)
        parts, size = [], 0
        try:
            for part in self._template.generate(variables):
                size += len(part)
                self._environment.bounds.step(size)
                parts.append(part)
        except _RefusalError as error:
            raise ValueError(f"the chat template refuses this conversation: {_said(error)}") from None
        except BoundError as error:
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
        self.bounds = Bounds()
        self.bounded = BoundedFilters(self, self.bounds)
        functions = {name: self.filters[name] for name in PLAIN.split()} | self.bounded.filters()
        self.filters = {name: self._stepping(function) for name, function in functions.items()}
        self.tests |= {name: self._seeing(self.tests[name]) for name in _COMPARING}
        self.globals = {
            "range": safe_range,
            "dict": _Dict(),
            "namespace": _Namespace,
            "cycler": Cycler,
            "joiner": Joiner,
            "raise_exception": _raise_exception,
            "strftime_now": lambda form: datetime.now().strftime(form[:MAX_WIDTH]),
        }

    def begin(self, marks: Marks | None = None) -> None:
        """Count from zero."""
        self.bounds.begin()
        self.bounded.marks = marks

    def measured(self, value: Any) -> Any:
        """The value, if it is not too large; a step."""
        return self.bounds.measured(value)

    def counted(self, values: Iterable[Any]) -> Iterable[Any]:
        """The values of a loop, a step each."""
        return self.bounds.counted(values)

    def unmarked(self, value: Any) -> Any:
        """What a comparison sees of a value."""
        return self.bounded.unmarked(value)

    def part(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """value[start:stop:step]"""
        return self.bounded.part(value, start, stop, step)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return super().getitem(self.unmarked(obj), argument)

    def concatenated(self, *values: Any) -> str:
        """The operator `~`."""
        self.bounds.step(sum(map(size_of, values)))
        return self.measured("".join(map(str, values)))

    def concat(self, parts: Iterable[str]) -> str:  # how macros and set blocks join theirs
        parts = list(parts)
        self.bounds.step(sum(map(len, parts)))
        return "".join(parts)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        if isinstance(__obj, LoopContext) and args:  # the next level of a recursive loop
            args = (__self.counted(args[0]), *args[1:])
        text, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(text, str) and (method := __self.bounded.method(text, name)):
            given = {name: value for name, value in kwargs.items() if name not in _SCOPES}
            return __self.measured(method(*args, **given))
        return __self.measured(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            check_bits(left.bit_length() * abs(right))
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            check_bits(left.bit_length() + right.bit_length())
        elif operator == "*":
            times, value = (left, right) if isinstance(left, int) else (right, left)
            self.bounds.step(size_of(value) * times if isinstance(times, int) else 0)
        elif operator == "%" and isinstance(left, str):
            return self.bounded.formatted(left, right)
        return self.measured(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str | bytes | int | float) and attr not in TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """str.format and str.format_map within bounds; None for anything else."""
        form, name = getattr(value, "__self__", None), getattr(value, "__name__", None)
        if not isinstance(form, str) or name not in ("format", "format_map"):
            return None

        def wrapper(*args: Any, **kwargs: Any) -> str:
            if name == "format_map":
                (mapping,) = args
                return self.bounded.brace_formatted(form, (), mapping)
            return self.bounded.brace_formatted(form, args, kwargs)

        return wrapper

    def _seeing(self, test: Any) -> Callable[..., Any]:
        return lambda *values: test(*map(self.unmarked, values))

    def _stepping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)  # what Jinja notes on a filter as well
        def filter_(*args: Any, **kwargs: Any) -> Any:
            return self.measured(function(*args, **kwargs))

        return filter_


def _raise_exception(message: str) -> None:
    raise _RefusalError(str(message))


class _Dict:
    """dict(...) and dict.fromkeys(...), without the other methods of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


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

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _unmarked(node.expr)
        for operand in node.ops:
            operand.expr = _unmarked(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = (node.arg.start, node.arg.stop, node.arg.step)
        return _through("part", node, node.node, *(end or nodes.Const(None) for end in ends))

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("measured", node, node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("measured", node, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("measured", node, node) if node.ctx == "load" else node


def _unmarked(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _through("unmarked", node, node)


def _through(method: str, node: nodes.Node, *values: nodes.Node) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), list(values), [], None, None, lineno=node.lineno)
