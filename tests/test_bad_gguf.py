"""GGUF files through the command: sound ones run, others are refused in a sentence."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.weights import open_checkpoint
from tests.bad import Capture, assert_refused, assert_runs
from tests.ggufs import ARRAY, SETTINGS, STRING, Info, gguf_bytes, model_tensors
from tests.tokenizer.test_from_pieces import byte_level, of_the_tales
from tests.weights.test_gguf_vocabulary import metadata_of

SMALL = byte_level()
BYTES = gguf_bytes(metadata_of(SMALL), model_tensors(kind="Q5_0", vocab=len(SMALL.pieces)))
HEADER = len(BYTES) - sum(len(tensor.data) for tensor in model_tensors(kind="Q5_0", vocab=len(SMALL.pieces)))
FEW = ("--temperature", 0, "--max-new-tokens", 4)


def write(folder: Path, metadata: dict[str, Any], tensors: list[Info], **how: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.gguf").write_bytes(gguf_bytes(metadata, tensors, **how))
    return folder / "model.gguf"


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_a_file_with_all_that_is_needed(kind: str, tmp_path: Path, capfd: Capture) -> None:
    """A name with spaces and a newline; the vocabulary from the file, though another lies beside it."""
    file = write(tmp_path / "my\nmodel", metadata_of(of_the_tales()), model_tensors(kind=kind, vocab=4096))
    (file.parent / "tokenizer.json").write_text("not a tokenizer")
    out = assert_runs(capfd, ["--weights", file, "--prompt", "A fox", *FEW])
    assert out.startswith("A fox")
    assert len(out) > len("A fox\n")


@pytest.mark.parametrize("name", ["sha256-0f00", "model.bin", "model.safetensors"])
def test_a_file_is_known_by_how_it_begins(name: str, tmp_path: Path, capfd: Capture) -> None:
    file = write(tmp_path, metadata_of(of_the_tales()), model_tensors(vocab=4096)).rename(tmp_path / name)
    assert assert_runs(capfd, ["--weights", file, "--prompt", "A fox", *FEW]).startswith("A fox")


def test_a_file_without_a_vocabulary(tmp_path: Path, capfd: Capture) -> None:
    file = write(tmp_path, SETTINGS, model_tensors(vocab=4096))
    assert_runs(capfd, ["--weights", file, "--tokenizer", tale_model(), *FEW])
    assert_refused(capfd, ["--weights", file], tmp_path, "no tokenizer.json and no tokenizer.model")


def test_a_vocabulary_of_a_gguf_file_for_other_weights(tmp_path: Path, capfd: Capture) -> None:
    file = write(tmp_path, metadata_of(of_the_tales()), [])
    assert_runs(capfd, ["--tokenizer", file, *FEW])


def test_quantized_weights_kept_in_a_folder(tmp_path: Path, capfd: Capture) -> None:
    file = write(tmp_path, metadata_of(of_the_tales()), model_tensors(kind="Q8_0", vocab=4096))
    asked = ["--prompt", "A fox", *FEW, "--threads", 1, "--engine", "numba", "--dtype", "q8_0"]
    first = assert_runs(capfd, ["--weights", file, *asked, "--save-quantized", tmp_path / "kept"])
    assert assert_runs(capfd, ["--weights", tmp_path / "kept", *asked]) == first
    assert (tmp_path / "kept" / "tokenizer.model").exists()


SOUND = model_tensors(vocab=4096)


def fused(name: str) -> list[Info]:
    """The tensors with one of another name in the first layer instead of q."""
    return [Info(f"blk.0.{name}", *tensor[1:]) if tensor.name == "blk.0.attn_q.weight" else tensor for tensor in SOUND]


BAD: dict[str, tuple[dict[str, Any], list[Info], dict[str, Any], str]] = {
    "more pieces than rows": ({}, model_tensors(vocab=4000), {}, "has 4096 tokens and the model only 4000"),
    "counts of 2^64 - 1": ({}, SOUND, {"pairs": 2**64 - 1, "count": 2**64 - 1}, "which do not fit"),
    "an overflowing shape": ({}, [Info("token_embd.weight", (1 << 62, 4), 0, b"")], {}, "cut short"),
    "a text of 2^63 bytes": ({"a": struct.pack("<IQ", STRING, 1 << 63)}, SOUND, {}, "cut short"),
    "arrays in arrays": ({"a": struct.pack("<IIQ", ARRAY, ARRAY, 1 << 40)}, SOUND, {}, "an array of arrays"),
    "big endian": ({}, SOUND, {"version": 3 << 24}, "big endian"),
    "another architecture": ({"general.architecture": "mamba"}, SOUND, {}, "architecture 'mamba'"),
    "2^31 layers": ({"llama.block_count": 2**31 - 1}, SOUND, {}, "2147483647 layers"),
    "q, k and v in one": (
        {},
        fused("attn_qkv.weight"),
        {},
        "its q, k and v are one matrix, which is not read: get the",
    ),
    "gate and up in one": ({}, fused("ffn_gate_up.weight"), {}, "its gate and up are one matrix, which is not read"),
    "experts": ({}, fused("ffn_gate_exps.weight"), {}, "it is a mixture of experts, which minillama has not"),
    "a tensor of nobody": ({}, fused("attn_sub_norm.weight"), {}, "get the file again, or another of the model"),
    "a vocabulary of another kind": ({"tokenizer.ggml.model": "bert"}, SOUND, {}, "of the kind 'bert'"),
    "a piece twice": ({"tokenizer.ggml.tokens": ["a"] * 4096}, SOUND, {}, "the piece 'a' twice"),
    "no unknown piece": ({"tokenizer.ggml.token_type": [1] * 4096}, SOUND, {}, ""),  # the id names it
    "an endless template": ({"tokenizer.chat_template": "{% for i in range(10**9) %}{% endfor %}"}, SOUND, {}, ""),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_run_is_told_in_a_sentence(name: str, tmp_path: Path, capfd: Capture) -> None:
    more, tensors, how, words = BAD[name]
    file = write(tmp_path, metadata_of(of_the_tales(), **more), tensors, **how)
    if words:
        assert_refused(capfd, ["--weights", file], file, words)
    else:
        assert_runs(capfd, ["--weights", file, *FEW])  # nobody asked for a conversation


def test_something_else_by_that_name(tmp_path: Path, capfd: Capture) -> None:
    file = tmp_path / "model.gguf"
    for data in (
        b"",
        b"GGUF",
        b"<!doctype html><html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\x03\x04",
    ):
        file.write_bytes(data)
        assert_refused(capfd, ["--weights", file], file, "cannot be read as GGUF")
    file.unlink()
    file.mkdir()
    assert_refused(capfd, ["--weights", file], file, "no model.safetensors")
    assert_refused(capfd, ["--tokenizer", tmp_path / "none.gguf"], "none.gguf", "cannot be opened")


@given(data=st.data())
def test_any_bytes_are_a_model_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Some bytes of a sound file are others, or gone: as weights and as a vocabulary, ValueError is all it gives."""
    spoiled = bytearray(BYTES)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, HEADER))
        length = data.draw(st.sampled_from((0, 1, 4, 8)))
        spoiled[place : place + length] = data.draw(st.binary(max_size=8) | st.just(b"\xff" * 8))
    file = tmp_path_factory.mktemp("spoiled") / "model.gguf"
    file.write_bytes(bytes(spoiled))
    with contextlib.suppress(ValueError):
        for tensor in open_checkpoint(file).tensors.values():
            tensor.read(np.float32)
    with contextlib.suppress(ValueError, FileNotFoundError):
        load_tokenizer(file).encode("a fox <s>\n")
