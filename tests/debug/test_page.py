"""The page of compare: what is on it, that it needs nothing else, that it is sound whatever the traces hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.debug.comparison import Comparison, Finding, compare
from minillama.debug.heatmap import MOST, HeatMaps, heat_maps
from minillama.debug.names import in_order, shape
from minillama.debug.page import render, write_page
from minillama.debug.pixels import NONE, SHADES
from minillama.debug.traces import Trace
from tests.debug.markup import Element, Page
from tests.debug.test_pixels import pixels

SIZES = {"B": 1, "T": 5, "S": 5, "D": 12, "H": 4, "G": 2, "K": 3, "F": 14, "V": 30}
UP, PROBS = "model.layers.1.mlp.up", "model.layers.0.self_attn.probs"
HOSTILE = "a<script>alert(1)</script>\"'&.npz"


def trace(layers: int = 2, source: str = "ours", **sizes: int) -> Trace:
    """Random intermediates under all names, with an outlier in each."""
    rng = np.random.default_rng(7)
    tensors = {}
    for where in in_order(layers, [0]):
        tensors[where.name] = rng.standard_normal(shape(where.local, SIZES | sizes)).astype(np.float32)
        tensors[where.name].flat[3] = 40
    return Trace(tensors, [np.array([[1, 300, 17, 4000, 12]])], source=source)


def other(ours: Trace, source: str = "theirs", **changed: Array) -> Trace:
    return Trace(dict(ours.tensors) | changed, ours.input_ids, source=source)


def planted(source: str = "theirs") -> Comparison:
    """Traces of which one differs in a head of probs, and another number, further off, in mlp.up."""
    ours = trace()
    probs, up = ours[PROBS].copy(), ours[UP].copy()
    probs[0, 2, 3, 1] += 0.5
    probs[0, 2, 4, 0] -= 3
    up[0, 1, 2] = -1000
    return compare(ours, other(ours, source, **{PROBS: probs, UP: up}))


def page(result: Comparison) -> Page:
    return Page(render(result, "0.0"))


def rows(found: Page) -> list[Element]:
    return [each for each in found.find("tr") if "id" in each.attributes]


def test_where_they_part_and_by_how_much() -> None:
    result = planted()
    found = page(result)
    assert found.find("h1")[0].text == f"Different, first at {PROBS}"
    assert found.find("title")[0].text == "Different: ours and theirs"
    assert found.find("html")[0].attributes["lang"] == "en"
    cells = [[each.text for each in row.inside] for row in found.find("tbody")[0].inside if row.tag == "tr"]
    ours, theirs = result.a[PROBS], result.b[PROBS]
    for words, index, line in (("first", (0, 2, 3, 1), cells[0]), ("worst", (0, 2, 4, 0), cells[1])):
        assert line == [f"{words} {list(index)}", f"{ours[index]:.9g}", f"{theirs[index]:.9g}"]
    told = {name.text: value.text for name, value in zip(found.find("dt"), found.find("dd"), strict=True)}
    assert told["ids"] == "the same: 1, 300, 17, 4000, 12"
    assert told["allowed"] == str(result.tolerance)
    assert told["differing"] == "2 of 37 intermediates"


def test_all_rows_are_in_the_table_and_all_points_lead_to_one() -> None:
    result = planted()
    found = page(result)
    assert [row.attributes["data-name"] for row in rows(found)] == [row.name for row in result.rows]
    assert [row.attributes["data-name"] for row in rows(found) if row.has("off")] == [PROBS, UP]
    points = [each for each in found.find("a") if (each.attributes["href"] or "").startswith("#row-")]
    assert [f"#{row.attributes['id']}" for row in rows(found)] == [each.attributes["href"] for each in points]
    for point, row in zip(points, result.rows, strict=True):
        assert point.text.startswith(f"{row.name}: ")
        assert point.has("off") is not row.same
    heights = {point.inside[1].attributes["cy"] for point in points if not point.has("off")}
    allowed = float(found.find("line", "allowed")[0].attributes["y1"] or "")
    assert min(float(height or "") for height in heights) > allowed  # y grows downwards
    assert [each.text for each in found.find("text", "first")] == [f"first: {PROBS}"]
    labels = [each.text for layer in found.find("details", "layer") for each in layer.inside if each.tag == "summary"]
    assert [label.split(" differ")[0].split(" agree")[0] for label in labels] == [
        "embedding1", "layer 01 of 17", "layer 11 of 17", "after the layers2",
    ]  # fmt: skip
    assert ["open" in layer.attributes for layer in found.find("details", "layer")] == [False, True, False, False]


def test_the_heads_of_what_differs_first() -> None:
    found = page(planted())
    assert ["hidden" in each.attributes for each in found.find("p", "controls")] == [True]  # until its script runs
    options = found.find("option")
    assert [option.text.split(", up")[0] for option in options] == [
        "head 0: agrees", "head 1: agrees", "head 2: 2 off", "head 3: agrees",
    ]  # fmt: skip
    assert ["selected" in option.attributes for option in options] == [False, False, True, False]
    heads = [each for each in found.find("div") if "data-head" in each.attributes]
    marks = [
        [mark.attributes["style"] for mark in head.inside if mark.tag == "span" and mark.has("mark")] for head in heads
    ]
    assert marks[0] == marks[1] == marks[3] == []
    assert marks[2] == ["left: 30.0%; top: 70.0%", "left: 10.0%; top: 90.0%"] * 3  # of 5 pixels each way
    for at, head in enumerate(heads):
        ours, theirs, apart = (pixels(each.attributes["src"]) for each in head.inside if each.tag == "img")
        middle = SHADES // 2
        wanted = np.full((5, 5), middle)
        if at == 2:
            wanted[3, 1], wanted[4, 0] = apart[3, 1], 0
            assert middle < apart[3, 1] < SHADES - 1
        np.testing.assert_array_equal(apart, wanted)
        np.testing.assert_array_equal(ours != theirs, apart != middle)
    assert {"position", "key position", "0", "4"} <= {each.text for each in heads[0].inside if each.tag == "span"}


def test_what_explains_it_or_why_that_was_not_looked_for() -> None:
    result = planted()
    result.unexplained = "ours does not say its weights: name --weights"
    assert f"Not looked for: {result.unexplained}." in [each.text for each in page(result).find("p")]
    result.unexplained = None
    assert "None of the mistakes that were tried explains it." in [each.text for each in page(result).find("p")]
    result.findings = [Finding("a.b", "x < y", 1.25e-5, True, PROBS), Finding("c.d", "other", 2e-5, True, PROBS)]
    found = page(result)
    assert [each.text for each in found.find("li")] == [
        "x < y leaves 0.00125 % of the error a.b", "other leaves 0.002 % of the error c.d",
    ]  # fmt: skip
    assert "Each of these explains the numbers:" in [each.text for each in found.find("p")]
    result.findings = [Finding("a.b", "near", 0.5, False, PROBS)]
    assert any(each.text.startswith("None of the mistakes") for each in page(result).find("p"))


def test_equal_traces() -> None:
    ours = trace()
    found = page(compare(ours, other(ours)))
    assert found.find("h1")[0].text == "Equal: all 37 intermediates agree"
    assert found.find("title")[0].text.startswith("Equal")
    assert not found.find("select")
    assert not found.find("img")
    assert ["hidden" in each.attributes for each in found.find("div", "controls")] == [True]  # until its script runs
    assert not [row for row in rows(found) if row.has("off")]
    assert len(rows(found)) == 37


def test_ids_that_differ_are_no_equal_runs() -> None:
    ours, theirs = trace(), other(trace())
    theirs.input_ids = [np.array([[1, 2, 3, 4, 5]])]
    found = page(compare(ours, theirs))
    assert found.find("h1")[0].text.startswith("Different ids")
    told = {name.text: value.text for name, value in zip(found.find("dt"), found.find("dd"), strict=True)}
    assert (told["ids, ours"], told["ids, theirs"]) == ("1, 300, 17, 4000, 12", "1, 2, 3, 4, 5")


def test_other_shapes() -> None:
    ours = trace()
    found = page(compare(ours, other(ours, **{UP: ours[UP][:, 1:]})))
    assert not found.find("img")
    assert "No picture: the shapes differ, (1, 5, 14) of ours and (1, 4, 14) of theirs." in [
        each.text for each in found.find("p")
    ]
    (off,) = [row for row in rows(found) if row.has("off")]
    assert off.inside[-1].text == "1 x 5 x 14 in ours, 1 x 4 x 14 in theirs"


def test_an_array_without_the_axes_of_its_name() -> None:
    ours, theirs = trace(), trace()
    ours.tensors, theirs.tensors = {"logits": np.arange(4.0)}, {"logits": np.arange(4.0) + 1}
    found = page(compare(ours, theirs))
    assert not found.find("img")
    assert any(each.text.startswith("No picture: the axes should be") for each in found.find("p"))


@pytest.mark.parametrize(("value", "told"), [(np.nan, "NaN"), (np.inf, "∞"), (-np.inf, "-∞")])
def test_numbers_that_are_none(value: float, told: str) -> None:
    ours = trace()
    up = ours[UP].copy()
    up[0, 4, 6] = value
    result = compare(ours, other(ours, **{UP: up}))
    found = page(result)
    cells = [each.text for each in found.find("tbody")[0].inside if each.tag in ("th", "td")]
    assert cells == ["first [0, 4, 6]", f"{ours[UP][0, 4, 6]:.9g}", told]
    for img in found.find("img")[1:3]:  # theirs, the difference
        assert np.argwhere(pixels(img.attributes["src"]) == NONE).tolist() == [[4, 6]]
    assert " not a number, or infinite" in [each.text for each in found.find("span")]


def test_names_of_strangers_are_text() -> None:
    result = planted(HOSTILE)
    result.unexplained = f"{HOSTILE} cannot be read"
    text = render(result, "0.0")
    found = Page(text)
    assert len(found.find("script")) == 1
    assert "<script>alert" not in text
    assert HOSTILE in found.find("title")[0].text
    assert HOSTILE in [each.text for each in found.find("dd")]
    assert f"Not looked for: {HOSTILE} cannot be read." in [each.text for each in found.find("p")]


def test_it_needs_nothing_else() -> None:
    text = render(planted(), "0.0")
    found = Page(text)
    for element in found.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (element.attributes.get(name) or "#").startswith(("#", "data:"))
        assert not [name for name in element.attributes if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text
    (policy,) = [each for each in found.find("meta") if "http-equiv" in each.attributes]
    assert (policy.attributes["content"] or "").startswith("default-src 'none'; img-src data:;")


def test_labels_have_what_they_label() -> None:
    found = page(planted())
    ids = [each.attributes["id"] for each in found.elements if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    for label in found.find("label"):
        assert [each.tag for each in label.inside if each.tag in ("input", "select")]
    assert all(each.attributes.get("alt") for each in found.find("img"))


@pytest.mark.parametrize("name", ["model.layers.5.self_attn.probs", "model.layers.5.self_attn.q_proj", "logits"])
def test_a_large_model_makes_a_small_page(name: str) -> None:
    """22 layers, 128 tokens, and noise everywhere in what differs, which no compression makes smaller."""
    small = trace(22)
    sizes = SIZES | {"T": 128, "S": 128, "H": 32, "K": 64, "V": 8000}
    rng = np.random.default_rng(3)
    noise = rng.standard_normal(shape(name.removeprefix("model.layers.5."), sizes)).astype(np.float32)
    result = compare(other(small, **{name: noise}), other(small, **{name: noise * 1.5 + 0.1}))
    assert result.first is not None
    text = render(result, "0.0")
    assert len(text) < 1_000_000
    assert len(Page(text).find("img")) >= 3


def test_of_very_many_heads_those_that_are_off_the_most() -> None:
    ours = trace(1)
    probs = np.ones((1, MOST + 10, 5, 5), np.float32)
    wrong = probs.copy()
    wrong[0, :, 2, 1] += np.arange(MOST + 10) + 1  # the higher the head the more
    result = compare(other(ours, **{PROBS: probs}), other(ours, **{PROBS: wrong}))
    assert result.first is not None
    maps = heat_maps(result, result.first)
    assert isinstance(maps, HeatMaps)
    assert [each.label for each in maps.slices] == ["head 0", *(f"head {i}" for i in range(11, MOST + 10))]
    assert (maps.chosen, maps.left_out) == (0, 10)
    assert "10 more are not drawn; they are off by less." in [each.text for each in page(result).find("p")]


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.html"
    file.write_text("earlier")
    monkeypatch.setattr("minillama.files.os.replace", broken)
    with pytest.raises(OSError, match=r"report.html cannot be written: no room"):
        write_page(planted(), file, "0.0")
    assert file.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [file]
    monkeypatch.undo()
    write_page(planted("a name of bytes \udce4"), file, "0.0")
    assert Page(file.read_text(encoding="utf-8")).find("h1")


def broken(*_: object) -> None:
    raise OSError(28, "no room")
