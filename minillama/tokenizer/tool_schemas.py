"""Python functions as tools: the JSON schema that a chat template gets of one, as transformers makes it.

Names and types come from the signature, descriptions from the docstring in Google's form:

    def weather(city: str, days: int = 1) -> str:
        \"\"\"Tell the weather.

        Args:
            city: Where, such as Graz.
            days: For how many days. (choices: [1, 3, 7])

        Returns:
            A sentence.
        \"\"\"
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from minillama.messages import shown

_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
_SECTION = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Examples?|Notes?):\s*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+)(?: *\([^)]*\))?: *", re.MULTILINE)
_CHOICES = re.compile(r"\(choices:\s*(\[.*?\])\)\s*$", re.DOTALL | re.IGNORECASE)


def as_tool(tool: Any) -> Any:
    """A function's schema; anything else as it is. ValueError where its docstring or signature says too little."""
    return tool_schema(tool) if inspect.isfunction(tool) or inspect.ismethod(tool) else tool


def tool_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """{"type": "function", "function": {name, description, parameters, return}}."""
    name = function.__name__
    description, arguments, returned = _documented(inspect.getdoc(function) or "")
    if not description:
        raise ValueError(f"the tool {name} has no docstring: say in one what it does, and what its arguments are")
    properties: dict[str, Any] = {}
    required: list[str] = []
    hints = get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in hints or parameter.name not in arguments:
            lacks = "type hint" if parameter.name not in hints else "description under Args: in the docstring"
            raise ValueError(f"the argument {parameter.name} of the tool {name} has no {lacks}: add one")
        said = arguments[parameter.name]
        schema = _schema(hints[parameter.name])
        if choices := _CHOICES.search(said):
            schema["enum"] = json.loads(choices[1])
            said = said[: choices.start()].strip()
        properties[parameter.name] = schema | {"description": said}
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    made = {"name": name, "description": description, "parameters": parameters}
    if "return" in hints:
        result = _schema(hints["return"])
        made["return"] = result | ({"description": returned} if returned else {})
    return {"type": "function", "function": made}


def _documented(text: str) -> tuple[str, Mapping[str, str], str]:
    """What a docstring says of the function, of each argument, and of the result, each in one line."""
    description, *rest = _SECTION.split(text)
    sections = dict(zip(rest[::2], map(inspect.cleandoc, rest[1::2]), strict=True))
    _, *parts = _ARGUMENT.split(sections.get("Args", sections.get("Arguments", "")))
    arguments = {name: " ".join(said.split()) for name, said in zip(parts[::2], parts[1::2], strict=True)}
    return description.strip(), arguments, sections.get("Returns", "").strip()


def _schema(hint: Any) -> dict[str, Any]:
    """The schema of a type."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if hint in (list, dict) or origin in (list, dict):
        schema: dict[str, Any] = {"type": "array" if list in (hint, origin) else "object"}
        if inner:
            schema["items" if origin is list else "additionalProperties"] = _schema(inner[-1])
        return schema
    if origin is tuple and Ellipsis not in inner:
        return {"type": "array", "prefixItems": [_schema(part) for part in inner]}
    if origin is Literal:
        kinds = sorted({_TYPES[type(value)] for value in inner if value is not None})
        return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": list(inner)}
    if origin in (Union, types.UnionType):
        some = [_schema(part) for part in inner if part is not type(None)]
        if len(some) == 1:
            schema = some[0]
        elif all(isinstance(one.get("type"), str) and len(one) == 1 for one in some):
            schema = {"type": sorted(one["type"] for one in some)}
        else:
            schema = {"anyOf": some}
        return schema | ({"nullable": True} if type(None) in inner else {})
    raise ValueError(f"no JSON schema is known for the type {shown(str(hint))}: give the tool as a schema")
