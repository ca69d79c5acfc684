"""Places and arguments that python -m minillama.convert cannot work with, beyond bad files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minillama.convert import main
from minillama.llama import LlamaForCausalLM
from minillama.staging import LOCK, PARTIAL
from tests.bad import Capture, assert_refused, checkpoint, command
from tests.weights.test_lora import write_adapter

UP = "model.layers.1.mlp.up_proj"


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {file: file.read_bytes() if file.is_file() else None for file in folder.rglob("*")}


# What is in the way -> the words of the refusal
IN_THE_WAY: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder in the place of the weights": (
        lambda out: (out / "model.safetensors").mkdir(parents=True),
        "model.safetensors is a folder, in the place of a file",
    ),
    "a folder in the place of the tokenizer": (
        lambda out: (out / "tokenizer.json").mkdir(parents=True),
        "tokenizer.json is a folder, in the place of a file",
    ),
    "a file in the place of unfinished files": (
        lambda out: (out.mkdir(), (out / PARTIAL).write_bytes(b"mine")),
        f"{PARTIAL} is not a folder: remove that",
    ),
    "a folder among unfinished files": (
        lambda out: (out / PARTIAL / "mine").mkdir(parents=True),
        "mine is a folder, and no conversion has made it",
    ),
    "a folder in the place of the lock": (
        lambda out: (out / PARTIAL / LOCK).mkdir(parents=True),
        "lock is a folder, and no conversion has made it",
    ),
}


@pytest.mark.parametrize("case", IN_THE_WAY)
def test_what_is_in_the_way_stays(case: str, tmp_path: Path, capfd: Capture) -> None:
    make, words = IN_THE_WAY[case]
    source, out = checkpoint(tmp_path / "in"), tmp_path / "out"
    make(out)
    before = tree(out)
    assert_refused(capfd, [source, out, "--force"], str(out), words, run=main)
    assert tree(out) == before


def test_saving_over_a_folder_changes_nothing(tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(checkpoint(tmp_path / "in"))
    (tmp_path / "out" / "model.safetensors").mkdir(parents=True)
    before = tree(tmp_path / "out")
    with pytest.raises(OSError, match=r"model\.safetensors cannot be written: a folder has its name"):
        model.save_pretrained(tmp_path / "out")
    assert tree(tmp_path / "out") == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf", "pytorch_model.bin", "consolidated.00.pth"])
def test_a_pipe_has_no_weights(name: str, tmp_path: Path, capfd: Capture) -> None:
    """Opening one would wait for somebody to write into it."""
    source = checkpoint(tmp_path / "in")
    (source / "model.safetensors").unlink()
    os.mkfifo(source / name)
    assert_refused(capfd, [source, tmp_path / "out"], source / name, run=main)
    assert_refused(capfd, ["--check", source], source / name, run=main)
    assert_refused(capfd, ["--weights", source], source / name)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such devices")
@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf", "model.pth", "model.bin"])
def test_a_device_that_never_ends(name: str, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / name).symlink_to("/dev/zero")
    assert_refused(capfd, ["--weights", tmp_path / name], tmp_path / name, "is not a file")
    assert_refused(capfd, ["--tokenizer", "/dev/zero"], "/dev/zero cannot be read: it is a device")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_manifest_that_names_other_things_than_files(tmp_path: Path, capfd: Capture) -> None:
    source = checkpoint(tmp_path)
    os.mkfifo(source / "pipe")
    for name in ("pipe", "../secret", "/etc/passwd", "C:\\secret", "", "."):
        (source / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
        assert_refused(capfd, ["--check", source], "which names no file here", run=main)
    (source / "SHA256SUMS").write_text("no digest\n" * 100_000)
    status, _, err = command(capfd, "--check", source, run=main)
    assert (status, err.count("\n")) == (1, 11)


@pytest.mark.parametrize("arguments", [["", "out"], ["in", ""], ["--check", ""], ["in", "out", "--lora", ""]])
def test_a_path_that_a_shell_made_of_nothing(
    arguments: list[str], tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint(tmp_path))  # which "" would mean
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert capfd.readouterr().err == "minillama: a path is empty: see python -m minillama.convert --help\n"
    assert tree(tmp_path) == before
    for name in ("--weights", "--tokenizer", "--lora"):
        assert_refused(capfd, [name, ""], "a path is empty: name a file or a folder")


@pytest.mark.parametrize("size", ["9" * 400, "1e9", "-5GB", "0", "nanGB", "5 GB GB", ""])
def test_sizes_that_are_none(size: str, tmp_path: Path, capfd: Capture) -> None:
    source = checkpoint(tmp_path / "in")
    assert_refused(
        capfd, [source, tmp_path / "out", f"--max-shard-size={size}"], "max_shard_size must be a number", run=main
    )
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_in_a_folder_that_is_not_there(tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "new" / "folder" / "MODEL.GGUF"
    assert command(capfd, checkpoint(tmp_path / "in"), out, "--dtype", "f16", run=main).status == 0
    assert out.read_bytes()[:4] == b"GGUF"
    shutil.copy(tmp_path / "in" / "config.json", tmp_path / "file")
    assert_refused(capfd, [tmp_path / "in", tmp_path / "file" / "x.gguf"], tmp_path / "file", run=main)


def test_an_adapter_that_holds_what_is_no_number(tmp_path: Path, capfd: Capture) -> None:
    """It is merged as peft merges it, which the check tells; no scale fits it."""
    a, b = np.ones((3, 16), np.float32), np.full((24, 3), np.nan, np.float32)
    weights = {f"base_model.model.{UP}.lora_{x}.weight": array for x, array in (("A", a), ("B", b))}
    adapter = write_adapter(tmp_path / "lora", weights, r=3, lora_alpha=6)
    source, out = checkpoint(tmp_path / "in"), tmp_path / "out"
    quantized = [source, out, "--lora", adapter, "--dtype", "q8_0"]
    assert_refused(capfd, quantized, f"{UP}.weight cannot be quantized: it holds a NaN", run=main)
    assert not out.exists()
    assert command(capfd, source, out, "--lora", adapter, run=main).status == 0
    assert_refused(capfd, ["--check", out], f"{UP}.weight has 384 that are NaN or infinite", run=main)


def test_a_checkpoint_within_the_folder_it_is_made_from(tmp_path: Path, capfd: Capture) -> None:
    source = checkpoint(tmp_path)
    assert command(capfd, source, source / "f16", "--dtype", "f16", run=main).status == 0
    assert command(capfd, "--check", source / "f16", run=main).status == 0
    (tmp_path / "link").symlink_to(source, target_is_directory=True)
    assert_refused(capfd, [source, tmp_path / "link", "--force"], "name another one to write to", run=main)
