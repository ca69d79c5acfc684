"""python -m minillama.convert between formats: Meta's files, GGUF, llama2.c, adapters, fewer heads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama import LlamaForCausalLM, load_tokenizer
from minillama.config import LlamaConfig
from minillama.convert import main
from minillama.generate import end_ids
from minillama.shipped import tale_model
from minillama.weights import open_checkpoint
from minillama.weights.formats import narrow, widen
from minillama.weights.gguf_file import read_gguf
from minillama.weights.grouping import mean_pooled
from tests.bad import VOCAB, Capture, assert_refused, checkpoint, command
from tests.tiny import random_ids, random_weights
from tests.tokenizer.test_tiktoken_file import written as vocabulary_of_tiktoken
from tests.weights.meta_files import write_meta
from tests.weights.test_gguf_writing import MIXTURES, mixed_file
from tests.weights.test_lora import write_adapter

# Rows of whole groups of 32, for blocks of GGUF
SETTINGS: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "head_dim": 16,
    "vocab_size": VOCAB,
    "tie_word_embeddings": False,
}
CONFIG = LlamaConfig.from_dict(
    {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
    | SETTINGS
)
WEIGHTS = random_weights(CONFIG)


def converted(capfd: Capture, *arguments: object) -> None:
    status, _, err = command(capfd, *arguments, run=main)
    assert (status, err) == (0, "")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "in", WEIGHTS, **CONFIG.to_dict())


def assert_equal(folder: Path, weights: Any = WEIGHTS, form: str = "F32") -> None:
    tensors = open_checkpoint(folder).tensors
    assert tensors.keys() == weights.keys()
    for name, array in weights.items():
        assert tensors[name].dtype == form
        np.testing.assert_array_equal(tensors[name].stored(), narrow(array, form), err_msg=name)


def test_llama_3_as_meta_has_it(tmp_path: Path, capfd: Capture) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    size = len(load_tokenizer(vocabulary_of_tiktoken(folder)))
    config = LlamaConfig.from_dict(CONFIG.to_dict() | {"vocab_size": size})
    write_meta(folder, random_weights(config), config, 2, llama3=True, rope_theta=5e5)
    assert command(capfd, "--check", folder, run=main).status == 0
    converted(capfd, folder, tmp_path / "out")
    converted(capfd, folder, tmp_path / "llama.gguf")
    answers = [
        command(capfd, "--weights", place, "--prompt", "The fox", "--temperature", 0, "--max-new-tokens", 4)
        for place in (folder, tmp_path / "out", tmp_path / "llama.gguf")
    ]
    assert answers[0].status == 0
    assert answers[0].out.startswith("The fox")
    assert answers[1:] == [answers[0]] * 2
    tokenizer = load_tokenizer(folder)
    for made in (tmp_path / "out", tmp_path / "llama.gguf"):
        assert load_tokenizer(made).encode("a<|eot_id|> b") == tokenizer.encode("a<|eot_id|> b")


def test_gguf_has_no_place_for_a_normalizer(source: Path, tmp_path: Path, capfd: Capture) -> None:
    contents = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    contents["normalizer"]["normalizers"].insert(0, {"type": "Lowercase"})
    (source / "tokenizer.json").write_text(json.dumps(contents), encoding="utf-8")
    arguments = [source, tmp_path / "model.gguf"]
    assert_refused(capfd, arguments, source, "the tokenizer's normalizer Lowercase has no place", run=main)
    assert not list(tmp_path.glob("*.gguf*"))


def test_gguf_ends_where_the_folder_did(source: Path, tmp_path: Path, capfd: Capture) -> None:
    """generation_config.json has other ends than config.json, and --chat and generate() go by them; back again, too."""
    assert CONFIG.eos_token_ids == (2,)
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [601, 607]}))
    converted(capfd, source, tmp_path / "model.gguf")
    converted(capfd, tmp_path / "model.gguf", tmp_path / "out")
    for place in (tmp_path / "model.gguf", tmp_path / "out"):
        model, tokenizer = LlamaForCausalLM.from_pretrained(place), load_tokenizer(place)
        assert set(end_ids(model, tokenizer)) == {2, 601, 607}  # the tokenizer's own too, as llama.cpp does
        assert model.generation_config.eos_token_id == [2, 601, 607]
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [601, 607, 609, 611]}))
    status, _, err = command(capfd, source, tmp_path / "more.gguf", run=main)
    assert (status, err.count("\n")) == (1, 1)
    assert "would not end at 609, 611" in err
    assert not (tmp_path / "more.gguf").exists()


def test_gguf_to_gguf_keeps_every_format(tmp_path: Path, capfd: Capture) -> None:
    """Unless another is asked for, which says what is lost."""
    file = mixed_file(tmp_path / "a.gguf", MIXTURES["Q4_K"])
    before = read_gguf(file)
    assert command(capfd, file, tmp_path / "b.gguf", run=main).status == 0
    after = read_gguf(tmp_path / "b.gguf")
    assert {name: t.kind for name, t in after.tensors.items()} == {name: t.kind for name, t in before.tensors.items()}
    status, out, err = command(capfd, file, tmp_path / "c.gguf", "--dtype", "q4_0", run=main)
    assert (status, "15 matrices are quantized already" in err) == (0, True)
    assert "in q4_0" in out


@pytest.mark.parametrize("shards", [1, 2])
def test_metas_files(shards: int, tmp_path: Path, capfd: Capture) -> None:
    folder = write_meta(tmp_path / "in" / "7B", WEIGHTS, CONFIG, shards)
    shutil.copyfile(tale_model() / "tokenizer.model", tmp_path / "in" / "tokenizer.model")
    assert command(capfd, "--check", folder, run=main).status == 0
    out = tmp_path / "out"
    converted(capfd, "--input_dir", tmp_path / "in", "--model_size", "7B", "--output_dir", out)
    assert_equal(out)
    stated = json.loads((out / "config.json").read_text())
    assert (stated["torch_dtype"], stated["architectures"]) == ("float32", ["LlamaForCausalLM"])
    assert stated["num_key_value_heads"] == 2
    assert {"generation_config.json", "tokenizer.json", "tokenizer.model"} <= {file.name for file in out.iterdir()}
    ids = random_ids(3, 1, 9)
    theirs = LlamaForCausalLM(CONFIG, WEIGHTS)(ids).logits
    # Meta's params.json says nothing of the length of texts, and the rest is the same model to the bit
    np.testing.assert_array_equal(LlamaForCausalLM.from_pretrained(out)(ids).logits, theirs)
    assert load_tokenizer(out).encode("The fox") == load_tokenizer(tale_model()).encode("The fox")
    assert command(capfd, "--check", out, run=main).status == 0


@pytest.mark.parametrize("form", ["f32", "f16", "bf16"])
def test_gguf_there_and_back(form: str, source: Path, tmp_path: Path, capfd: Capture) -> None:
    file, out = tmp_path / "model.gguf", tmp_path / "out"
    converted(capfd, source, file, "--dtype", form)
    assert command(capfd, "--check", file, run=main).status == 0
    converted(capfd, file, out)
    tensors = open_checkpoint(out).tensors
    for name, array in WEIGHTS.items():
        stored = form.upper() if array.ndim == 2 else "F32"  # as llama.cpp has norms
        assert tensors[name].dtype == stored
        np.testing.assert_array_equal(tensors[name].stored(), narrow(array, stored), err_msg=name)
    text = "The fox  said:\n“no”"
    assert load_tokenizer(out).encode(text) == load_tokenizer(source).encode(text)
    assert command(capfd, "--check", out, run=main).status == 0


@pytest.mark.parametrize("form", ["q8_0", "q4_0"])
def test_quantized_numbers_are_the_same_in_gguf_and_back(
    form: str, source: Path, tmp_path: Path, capfd: Capture
) -> None:
    first, file, out = tmp_path / form, tmp_path / "model.gguf", tmp_path / "out"
    converted(capfd, source, first, "--dtype", form)
    converted(capfd, first, tmp_path / "own.gguf")
    assert read_gguf(tmp_path / "own.gguf").tensors["token_embd.weight"].kind == "F32"  # as it is in the folder
    converted(capfd, first, file, "--dtype", form)
    converted(capfd, file, out)
    # Asking for the format that they are in changes nothing
    converted(capfd, file, tmp_path / "same", "--dtype", form)
    converted(capfd, file, tmp_path / "same.gguf", "--dtype", form)
    for made in out.iterdir():
        assert (tmp_path / "same" / made.name).read_bytes() == made.read_bytes()
    for one, other in zip(*(read_gguf(path).tensors.values() for path in (file, tmp_path / "same.gguf")), strict=True):
        assert one == other._replace(offset=one.offset)
    size = file.stat().st_size - min(tensor.offset for tensor in read_gguf(file).tensors.values())
    assert (tmp_path / "same.gguf").read_bytes()[-size:] == file.read_bytes()[-size:]
    before, after = open_checkpoint(first).tensors, open_checkpoint(out).tensors
    for name, tensor in before.items():
        if tensor.dtype == form.upper():
            assert after[name].dtype == tensor.dtype
            np.testing.assert_array_equal(after[name].read(np.float32), tensor.read(np.float32), err_msg=name)
    assert command(capfd, "--check", out, run=main).status == 0
    ids = random_ids(3, 1, 9)
    LlamaForCausalLM.from_pretrained(out)(ids)


def test_a_gguf_file_is_replaced_only_by_force(source: Path, tmp_path: Path, capfd: Capture) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"mine")
    assert_refused(capfd, [source, file], f"{file} is there already", "--force", run=main)
    assert_refused(capfd, [source, tmp_path / "x.gguf", "--manifest"], "--manifest is for folders", run=main)
    assert_refused(capfd, [source, file / "x.gguf"], f"{file / 'x.gguf'}", run=main)
    assert file.read_bytes() == b"mine"
    converted(capfd, source, file, "--force")
    assert file.read_bytes()[:4] == b"GGUF"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "model.gguf"]


def test_fewer_key_value_heads(source: Path, tmp_path: Path, capfd: Capture) -> None:
    converted(capfd, source, tmp_path / "out", "--kv-heads", 1)
    tensors, config = mean_pooled(open_checkpoint(source).tensors, CONFIG, 1)
    made = open_checkpoint(tmp_path / "out")
    assert made.config.num_key_value_heads == config.num_key_value_heads == 1
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(made.tensors[name].stored(), tensor.stored())
    assert_refused(
        capfd, [source, tmp_path / "no", "--kv-heads", 3], "cannot be pooled to 3: use one of 1, 2", run=main
    )


def test_an_adapter_is_merged(source: Path, tmp_path: Path, capfd: Capture) -> None:
    rng, target = np.random.default_rng(8), "model.layers.1.mlp.up_proj"
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 64), (192, 3)))
    name = f"base_model.model.{target}"
    adapter = write_adapter(
        tmp_path / "lora", {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, r=3, lora_alpha=6
    )
    converted(capfd, source, tmp_path / "out", "--lora", adapter)
    made = open_checkpoint(tmp_path / "out").tensors
    expected = open_checkpoint(source, lora=[adapter]).tensors
    for key, tensor in expected.items():
        np.testing.assert_array_equal(made[key].stored(), tensor.stored())
    difference = made[f"{target}.weight"].stored() - WEIGHTS[f"{target}.weight"]
    # Two products of three terms of float32 numbers of size 1 to 10
    np.testing.assert_allclose(difference, 2 * b @ a, atol=1e-5)


def test_another_format_of_pooled_heads(source: Path, tmp_path: Path, capfd: Capture) -> None:
    converted(capfd, source, tmp_path / "out", "--kv-heads", 1, "--dtype", "bf16")
    name = "model.layers.0.self_attn.k_proj.weight"
    whole = WEIGHTS[name].reshape(2, 16, 64)
    pooled = (whole[0] + whole[1]) / np.float32(2)
    made = open_checkpoint(tmp_path / "out").tensors[name]
    np.testing.assert_array_equal(made.read(np.float32), widen(narrow(pooled, "BF16"), "BF16", np.float32))
