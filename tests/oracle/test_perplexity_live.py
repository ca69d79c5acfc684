"""Perplexity by the recipe of transformers' page "Perplexity of fixed-length models", computed with transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from minillama.evaluate import main
from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from tests.tiny import ROOT

torch = pytest.importorskip("torch", reason="needs the oracle extra")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra")

SAMPLE = ROOT / "data" / "sample.txt"
HELD_OUT = next(ROOT.parent.glob("*/data/tales-valid.txt"), SAMPLE)  # in a folder beside the clone, where there is one
CHARACTERS = 30_000


def by_transformers(text: str, context: int, stride: int) -> float:
    """The mean loss of each window, as the model returns it, by the labels the window adds; one taken off each time."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tale_model(), dtype=torch.float32)
    ids = torch.tensor([load_tokenizer(tale_model()).encode(text)])
    total, tokens, done = 0.0, 0, 0
    for start in range(0, ids.shape[1], stride):
        window = ids[:, start : start + context]
        stop = start + window.shape[1]
        labels = window.clone()
        labels[:, : window.shape[1] - (stop - done)] = -100
        counted = int((labels != -100).sum()) - 1
        with torch.no_grad():
            total += model(window, labels=labels).loss.item() * counted
        tokens += counted
        done = stop
        if stop == ids.shape[1]:
            break
    return math.exp(total / tokens)


def by_minillama(text: str, context: int, stride: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> float:
    (folder / "text.txt").write_text(text, encoding="utf-8")
    arguments = [str(folder / "text.txt"), "--engine", "numpy", "--context", str(context), "--stride", str(stride)]
    assert main([*arguments, "--json"]) == 0
    return float(json.loads(capsys.readouterr().out)["models"][0]["perplexity"])


@pytest.mark.parametrize(("context", "stride"), [(1024, 512), (256, 100), (128, 128)])
def test_perplexity_is_that_of_transformers_recipe(
    context: int, stride: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = HELD_OUT.read_text(encoding="utf-8")[-CHARACTERS:]
    ours = by_minillama(text, context, stride, tmp_path, capsys)
    # float32 on both sides: the mean of some thousand losses, each right to some 1e-5, is right to far less
    assert ours == pytest.approx(by_transformers(text, context, stride), rel=1e-5)


@pytest.mark.skipif(HELD_OUT == SAMPLE, reason="the held-out tales are not here")
def test_perplexity_of_all_held_out_tales(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """196,515 tokens; side by side, because windows that overlap by half take twice as long, a minute and a half."""
    text = HELD_OUT.read_text(encoding="utf-8")
    ours = by_minillama(text, 1024, 1024, tmp_path, capsys)
    assert ours == pytest.approx(by_transformers(text, 1024, 1024), rel=1e-5)  # float32 on both sides, as above
