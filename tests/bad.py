"""What the tests of bad inputs share: tiny checkpoints to spoil, and the command to show them to."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.generate import main
from minillama.shipped import tale_model
from minillama.weights.names import LM_HEAD, expected_shapes

VOCAB = 4096  # of the tale model's tokenizer
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}
BOUND = 10.0  # seconds that any refusal may take, on a busy machine too

Capture = pytest.CaptureFixture[str]


class Outcome(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


def random_tensors(settings: Mapping[str, Any], seed: int = 0) -> dict[str, Array]:
    """Random float32 weights for a config.json; a tied head is left out."""
    config, rng = LlamaConfig.from_dict(dict(settings)), np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) * 0.3).astype(np.float32)
        for name, shape in expected_shapes(config).items()
        if not (name == LM_HEAD and config.tie_word_embeddings)
    }


def checkpoint(folder: Path, tensors: Mapping[str, Array] | None = None, **settings: Any) -> Path:
    """Write a sound tiny checkpoint into `folder`, the tokenizer of the tale model included; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | settings
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(tensors or random_tensors(config)), folder / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(tale_model() / name, folder / name)
    return folder


def command(capfd: Capture, *arguments: object, run: Callable[[list[str]], int] = main) -> Outcome:
    """Run `python -m minillama.generate`, or another command, with these arguments, in this process."""
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    root.handlers.clear()  # pytest's own would keep the command from setting up its log
    capfd.readouterr()
    try:
        status = run([str(argument) for argument in arguments])
    finally:
        root.handlers[:] = handlers
    return Outcome(status, *capfd.readouterr())


def assert_refused(
    capfd: Capture,
    arguments: Sequence[object],
    *words: object,
    out: str = "",
    run: Callable[[list[str]], int] = main,
) -> None:
    """The command says in one line, with all of `words` in it, why it cannot go on, and says so soon; until then it
    has printed `out`."""
    begin = time.perf_counter()
    outcome = command(capfd, *arguments, run=run)
    assert time.perf_counter() - begin < BOUND
    assert (outcome.status, outcome.out) == (1, out), outcome.err
    assert outcome.err.startswith("minillama: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert len(outcome.err) < 2000, "nobody reads that much"
    for word in words:
        assert str(word) in outcome.err, outcome.err


def assert_runs(capfd: Capture, arguments: Sequence[object], *warnings: str) -> str:
    """The command works, with nothing on standard error but a line for each of `warnings`; standard output."""
    status, out, err = command(capfd, *arguments)
    lines = err.splitlines()
    assert (status, len(lines)) == (0, len(warnings)), err
    for line, warning in zip(lines, warnings, strict=True):
        assert line.startswith("minillama: ")
        assert warning in line
    return out


def spawn(*arguments: object, before: Sequence[str] = (), **how: Any) -> subprocess.Popen[bytes]:
    """The command as a process of its own, its three streams piped."""
    line = [*before, sys.executable, "-m", "minillama.generate", *map(str, arguments)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(line, **pipes | how)
