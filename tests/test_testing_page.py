"""What docs/testing.md says is so: its adapter, its message, its lists."""

import re
from typing import Any

import pytest

from minillama.testing import LEVELS, ConformanceError, check_attention, check_rms_norm, check_rope
from minillama.testing.checks import FUNCTIONS, PROPERTIES
from tests.tiny import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def without_numbers(text: str) -> str:
    """Last digits depend on how a machine adds up."""
    return re.sub(r"-?\d+\.\d+(e[+-]\d+)?", "#", text)


def test_every_property_is_listed_in_its_words() -> None:
    rows = re.findall(r"^\| `(\w+::\w+)` \| (.*) \|$", PAGE, re.M)
    assert rows == [(prop.id, prop.sentence) for prop in PROPERTIES]
    assert len({prop.id for prop in PROPERTIES}) == len(PROPERTIES) > 50


def test_every_function_and_level_is_listed() -> None:
    assert re.findall(r"^\| `(\w+)\(", PAGE, re.M) == list(FUNCTIONS)
    assert re.findall(r"^\| `(\w+)` \| \w+(?:, sums in float32)? \|", PAGE, re.M) == list(LEVELS)


@pytest.mark.filterwarnings("ignore:.* is skipped")
def test_the_adapter_has_the_one_mistake_that_is_shown() -> None:
    adapter: dict[str, Any] = {}
    exec(blocks("python")[0], adapter)
    check_rms_norm(adapter["rms_norm"], level=adapter["level"])
    check_rope(adapter["rope"], level=adapter["level"], layout=adapter["layout"])
    with pytest.raises(ConformanceError) as caught:
        check_attention(adapter["attention"])
    assert without_numbers(str(caught.value)) == without_numbers(blocks("text")[0].strip())
