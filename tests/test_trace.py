"""python -m minillama.trace: what the file holds, what is refused, and that nothing half-written stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from minillama import trace as command_module
from minillama.debug import record
from minillama.llama import LlamaForCausalLM
from minillama.shipped import tale_model
from minillama.trace import main
from tests.bad import Capture, assert_refused, checkpoint, command

IDS = "1,300,17,4000,12"


def traced(capfd: Capture, out: Path, *arguments: object) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    outcome = command(capfd, "--out", out, *arguments, run=main)
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    with safe_open(out, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118


def test_the_file_holds_what_is_computed_to_the_bit(tmp_path: Path, capfd: Capture) -> None:
    tensors, metadata = traced(capfd, tmp_path / "t.safetensors", "--ids", IDS, "--steps", "0-2")
    model = LlamaForCausalLM.from_pretrained(tale_model(), engine="numpy")
    with record(model) as trace:
        out = model([[1, 300, 17, 4000, 12]])
        for _ in range(2):
            out = model(out.logits[:, -1:].argmax(axis=-1), past_key_values=out.past_key_values)
    assert set(tensors) == set(trace.tensors)
    assert len(tensors) == 3 * 105
    assert all(np.array_equal(tensors[name], trace[name]) for name in tensors)
    assert json.loads(metadata["input_ids"]) == [ids.tolist() for ids in trace.input_ids]
    assert json.loads(metadata["config"])["hidden_size"] == 256
    assert (metadata["minillama.trace"], metadata["weights"]) == ("1", str(tale_model()))


def test_a_selection_in_float64(tmp_path: Path, capfd: Capture) -> None:
    tensors, _ = traced(
        capfd, tmp_path / "t", "--prompt", "The fox", "--dtype", "float64", "--layers", "0,4-5", "--names", "mlp.g*"
    )
    assert list(tensors) == [f"model.layers.{layer}.mlp.gate" for layer in (0, 4, 5)]
    assert tensors["model.layers.4.mlp.gate"].dtype == np.float64
    only_later, metadata = traced(capfd, tmp_path / "t", "--ids", IDS, "--steps", "2", "--names", "logits")
    assert list(only_later) == ["step.2.logits"]
    assert len(json.loads(metadata["input_ids"])) == 3


def test_the_list_is_of_what_would_be_written(tmp_path: Path, capfd: Capture) -> None:
    tensors, _ = traced(capfd, tmp_path / "t", "--ids", IDS, "--layers", "1", "--steps", "1")
    outcome = command(capfd, "--ids", IDS, "--layers", "1", "--steps", "1", "--list", run=main)
    rows = [line.split("\t") for line in outcome.out.splitlines()]
    assert [(name, tuple(map(int, sides.split("x"))), int(size)) for name, sides, size in rows] == [
        (name, tensors[name].shape, tensors[name].nbytes) for name, *_ in rows
    ]
    assert len(rows) == len(tensors)


def test_keys_without_one_rotation_are_left_out(tmp_path: Path, capfd: Capture) -> None:
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    folder = checkpoint(tmp_path / "model", rope_scaling=scaling, max_position_embeddings=4)
    tensors, _ = traced(capfd, tmp_path / "t", "--ids", IDS, "--weights", folder)
    assert "model.layers.1.self_attn.q_rope" in tensors
    assert "model.layers.1.self_attn.k_rope" not in tensors


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--ids", "1,4096"], "4096"),
        (["--ids", IDS, "--layers", "6"], "0..5"),
        (["--ids", IDS, "--names", "queries"], "'queries'"),
        (["--ids", IDS, "--names", "mlp.*", "--threads", "0"], "--threads"),
        (["--ids", IDS, "--steps", "2000"], "context"),
        (["--ids", IDS, "--weights", "nowhere"], "nowhere"),
        (["--ids", IDS, "--out", "trace.npz"], "--out writes a .safetensors file, not 'trace.npz'"),
    ],
)
def test_what_is_refused(arguments: list[str], complaint: str, tmp_path: Path, capfd: Capture) -> None:
    assert_refused(capfd, ["--out", tmp_path / "t", *arguments], complaint, run=main)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("written", ["5-2", "0-99999999999", "3-", "-1", "1,,2", "x"])
def test_numbers_that_are_none(written: str, tmp_path: Path, capfd: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--ids", IDS, "--out", str(tmp_path / "t"), f"--layers={written}"])
    assert ended.value.code == 2
    assert f"--layers: it takes whole numbers and ranges such as 0,4-6, not '{written}': see" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As `| head -1` is one: the list is longer than a pipe holds."""
    command = [sys.executable, "-m", "minillama.trace", "--ids", IDS, "--steps", "0-99", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline().startswith(b"model.embed_tokens")
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 0


def test_a_full_disk_is_seen_before_anything_is_written(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert_refused(capfd, ["--ids", IDS, "--out", tmp_path / "t"], "are free there", run=main)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_leaves_the_old_file(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t"
    file.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_module.Filling, "finish", interrupted)
    assert command(capfd, "--ids", IDS, "--out", file, run=main).status == 130
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
