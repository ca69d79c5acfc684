"""python -m minillama.convert --check: every planted defect is found, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minillama.convert import main
from minillama.shipped import tale_model
from minillama.weights.finding import INDEX
from tests.bad import CONFIG, VOCAB, Capture, assert_refused, checkpoint, command, random_tensors
from tests.tiny import write_safetensors

UP = "model.layers.1.mlp.up_proj.weight"
SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path, capfd: Capture) -> Path:
    """A sound checkpoint with everything that a check looks at."""
    source = checkpoint(tmp_path / "in")
    arguments = [source, tmp_path / "out", "--max-shard-size", "260KB", "--manifest"]
    assert command(capfd, *arguments, run=main).status == 0
    return tmp_path / "out"


def sound(capfd: Capture, place: Path) -> str:
    status, out, err = command(capfd, "--check", place, run=main)
    assert (status, err) == (0, "")
    return out


def test_a_sound_checkpoint(folder: Path, capfd: Capture) -> None:
    numbers = sum(array.size for array in random_tensors(CONFIG).values())
    assert sound(capfd, folder) == (
        f"sound: {folder}: 20 tensors of {numbers} numbers, 0.3 MB in f32, a tokenizer of {VOCAB} tokens\n"
    )
    assert "bf16" in sound(capfd, tale_model())
    for name in ("tokenizer.json", "tokenizer.model", "SHA256SUMS"):
        (folder / name).unlink()
    assert "no tokenizer" in sound(capfd, folder)


def rewrite(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def cut(file: Path) -> None:
    with open(file, "r+b") as out:
        out.truncate(file.stat().st_size - 1)


def flip(file: Path) -> None:
    """Change one bit of a weight."""
    with open(file, "r+b") as out:
        out.seek(-4, 2)
        byte = out.read(1)[0]
        out.seek(-4, 2)
        out.write(bytes([byte ^ 1]))


DEFECTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing shard": (lambda folder: (folder / SHARD).unlink(), (SHARD, "is missing")),
    "cut short": (lambda folder: cut(folder / SHARD), (SHARD, "is cut short")),
    "total_size": (
        lambda folder: rewrite(folder / INDEX, lambda index: index["metadata"].update(total_size=5)),  # type: ignore[attr-defined]
        ("total_size of 5 bytes",),
    ),
    "shapes": (
        lambda folder: rewrite(folder / "config.json", lambda config: config.update(intermediate_size=25)),
        ("mlp.up_proj.weight (24, 16) instead of (25, 16)",),
    ),
    "torch_dtype": (
        lambda folder: rewrite(folder / "config.json", lambda config: config.update(torch_dtype="float16")),
        ("says torch_dtype float16, and its weights are in float32",),
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), ("no config.json beside it",)),
    "generation": (lambda folder: (folder / "generation_config.json").write_text("{"), ("generation_config.json",)),
    "tokenizer": (lambda folder: (folder / "tokenizer.json").write_bytes(b"{"), ("tokenizer.json",)),
    "changed bit": (lambda folder: flip(folder / SHARD), (SHARD, "is not what SHA256SUMS says")),
    "unlisted": (
        lambda folder: (folder / "SHA256SUMS").write_text("0" * 64 + "  ../in/config.json\n"),
        ("'" + "0" * 64 + "  ../in/config.json', which names no file here",),
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects(defect: str, folder: Path, capfd: Capture) -> None:
    plant, words = DEFECTS[defect]
    if defect not in ("changed bit", "unlisted"):  # which only a manifest tells
        (folder / "SHA256SUMS").unlink()
        plant(folder)
        status, out, err = command(capfd, "--check", folder, run=main)
        assert (status, out) == (1, "")
        assert all(line.startswith(f"minillama: {folder} is not sound: ") for line in err.splitlines())
        assert all(word in err for word in words), err
        assert err.count("\n") == 1 or defect == "no config", err  # of a config, several things had to be assumed
    else:
        plant(folder)
        assert_refused(capfd, ["--check", folder], *words, run=main)


def test_a_bit_without_a_manifest_is_not_known(folder: Path, capfd: Capture) -> None:
    (folder / "SHA256SUMS").unlink()
    flip(folder / SHARD)
    sound(capfd, folder)


@pytest.mark.parametrize("form", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("number", "name"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_numbers_that_are_none(form: str, number: float, name: str, tmp_path: Path, capfd: Capture) -> None:
    from minillama.weights.formats import narrow

    tensors = random_tensors(CONFIG)
    tensors[UP][7, 3], tensors[UP][9, 1] = number, np.nan
    dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[form]
    source = checkpoint(tmp_path, torch_dtype=dtype)
    write_safetensors(source / "model.safetensors", {key: narrow(array, form) for key, array in tensors.items()})
    complaint = f"{UP} has 2 that are NaN or infinite; the first, number [7, 3], is {name}\n"
    assert_refused(capfd, ["--check", source], complaint, run=main)


def test_where_a_number_is_in_a_large_tensor(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minillama.weights.mapped.PIECE", 64)
    tensors = random_tensors(CONFIG)
    tensors[UP][23, 15] = np.nan
    assert_refused(capfd, ["--check", checkpoint(tmp_path, tensors)], "the first, number [23, 15], is nan", run=main)


def test_complaints_without_end_are_counted(tmp_path: Path, capfd: Capture) -> None:
    tensors = {name: array * np.nan for name, array in random_tensors(CONFIG).items()}
    status, _, err = command(capfd, "--check", checkpoint(tmp_path, tensors), run=main)
    assert (status, err.count("\n")) == (1, 11)
    assert "and so are 10 more tensors" in err


def test_a_tokenizer_of_more_tokens_than_rows(tmp_path: Path, capfd: Capture) -> None:
    source = checkpoint(tmp_path, vocab_size=VOCAB - 1)
    complaint = f"its tokenizer has {VOCAB} tokens, and its embedding has {VOCAB - 1} rows"
    assert_refused(capfd, ["--check", source], complaint, run=main)


def test_quantized_matrices_have_checksums(tmp_path: Path, capfd: Capture) -> None:
    source, folder = checkpoint(tmp_path / "in"), tmp_path / "out"
    assert command(capfd, source, folder, "--dtype", "q4_0", run=main).status == 0
    assert "in f32" in sound(capfd, folder)  # the embedding is most of it
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    at = start + header[f"{UP}.q4_0"]["data_offsets"][0]
    data[at] ^= 1
    file.write_bytes(data)
    assert_refused(capfd, ["--check", folder], f"the bytes of {UP} have changed since it was packed", run=main)
    data[at] ^= 1
    at = start + header[f"{UP}.scales"]["data_offsets"][0]
    data[at : at + 2] = np.float16(np.nan).tobytes()
    file.write_bytes(data)
    status, _, err = command(capfd, "--check", folder, run=main)
    assert (status, f"{UP} has 1 that are NaN or infinite; the first, scale 0, is nan" in err) == (1, True)


def test_what_cannot_be_opened(tmp_path: Path, capfd: Capture) -> None:
    assert_refused(capfd, ["--check", tmp_path / "no"], f"{tmp_path / 'no'} does not exist", run=main)
