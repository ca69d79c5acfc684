"""The book builds without a warning, loads nothing from a network, and what it says of the code exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.tiny import ROOT

DOCS, PACKAGE = ROOT / "docs", ROOT / "minillama"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
COMPONENTS = sorted(page for page in DOCS.glob("components/*.md") if page.stem != "index")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
MODULE = re.compile(r"^\.\. automodule:: ([\w.]+)", re.M)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    for file, function in TEST.findall(page.read_text(encoding="utf-8")):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not function or function in functions, f"{file} has no {function}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_files_that_a_page_links_to_exist(page: Path) -> None:
    """As a code host finds them; the places within a page are checked when the book is built."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        place = link.partition("#")[0]
        assert not place or "://" in place or (page.parent / place).exists(), f"{page.name} links to {link}"


def test_every_component_names_the_tests_that_hold_it() -> None:
    assert len(COMPONENTS) == 10
    for page in COMPONENTS:
        end = page.read_text(encoding="utf-8").partition("## What holds it together")[2]
        assert len(TEST.findall(end)) >= 3, page.name


def test_nothing_is_installed_by_a_name_that_no_index_has() -> None:
    """The package comes from a clone, until it is published."""
    texts = [*PAGES, *ROOT.glob("data/*/README.md"), *ROOT.glob("notebooks/**/*.ipynb"), *PACKAGE.rglob("*.py")]
    named = re.compile(r"pip3? (?:install|download)(?![^\n]*--no-index)[^\n&;]*[\"' ]minillama\b")
    assert named.search("pip install -q 'minillama[gguf]'")
    assert not [str(file) for file in texts if named.search(file.read_text(encoding="utf-8"))]


def test_the_docs_extra_has_what_documented_modules_import() -> None:
    """Those whose import fails are missing in the book, which is built without a word then."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    there = [*project["dependencies"], *project["optional-dependencies"]["docs"], "minillama"]
    packages = {re.split(r"[<>=]", name)[0] for name in there}
    named = [name for page in PAGES for name in MODULE.findall(page.read_text(encoding="utf-8"))]
    assert {"minillama.testing.strategies", "minillama.model.rope"} <= set(named)
    for name in named:
        tree = ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                root = module.partition(".")[0]
                assert root in packages | sys.stdlib_module_names, f"{name} needs {module}"


class Loaded(HTMLParser):
    """Addresses that a browser asks for by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("index", "search", "next", "prev", "canonical"):
            self.addresses.append(given.get("href") or "")


def test_the_book(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the docs extra")
    line = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "kept", "-c", DOCS, ROOT]
    done = subprocess.run([*line, tmp_path / "book"], capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "book").rglob("*.html"))
    names = {str(page.relative_to(tmp_path / "book").with_suffix("").as_posix()) for page in pages}
    sources = [*DOCS.rglob("*.md"), *ROOT.glob("notebooks/*.ipynb")]
    assert names >= {page.relative_to(ROOT).with_suffix("").as_posix() for page in sources} | {"index"}
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert not [address for address in loaded.addresses if "//" in address], page
    for sheet in (tmp_path / "book").rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet
