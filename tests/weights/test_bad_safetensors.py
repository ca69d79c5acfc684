"""safetensors files that are cut, forged, or no safetensors files at all."""

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minillama.llama import LlamaForCausalLM
from minillama.weights.safetensors import open_safetensors
from tests.bad import Capture, assert_refused, assert_runs, checkpoint

NORM = "model.norm.weight"
GATE = "model.layers.0.mlp.gate_proj.weight"


def with_length(length: int) -> Callable[[bytes], bytes]:
    return lambda file: length.to_bytes(8, "little") + file[8:]


def with_header(header: bytes) -> Callable[[bytes], bytes]:
    return lambda file: len(header).to_bytes(8, "little") + header


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """The file with its header changed, the data as they were."""

    def edit(file: bytes) -> bytes:
        length = int.from_bytes(file[:8], "little")
        header = json.loads(file[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + file[8 + length :]

    return edit


def field(name: str, value: object) -> Callable[[bytes], bytes]:
    return edited(lambda header: header[GATE].update({name: value}))


def pickled(protocol: int) -> Callable[[bytes], bytes]:
    return lambda file: pickle.dumps({"weight": [1.0]}, protocol)


def moved(begin: int, end: int) -> Callable[[bytes], bytes]:
    """The first tensor of the data grows by `begin` bytes at the front and by `end` at the back."""

    def move(header: dict[str, Any]) -> None:
        entry = max(header.values(), key=lambda entry: entry["data_offsets"])
        entry["data_offsets"] = [entry["data_offsets"][0] + begin, entry["data_offsets"][1] + end]

    return edited(move)


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "0 bytes": (lambda file: b"", "it has 0 bytes, too few for a header"),
    "7 bytes": (lambda file: file[:7], "it has 7 bytes, too few for a header"),
    "8 bytes": (lambda file: file[:8], "but ends after 8 bytes in all"),
    "8 zero bytes": (lambda file: bytes(8), "its header is not valid JSON"),
    "header length 2^64 - 1": (with_length(2**64 - 1), "declares a header of 18446744073709551615 bytes, more than"),
    "header length 100,000,001": (with_length(100_000_001), "declares a header of 100000001 bytes, more than"),
    "header length past the end": (with_length(99_999_999), "declares a header of 99999999 bytes but ends after"),
    "header not UTF-8": (with_header(b'{"\xff\xfe": 1}'), "its header is not UTF-8 text"),
    "header not JSON": (with_header(b"{'a': 1}"), "its header is not valid JSON"),
    "header nested without end": (with_header(b"[" * 1_000_000), "its header is not valid JSON"),
    "header with a number of 5000 digits": (with_header(b'{"a": ' + b"9" * 5000 + b"}"), "not valid JSON"),
    "header []": (with_header(b"[]"), "its header is a JSON list, not an object"),
    "header {}": (with_header(b"{}"), "its config says 2 layers and it has 0 tensors in all"),
    "duplicate keys": (with_header(b'{"twin": {}, "twin": {}}'), "its header has the name twin twice"),
    "metadata of numbers": (edited(lambda header: header.update(__metadata__={"a": 1})), "__metadata__"),
    "metadata of nulls": (edited(lambda header: header.update(__metadata__={"a": None})), "__metadata__"),
    "metadata that are a list": (edited(lambda header: header.update(__metadata__=[])), "__metadata__"),
    "entry without offsets": (edited(lambda header: header[GATE].pop("data_offsets")), f"{GATE} has no dtype, shape"),
    "entry that is a list": (edited(lambda header: header.update({GATE: [1]})), f"{GATE} has no dtype, shape"),
    "a hole": (moved(4, 4), "leaves a hole after the data before it"),
    "an overlap": (moved(-4, -4), "overlaps the data before it"),
    "trailing bytes": (lambda file: file + b"\0", "it has bytes that belong to no tensor"),
    "one byte short": (lambda file: file[:-1], "it is cut short"),
    "negative shape": (field("shape", [-24, -16]), f"{GATE} has the impossible shape [-24, -16]"),
    "fractional shape": (field("shape", [24.0, 16]), f"{GATE} has the impossible shape [24.0, 16]"),
    "shape true": (field("shape", [True, 384]), f"{GATE} has the impossible shape [True, 384]"),
    "shape that is text": (field("shape", "24"), f"{GATE} has the impossible shape '24'"),
    "shape 2^63": (field("shape", [2**63]), f"{GATE} has the impossible shape [9223372036854775808]"),
    "shape whose bytes overflow 64 bits": (field("shape", [2**62, 4]), f"{GATE} has 1536 bytes of data, which"),
    "shape of 100,000 huge sides": (field("shape", [2**62] * 10**5), f"{GATE} has the impossible shape"),
    "shape of other size": (field("shape", [24, 17]), f"{GATE} has 1536 bytes of data, which"),
    "offsets backwards": (field("data_offsets", [1536, 0]), f"{GATE} has -1536 bytes of data, which"),
    "offset negative": (field("data_offsets", [-1536, 0]), f"{GATE} has the impossible data_offsets [-1536, 0]"),
    "three offsets": (field("data_offsets", [0, 1536, 1]), f"{GATE} has the impossible data_offsets"),
    "unknown dtype": (field("dtype", "F31"), f"{GATE} has the unknown dtype 'F31'"),
    "dtype that is a list": (field("dtype", ["F32"]), f"{GATE} has the unknown dtype ['F32']"),
    "dtype of integers": (field("dtype", "I32"), f"1 not stored as one of F64, F32, F16, BF16: {GATE} (I32)"),
    "dtype of half bytes": (
        edited(lambda header: header[GATE].update(dtype="F4", shape=[24, 128])),
        "is quantized by a format of fewer than eight bits",
    ),
    "half bytes that are too few": (field("dtype", "F4"), f"{GATE} has 1536 bytes of data, which"),
    "dtype of complex numbers": (
        edited(lambda header: header[GATE].update(dtype="C64", shape=[12, 16])),
        f"1 not stored as one of F64, F32, F16, BF16: {GATE} (C64)",
    ),
    "a name of a megabyte": (edited(lambda header: header.update({"x" * 10**6: 1})), "the impossible tensor name 'xxx"),
    "a name of two lines": (edited(lambda header: header.update({"a\nb": 1})), r"the impossible tensor name 'a\nb'"),
    "git-lfs pointer": (
        lambda file: b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 13\n",
        "a Git LFS pointer, not the weights themselves (run `git lfs pull`)",
    ),
    "HTML error page": (lambda file: b"\n<!DOCTYPE html><html><h1>404</h1></html>", "a web page, not weights"),
    "HTML page without doctype": (lambda file: b"<html>Not found</html>", "a web page, not weights"),
    "plain error text": (lambda file: b"Entry not found", "declares a header of"),
    "renamed zip pickle": (lambda file: b"PK\x03\x04" + bytes(60), "a zip archive (a renamed PyTorch pickle?)"),
    **{
        f"renamed pickle, protocol {protocol}": (pickled(protocol), "it is a PyTorch pickle")
        for protocol in range(2, 6)
    },
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file(case: str, tmp_path: Path, capfd: Capture) -> None:
    spoil, words = BAD[case]
    file = checkpoint(tmp_path) / "model.safetensors"
    file.write_bytes(spoil(file.read_bytes()))
    assert_refused(capfd, ["--weights", tmp_path], file, words)


def test_metadata_that_are_null(tmp_path: Path, capfd: Capture) -> None:
    """As the package of that name, 0.8, reads it."""
    file = checkpoint(tmp_path) / "model.safetensors"
    tensors = load_file(file)
    file.write_bytes(edited(lambda header: header.update(__metadata__=None))(file.read_bytes()))
    assert load_file(file).keys() == tensors.keys()
    opened, metadata = open_safetensors(file)
    assert (opened.keys(), metadata) == (tensors.keys(), {})
    assert_runs(capfd, ["--weights", tmp_path, "--max-new-tokens", 2])


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot shrink on Windows")
def test_a_file_that_shrinks_while_mapped(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    file = checkpoint(tmp_path) / "model.safetensors"
    new_engine = LlamaForCausalLM.new_engine

    def shrink_first(model: LlamaForCausalLM) -> Any:
        os.truncate(file, 1000)
        return new_engine(model)

    monkeypatch.setattr(LlamaForCausalLM, "new_engine", shrink_first)
    assert_refused(
        capfd, ["--weights", tmp_path], f"{file} became shorter while it was in use", out="Once upon a time\n"
    )


def test_a_folder_in_the_place_of_the_file(tmp_path: Path, capfd: Capture) -> None:
    file = checkpoint(tmp_path) / "model.safetensors"
    file.unlink()
    file.mkdir()
    assert_refused(capfd, ["--weights", tmp_path], file, "is not a file: name a file of weights")


@pytest.mark.parametrize("name", [GATE, NORM])
def test_a_missing_and_an_unexpected_tensor(name: str, tmp_path: Path, capfd: Capture) -> None:
    file = checkpoint(tmp_path) / "model.safetensors"
    tensors = load_file(file)
    tensors["strange"] = tensors.pop(name)
    save_file(tensors, file)
    assert_refused(capfd, ["--weights", tmp_path], file, f"1 missing: {name}; 1 unexpected: strange")


def test_no_assumption_is_silent_without_a_config(tmp_path: Path, capfd: Capture) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 256,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }  # heads of 128, the usual size
    file = checkpoint(tmp_path, **sizes) / "model.safetensors"
    (tmp_path / "config.json").unlink()
    assumed = (
        "head_dim is taken as 128",
        "rope_theta is taken as 10000",
        "hidden_act is taken as silu",
        "rms_norm_eps is",
        "max_position_embeddings",
    )
    for weights in (tmp_path, file):
        arguments = ["--weights", weights, "--max-new-tokens", 3, "--prompt", "One"]
        assert assert_runs(capfd, arguments, *assumed).startswith("One")


def test_a_bare_file_whose_shapes_do_not_tell(tmp_path: Path, capfd: Capture) -> None:
    file = checkpoint(tmp_path) / "model.safetensors"
    (tmp_path / "config.json").unlink()
    words = "has no config.json beside it, and its 16 query and 8 key rows are not multiples of the head_dim 128"
    assert_refused(capfd, ["--weights", file], file, words, "--config")


def test_a_bare_file_that_is_no_llama(tmp_path: Path, capfd: Capture) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros((2, 2), np.float32)}, file)
    assert_refused(capfd, ["--weights", file], file, "has no config.json beside it", GATE)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 66176])
def test_a_header_length_whose_bytes_look_like_a_pickle(length: int, tmp_path: Path) -> None:
    """The first bytes of a pickle are 80 02 to 80 05, and so are those of 640, 896 ... as little-endian numbers."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    (tmp_path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + header + bytes(4))
    tensors, _ = open_safetensors(tmp_path / "model.safetensors")
    assert tensors["a"].shape == (1,)
