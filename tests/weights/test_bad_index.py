"""Indexes that name the wrong files, or the right ones wrongly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from tests.bad import Capture, assert_refused, assert_runs, checkpoint

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
NORM = "model.norm.weight"


def sharded(folder: Path) -> dict[str, Any]:
    """Write a sound checkpoint in two shards; the contents of its index."""
    file = checkpoint(folder) / "model.safetensors"
    tensors = load_file(file)
    file.unlink()
    names = sorted(tensors)
    for shard, half in zip(SHARDS, (names[::2], names[1::2]), strict=True):
        save_file({name: tensors[name] for name in half}, folder / shard)
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {name: SHARDS[place % 2] for place, name in enumerate(names)},
    }
    (folder / INDEX).write_text(json.dumps(index))
    return index


def renamed(shard: str) -> Callable[[dict[str, Any]], object]:
    """One tensor is said to be in another file."""
    return lambda index: index["weight_map"].update({NORM: shard})


OUTSIDE = "which is not in the same folder: it cannot be trusted"
BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "key in the wrong shard": (
        lambda index: index["weight_map"].update(
            {name: SHARDS[1] for name, shard in index["weight_map"].items() if shard == SHARDS[0]}
        ),
        f"is in {SHARDS[1]}, which does not have it",
    ),
    "key in no shard": (lambda index: index["weight_map"].update(strange=SHARDS[0]), "says tensor strange is in"),
    "path with ../": (renamed("../secret.safetensors"), OUTSIDE),
    "path with ..\\": (renamed("..\\secret.safetensors"), OUTSIDE),
    "absolute path": (renamed("/etc/passwd"), f"'/etc/passwd', {OUTSIDE}"),
    "absolute path of Windows": (renamed("C:secret.safetensors"), OUTSIDE),
    "path into a folder below": (renamed("below/model.safetensors"), OUTSIDE),
    "path ..": (renamed(".."), OUTSIDE),
    "empty path": (renamed(""), OUTSIDE),
    "missing key": (lambda index: index["weight_map"].pop(NORM), f"1 missing: {NORM}"),
    "file name that is a number": (lambda index: index["weight_map"].update({NORM: 1}), "has no weight_map from"),
    "weight_map that is a list": (lambda index: index.update(weight_map=[SHARDS[0]]), "has no weight_map from"),
    "no weight_map": (lambda index: index.pop("weight_map"), "has no weight_map from"),
    "empty weight_map": (
        lambda index: index["weight_map"].clear(),
        "its config says 2 layers and it has 0 tensors in all",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_index(case: str, tmp_path: Path, capfd: Capture) -> None:
    spoil, words = BAD[case]
    index = sharded(tmp_path)
    index["metadata"].clear()  # a total_size that disagrees would be a second line
    spoil(index)
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert_refused(capfd, ["--weights", tmp_path], tmp_path / INDEX, words)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"weight_map": ' + "9" * 5000 + "}", "[" * 10**6])
def test_an_index_that_is_no_json_object(text: str, tmp_path: Path, capfd: Capture) -> None:
    sharded(tmp_path)
    (tmp_path / INDEX).write_text(text)
    assert_refused(
        capfd, ["--weights", tmp_path], tmp_path / INDEX, "JSON", "an index of safetensors files is expected"
    )


@pytest.mark.parametrize("name", [SHARDS[1], "model-00003-of-00003.safetensors", "nul\0.safetensors"])
def test_a_missing_shard(name: str, tmp_path: Path, capfd: Capture) -> None:
    index = sharded(tmp_path)
    (tmp_path / SHARDS[1]).unlink()
    index["weight_map"] = {
        tensor: name if shard == SHARDS[1] else shard for tensor, shard in index["weight_map"].items()
    }
    (tmp_path / INDEX).write_text(json.dumps(index))
    shown = str(tmp_path / name).replace("\0", "\\x00")  # as control characters are in a message
    assert_refused(capfd, ["--weights", tmp_path / INDEX], shown, f"is missing, and {INDEX} names it")


def test_a_shard_that_is_cut_short(tmp_path: Path, capfd: Capture) -> None:
    sharded(tmp_path)
    shard = tmp_path / SHARDS[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    assert_refused(capfd, ["--weights", tmp_path], shard, "it is cut short")


@pytest.mark.parametrize("total", [1, -1, 10**30, "many", None])
def test_a_total_size_that_disagrees_is_one_warning(total: object, tmp_path: Path, capfd: Capture) -> None:
    index = sharded(tmp_path)
    index["metadata"]["total_size"] = total
    (tmp_path / INDEX).write_text(json.dumps(index))
    warnings = [] if total is None else [f"{tmp_path / INDEX} declares a total_size of {total} bytes, and its tensors"]
    assert assert_runs(capfd, ["--weights", tmp_path, "--max-new-tokens", 1], *warnings)


def test_shards_without_their_index(tmp_path: Path, capfd: Capture) -> None:
    sharded(tmp_path)
    (tmp_path / INDEX).unlink()
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, "has 2 .safetensors files and no", INDEX)
