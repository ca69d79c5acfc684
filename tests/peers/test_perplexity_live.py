"""Perplexity by llama.cpp's recipe, from llama.cpp's own logits.

Runs where llama-cpp-python is installed (the peers extra); with MINILLAMA_PEERS=1 it is an error if that is missing.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from minillama.evaluate import main
from minillama.loading import load_tokenizer
from minillama.shipped import sample_text, tale_model
from minillama.tokenizer.to_pieces import to_pieces
from minillama.weights import open_checkpoint
from minillama.weights.gguf_writing import write_gguf

if os.environ.get("MINILLAMA_PEERS") == "1":
    import llama_cpp  # it has to be there
else:
    llama_cpp = pytest.importorskip("llama_cpp")

CONTEXT = 128


def by_llama_cpp(file: Path, text: str) -> float:
    """exp of the mean loss of the second half of each window, which begins with the beginning-of-text token."""
    model = llama_cpp.Llama(
        str(file), n_ctx=CONTEXT, n_batch=CONTEXT, n_threads=1, verbose=False, logits_all=True, type_k=0, type_v=0
    )
    ids = model.tokenize(text.encode())
    losses = []
    for start in range(0, len(ids) - CONTEXT + 1, CONTEXT):
        window = ids[start : start + CONTEXT]
        model.reset()
        model.eval([model.token_bos(), *window[1:]])
        for place in range(CONTEXT // 2, CONTEXT - 1):
            scores = np.array(model.scores[place], np.float64)
            losses.append(float(np.logaddexp.reduce(scores) - scores[window[place + 1]]))
    return math.exp(np.mean(losses))


def test_perplexity_is_that_of_llama_cpp_s_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = sample_text().read_text(encoding="utf-8")[:8000]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    write_gguf(open_checkpoint(tale_model()), "F32", tmp_path / "tale.gguf", to_pieces(load_tokenizer(tale_model())))
    recipe = ["--recipe", "llama.cpp", "--context", str(CONTEXT), "--engine", "numpy", "--json"]
    assert main([str(tmp_path / "text.txt"), *recipe]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    # float32 on both sides: the mean of some thousand losses, each right to some 1e-5, is right to far less
    assert model["perplexity"] == pytest.approx(by_llama_cpp(tmp_path / "tale.gguf", text), rel=1e-5)
