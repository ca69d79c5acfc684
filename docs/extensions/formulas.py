"""Formulas as drawings, made when the book is built: they look the same everywhere, in the colour and size of the text,
and load neither a script nor a font."""

from html import escape
from typing import Any
from xml.etree import ElementTree

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)
SIZE = 16  # of the drawing's letters; what counts is its size in em
ziamath.config.svg2 = False  # glyphs as they are, for there are many drawings on a page


def drawing(source: str, inline: bool) -> str:
    """The SVG of a formula in LaTeX, its base line on that of the text."""
    svg = ziamath.Latex(source, size=SIZE, inline=inline, color="currentColor").svgxml()
    top, width, height = map(float, svg.get("viewBox").split()[1:])
    svg.set("width", f"{width / SIZE:.3f}em")
    svg.set("height", f"{height / SIZE:.3f}em")
    svg.set("style", f"vertical-align: {-(top + height) / SIZE:.3f}em")
    svg.set("role", "img")
    svg.set("aria-label", " ".join(source.split()))
    return ElementTree.tostring(svg, encoding="unicode")


def render(self: Any, node: nodes.Element, inline: bool) -> None:
    """Write a formula; one that cannot be read is a warning, and stands as it is."""
    source = node.astext().strip()
    try:
        drawn = drawing(source, inline)
    except Exception as error:
        log.warning("this formula cannot be read (%s): %s", error or type(error).__name__, source, location=node)
        drawn = f"<code>{escape(source)}</code>"
    self.body.append(f'<span class="math">{drawn}</span>' if inline else f'<div class="math formula">{drawn}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    inline = (lambda self, node: render(self, node, True), None)
    block = (lambda self, node: render(self, node, False), None)
    app.add_html_math_renderer("drawings", inline, block)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
