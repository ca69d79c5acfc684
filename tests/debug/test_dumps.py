"""Dumps in every kind of file, and files that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minillama.debug.dumps import open_dump
from minillama.debug.traces import Trace
from minillama.weights.formats import narrow_bfloat16
from tests.tiny import tiny_config

ARRAYS = {"logits": np.arange(6, dtype=np.float32).reshape(1, 2, 3) / 7, "model.norm": np.ones((1, 2, 4))}
IDS = np.array([[3, 1, 4]])


def written(kind: str, folder: Path) -> Path:
    file = folder / f"dump.{kind}"
    if kind == "npz":
        np.savez(file, input_ids=IDS, **ARRAYS)
    elif kind == "npy":
        file.mkdir()
        for name, array in (ARRAYS | {"input_ids": IDS}).items():
            np.save(file / f"{name}.npy", array)
    else:
        save_file(ARRAYS | {"input_ids": IDS}, file)
    return file


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors"])
def test_every_kind(kind: str, tmp_path: Path) -> None:
    dump = open_dump(written(kind, tmp_path))
    assert all(np.array_equal(dump[name], array) and dump[name].dtype == array.dtype for name, array in ARRAYS.items())
    assert [ids.tolist() for ids in dump.input_ids] == IDS[None].tolist()


def test_half_precision_is_widened(tmp_path: Path) -> None:
    file = tmp_path / "dump"
    bits = narrow_bfloat16(np.array([[1.5, -0.3]], np.float32))
    header = {"logits": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bits.tobytes())
    assert open_dump(file)["logits"].tolist() == [[1.5, np.float32(-0.30078125)]]


def test_a_trace_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    trace = Trace(ARRAYS, [IDS, np.array([[5]])], tiny_config(), "path/to/weights", ("logits", "norm"))
    trace.save(tmp_path / "t")
    read = open_dump(tmp_path / "t")
    assert all(np.array_equal(read[name], array) for name, array in ARRAYS.items())
    assert [ids.tolist() for ids in read.input_ids] == [ids.tolist() for ids in trace.input_ids]
    assert read.config == trace.config
    assert (read.weights, read.names, read.past(1), read.past(2)) == ("path/to/weights", ("logits", "norm"), 3, 4)


@pytest.mark.parametrize(
    ("name", "contents", "complaint"),
    [
        ("x.npz", b"PK\x05\x06" + bytes(18), "has no arrays"),
        ("x.npz", b"PK\x03\x04" + bytes(18), r"not a sound \.npz file"),  # cut short
        ("x.npz", b"", r"not a sound \.npz file"),
        ("x.safetensors", b"12345", "too few for a header"),
        ("x.pt", b"\x80\x02}q\x00.", "safetensors"),
        ("x.npy", b"\x93NUMPY", "one array, whose name is that of its file: name the folder it is in"),
    ],
)
def test_files_that_are_no_dump(name: str, contents: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(ValueError, match=complaint) as caught:
        open_dump(tmp_path / name)
    assert name in str(caught.value)


def test_arrays_that_are_no_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", logits=np.array(["a"]), model=np.array([None]))
    dump = open_dump(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"logits cannot be read: .*<U1"):
        dump["logits"]
    with pytest.raises(ValueError, match="pickle"):
        dump["model"]


@pytest.mark.parametrize("contents", [b"", b"\x80\x04N.", b"text\n"])
def test_what_is_not_an_array_in_a_folder(contents: bytes, tmp_path: Path) -> None:
    """NumPy takes such a file for a pickle, and advises to load it unsafely."""
    (tmp_path / "logits.npy").write_bytes(contents)
    with pytest.raises(
        ValueError, match=r"logits\.npy is not a sound \.npy file: .* another kind; write it with"
    ) as caught:
        open_dump(tmp_path)["logits"]
    assert "unsafe" not in str(caught.value)


def test_places_without_a_dump(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_dump(tmp_path / "none")
    with pytest.raises(ValueError, match="has no arrays"):
        open_dump(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_what_might_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a file"):
        open_dump(tmp_path / "pipe")
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=r"x\.npy is not a sound \.npy file: it is not a file"):
        open_dump(tmp_path)["x"]


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({"minillama.trace": "2"}, "format 2"),
        ({"input_ids": "[[1"}, "metadata are not those of a trace"),
        ({"input_ids": "[3]"}, "not rows of ids"),
        ({"config": "[]"}, "metadata are not those of a trace"),
    ],
)
def test_metadata_of_no_trace(metadata: dict[str, str], complaint: str, tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "t", metadata)
    with pytest.raises(ValueError, match=complaint):
        open_dump(tmp_path / "t")
