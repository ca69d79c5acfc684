"""A page read with the standard library's parser: its elements, checked to be closed in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "input"}  # HTML's elements without an end, those that the page has


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    inside: list[Element] = field(default_factory=list)
    text: str = ""  # with that of what is inside

    def has(self, name: str) -> bool:
        """Whether it is of this class."""
        return name in (self.attributes.get("class") or "").split()


class Page(HTMLParser):
    """All elements of a page, in order. AssertionError if they are not nested as they should be."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        assert text.startswith("<!doctype html>\n")
        self.feed(text)
        self.close()
        assert not self._open, self._open[-1].tag

    def find(self, tag: str, of_class: str | None = None) -> list[Element]:
        return [each for each in self.elements if each.tag == tag and (of_class is None or each.has(of_class))]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        assert len(element.attributes) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append(element)
        for around in self._open:
            around.inside.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data
