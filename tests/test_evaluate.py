"""python -m minillama.evaluate: its figures, its texts, and what it refuses."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.evaluate import main, read_texts
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.model.heads import causal_lm_loss
from tests.bad import CONFIG, Capture, assert_refused, checkpoint, command, random_tensors

TEXT = "The fox said to the crow: “how black you are!” And the crow said nothing, for it had a cheese.\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


def figures(capfd: Capture, *arguments: object) -> dict[str, Any]:
    outcome = command(capfd, *arguments, "--json", run=main)
    assert (outcome.status, outcome.err) == (0, "")
    return dict(json.loads(outcome.out))


def test_one_window_is_the_loss_of_the_model(text: Path, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model", max_position_embeddings=64)
    told = figures(capfd, text, "--weights", folder, "--context", 64)
    ids = np.array([load_tokenizer(folder).encode(TEXT)])
    loss = causal_lm_loss(LlamaForCausalLM.from_pretrained(folder, dtype="float64")(ids).logits, ids)
    (model,) = told["models"]
    assert told["tokens"] == ids.size - 1
    # float32 beside float64: some 1e-6 of logits of a few nats, in the exponent
    assert model["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert model["bits_per_byte"] == pytest.approx(loss * (ids.size - 1) / math.log(2) / len(TEXT.encode()), rel=1e-5)


def test_other_formats_and_engines_beside_it(text: Path, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model", max_position_embeddings=64)
    other = checkpoint(tmp_path / "other", random_tensors(CONFIG, seed=1), max_position_embeddings=64)
    told = figures(
        capfd, text, "--weights", folder, "--engine", "numpy", "--context", 64,
        "--against", "engine=numpy", "--against", "dtype=f64", "--against", f"weights={other}",
    )  # fmt: skip
    same, double, different = told["models"][1:]
    assert (same["kl_mean"], same["kl_max"], same["same_top"], same["largest_overturned_margin"]) == (0, 0, 1, 0)
    assert same["perplexity"] == told["models"][0]["perplexity"]
    assert 0 < double["kl_max"] < 1e-9  # the square of float32's error
    assert different["kl_mean"] > 1e-4
    assert [model["name"] for model in told["models"][1:]] == ["model, f32", "model, f64", "other, f32"]
    assert (told["recipe"], told["context"], told["stride"]) == ("strided", 64, 32)
    assert {name: double[name] for name in ("weights", "engine", "dtype")} == {
        "weights": str(folder), "engine": "numpy", "dtype": "f64",
    }  # fmt: skip


def test_the_ratio_is_surer_than_what_it_is_of(text: Path, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model", max_position_embeddings=64)
    other = checkpoint(tmp_path / "other", random_tensors(CONFIG, seed=1), max_position_embeddings=64)
    arguments = (text, "--weights", folder, "--context", 64, "--against")
    first, second = figures(capfd, *arguments, f"weights={other}")["models"]
    assert second["ratio"] == pytest.approx(second["perplexity"] / first["perplexity"])
    assert second["ratio_error"] > 0
    _, double = figures(capfd, *arguments, "dtype=f64")["models"]
    assert double["ratio"] == pytest.approx(1, rel=1e-6)  # float32's error
    assert double["ratio_error"] < 1e-6 < double["perplexity_error"]


def test_bits_a_byte_only_where_all_bytes_are_predicted(text: Path, tmp_path: Path, capfd: Capture) -> None:
    """Windows side by side leave out the first token of each; a second text in a single window does not mend that."""
    folder, short = checkpoint(tmp_path / "model", max_position_embeddings=64), tmp_path / "short.txt"
    short.write_text("The fox", encoding="utf-8")
    recipe = ("--weights", folder, "--context", 16, "--stride", 16)
    assert figures(capfd, text, short, *recipe)["models"][0]["bits_per_byte"] is None
    assert figures(capfd, short, *recipe)["models"][0]["bits_per_byte"] > 0


def test_a_text_of_one_token(text: Path, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model", max_position_embeddings=64)
    text.write_text("a", encoding="utf-8")
    outcome = command(capfd, text, "--weights", folder, "--against", "dtype=f64", run=main)
    _, first, second, note = outcome.out.splitlines()
    assert first.split()[-2] == "-"  # one number has no standard error
    assert second.split()[-6] == "-"
    assert note.startswith("1 token of 1 text, windows of 64")


def test_the_table(text: Path, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model", max_position_embeddings=64)
    outcome = command(capfd, text, "--weights", folder, "--context", 64, "--against", "dtype=f64", run=main)
    head, first, second, note = outcome.out.splitlines()
    assert head.split()[:3] == ["perplexity", "±", "bits/byte"]
    assert [len(first.split()), len(second.split())] == [4, 11]
    assert note.endswith("were closer than 0.01")
    assert outcome.status == 0


def test_several_texts_are_read_by_themselves(text: Path, tmp_path: Path, capfd: Capture) -> None:
    folder, long = checkpoint(tmp_path / "model", max_position_embeddings=64), tmp_path / "long.txt"
    long.write_text(f"* * *\n{TEXT.strip()}\n* * *\n{TEXT.strip()} And so on.\n", encoding="utf-8")
    one = figures(capfd, text, "--weights", folder, "--context", 64)
    both = figures(capfd, long, "--separator", "* * *", "--weights", folder, "--context", 64)
    assert (one["texts"], both["texts"]) == (1, 2)
    assert both["tokens"] > 2 * one["tokens"]
    assert read_texts([str(long)], "* * *") == [TEXT.strip(), f"{TEXT.strip()} And so on."]


def test_standard_input_and_windows_line_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa\r\nb")))
    assert read_texts(["-"], None) == ["a\nb"]


def test_the_recipe_of_llama_cpp(text: Path, tmp_path: Path, capfd: Capture) -> None:
    """By hand: windows of 8 side by side, the first id of each replaced, the last three predicted."""
    folder = checkpoint(tmp_path / "model", max_position_embeddings=64)
    told = figures(capfd, text, "--weights", folder, "--recipe", "llama.cpp", "--context", 8)
    model, tokenizer = LlamaForCausalLM.from_pretrained(folder, dtype="float64"), load_tokenizer(folder)
    ids = np.array(tokenizer.encode(TEXT))
    losses = []
    for start in range(0, len(ids) - 7, 8):
        window = ids[start : start + 8].copy()
        window[0] = tokenizer.bos_token_id
        labels = np.where(np.arange(8) >= 5, window, -100)
        losses.append(causal_lm_loss(model(window[None]).logits, labels[None]))
    assert told["tokens"] == 3 * len(losses)
    assert told["models"][0]["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)  # float32
    assert told["models"][0]["bits_per_byte"] is None


def test_a_picture(text: Path, tmp_path: Path, capfd: Capture) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("needs matplotlib")
    folder, file = checkpoint(tmp_path / "model", max_position_embeddings=64), tmp_path / "kl.png"
    arguments = (text, "--weights", folder, "--context", 64, "--against", "dtype=f64", "--plot", file)
    assert command(capfd, *arguments, run=main).status == 0
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "dtype=q9"], "--against dtype=q9: dtype must be one of auto, f64"),
        (["--against", "float32"], "it takes weights=PATH, engine=NAME and dtype=NAME"),
        (["--against", "engine=numpy,dtype=q8_0"], "engine 'numpy' computes in f32 or f64"),
        (["--against", "weights="], "weights must be a path"),
        (["--context", "1"], "--context must be between 2 and the"),
        (["--context", "0"], "--context must be between 2 and the"),
        (["--tokenizer", ""], "a path is empty"),
        (["--plot", "kl.docx"], "--plot writes a .png or .svg file, not 'kl.docx'"),
        (["--plot", "nowhere/kl.png"], "make its folder first"),
        (["--context", "100000"], "--context must be between 2 and the"),
        (["--context", "16", "--stride", "17"], "--stride must be between 2 and the context of 16 tokens, not 17"),
        (["--recipe", "llama.cpp", "--context", "64"], "takes two contexts of 64 tokens each; give a longer"),
        (["--recipe", "llama.cpp", "--context", "2"], "--context must be 3 or more for llama.cpp's recipe, not 2"),
        (["--recipe", "llama.cpp", "--context", "8", "--stride", "4"], "--stride is of the recipe strided"),
        (["--against", "dtype=f32,dtype=f64"], "--against dtype=f32,dtype=f64: dtype is there twice"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--separator", TEXT.strip()], "no text to predict"),
        (["--weights", "nowhere"], "nowhere"),
    ],
)
def test_what_is_refused(arguments: list[str], words: str, text: Path, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model", max_position_embeddings=64)
    assert_refused(capfd, [text, "--weights", folder, *arguments], words, run=main)


def test_texts_that_cannot_be_read(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert_refused(capfd, [tmp_path / "latin.txt"], "latin.txt is not UTF-8 text (byte 3)", run=main)
    assert_refused(capfd, [tmp_path / "none.txt"], "none.txt cannot be read", run=main)


def test_models_of_other_vocabularies(text: Path, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model", max_position_embeddings=64)
    settings = json.loads((folder / "config.json").read_text())
    other = checkpoint(tmp_path / "other", vocab_size=settings["vocab_size"] + 8)
    arguments = [text, "--weights", folder, "--against", f"weights={other}"]
    assert_refused(capfd, arguments, other, "only models of the same vocabulary", run=main)
