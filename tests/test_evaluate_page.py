"""The tables that docs/evaluate.md and README.md show are what `python -m minillama.evaluate` prints."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from minillama.evaluate import main
from tests.tiny import ROOT

COMMAND = ["--engine", "numpy", "--dtype", "f32"]
BESIDE = ["dtype=f64", "engine=numba,dtype=q8_0", "engine=numba,dtype=q4_0"]
OF_F64 = 4  # figures; those behind are the square of float32's error, which depends on BLAS


def rows(text: str) -> dict[str, list[str]]:
    """The figures of each model, by its engine and format; of two models in the same, the first."""
    found: dict[str, list[str]] = {}
    for name, figures in re.findall(r"^(?:tale-model, )?(num\w+, \w+) +(\d.*)$", text, re.M):
        found.setdefault(name, figures.split())
    return found


def last_digit(figure: str) -> float:
    """What one in the last digit of a figure is worth: 0.0001 of 24.2447."""
    return float(Decimal(1).scaleb(int(Decimal(figure).as_tuple().exponent)))


def test_the_tables_of_the_pages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, *(argument for each in BESIDE for argument in ("--against", each))]) == 0
    printed = rows(capsys.readouterr().out)
    for page, wanted in (("docs/evaluate.md", 4), ("README.md", 3)):
        shown = rows((ROOT / page).read_text(encoding="utf-8"))
        checked = shown.keys() & printed.keys()
        assert len(checked) == wanted
        for name in checked:
            assert len(shown[name]) == len(printed[name])
            pairs = list(zip(shown[name], printed[name], strict=True))
            for told, found in pairs[:OF_F64] if name.endswith("f64") else pairs:
                # NumPy's float32 depends on its BLAS in the 7th digit: that may round the last one shown the other way,
                # or turn a tie of two tokens, which is one of 8,097
                room = 2 * last_digit(told.rstrip("%"))
                assert float(found.rstrip("%")) == pytest.approx(float(told.rstrip("%")), abs=room), f"{page}: {name}"
