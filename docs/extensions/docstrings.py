"""Docstrings of this project are plain text, with `code` between single backticks, *emphasis*, and examples indented;
this makes reStructuredText of them, which is what autodoc reads."""

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(`+[^`\n]+`+)")
EMPHASIS = re.compile(r"((?<![\w*])\*\w[^*\n]*\w\*(?![\w*]))")
SPECIAL = re.compile(r"([*|\\]|_\b)")
ARRAY = re.compile(r"~?(?:numpy\.)?ndarray\[tuple\[[^\]]*\], ~?(?:numpy\.)?dtype\[[^\]]*\]\]")

DTYPE = re.compile(r"~?type\[~?(?:typing\.)?Any\] \| ~?(?:numpy\.)?dtype\[.*?_DTypeDict \| str(?: \| None)?")


def converted(lines: list[str]) -> list[str]:
    """Paragraphs with code and emphasis marked and everything else taken as it is; indented lines as literal blocks."""
    out: list[str] = []
    literal = False
    for line in lines:
        if line.startswith("    "):
            out += [line] if literal else ["", "::", "", line]
            literal = True
        else:
            out += ["", marked(line)] if literal and line.strip() else [marked(line)]
            literal = literal and not line.strip()
    return out


def marked(line: str) -> str:
    parts = []
    for part in CODE.split(line):
        if part.startswith("`"):
            parts.append(f"``{part.strip('`')}``")
        else:
            parts += [
                piece
                if piece.startswith("*") and piece.endswith("*") and len(piece) > 2
                else SPECIAL.sub(r"\\\1", piece)
                for piece in EMPHASIS.split(part)
            ]
    return "".join(parts)


def short(text: str) -> str:
    return DTYPE.sub("DTypeLike", ARRAY.sub("Array", text))


def docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    named_tuples_own = lines[:1] and lines[0].startswith("Alias for field number")
    lines[:] = [] if named_tuples_own else converted(lines)


def signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """`Array` and `DTypeLike` where they have been spelled out; nothing for a Protocol, which nobody makes."""
    if getattr(obj, "_is_protocol", False):
        return "", None
    return arguments and short(arguments), returned and short(returned)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
