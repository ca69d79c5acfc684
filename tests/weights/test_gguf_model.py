"""LLaMAs out of GGUF files: names, settings, the rotary layout; both engines on them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.config import LlamaConfig
from minillama.llama import LlamaForCausalLM
from minillama.weights import names, open_checkpoint
from minillama.weights.gguf_model import PARTS, gguf_name
from minillama.weights.names import interleaved_to_halves
from tests.ggufs import KINDS, SETTINGS, VOCAB, Info, gguf_bytes, info, model_tensors, random_matrix

IDS = np.random.default_rng(2).integers(0, VOCAB, (1, 12))


def write(folder: Path, metadata: dict[str, Any] | None = None, tensors: list[Info] | None = None) -> Path:
    """A file with the settings of the tiny model, those that are None left out."""
    said = {key: value for key, value in (SETTINGS | (metadata or {})).items() if value is not None}
    file = folder / "model.gguf"
    file.write_bytes(gguf_bytes(said, model_tensors() if tensors is None else tensors))
    return file


def test_the_config_that_the_metadata_say(tmp_path: Path) -> None:
    more = {
        "llama.rope.freq_base": 5e5, "llama.vocab_size": VOCAB, "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 2,
        "tokenizer.ggml.padding_token_id": 3, "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0,
    }  # fmt: skip
    assert open_checkpoint(write(tmp_path, more)).config == LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=24, max_position_embeddings=32, rms_norm_eps=1e-5, rope_theta=5e5,
        rope_scaling={"rope_type": "linear", "factor": 4.0}, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=[2, 7], pad_token_id=3,
    )  # fmt: skip


def test_what_need_not_be_said(tmp_path: Path) -> None:
    unsaid = ("attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count")
    shapes = {"attn_q.weight": (64, 64), "attn_k.weight": (64, 64), "attn_v.weight": (64, 64),
              "attn_output.weight": (64, 64)}  # fmt: skip
    tensors = [
        info(tensor.name, np.ones(shapes[part], np.float32)) if (part := tensor.name[6:]) in shapes else tensor
        for tensor in model_tensors()
    ]
    config = open_checkpoint(write(tmp_path, {f"llama.{key}": None for key in unsaid}, tensors)).config
    assert (config.num_key_value_heads, config.head_dim, config.rope_theta, config.vocab_size) == (4, 16, 1e4, VOCAB)
    assert (config.bos_token_id, config.eos_token_id, config.rope_scaling) == (None, None, None)


def test_a_size_for_every_layer(tmp_path: Path) -> None:
    assert open_checkpoint(write(tmp_path, {"llama.feed_forward_length": [96, 96]})).config.intermediate_size == 96
    with pytest.raises(ValueError, match="feed_forward_length differs from layer to layer"):
        open_checkpoint(write(tmp_path, {"llama.feed_forward_length": [96, 64]}))


def test_every_tensor_by_its_name(tmp_path: Path) -> None:
    tensors = [*model_tensors(), info("output.weight", np.full((VOCAB, 64), 0.5, np.float32)),
               info("blk.1.attn_rot_embd.weight", np.ones(12, np.float32))]  # fmt: skip
    opened = open_checkpoint(write(tmp_path, tensors=tensors))
    assert not opened.config.tie_word_embeddings
    assert opened.tensors.keys() == names.expected_shapes(opened.config).keys()
    stored = {tensor.name: np.frombuffer(tensor.data, np.float32).reshape(tensor.shape) for tensor in tensors}
    for name, tensor in opened.tensors.items():
        expected = stored[gguf_name(name)]
        for projection, heads in (("q_proj", 4), ("k_proj", 2)):
            if projection in name:
                expected = interleaved_to_halves(expected, heads)
        np.testing.assert_array_equal(tensor.read(np.float32), expected)
    assert set(PARTS) == set(names.LAYER)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_both_engines_compute_the_same(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The compiled engine has the file's own numbers; what is left is the rounding of activations to 8 bits, 0.5 % of a
    product."""
    file = write(tmp_path, tensors=model_tensors(kind=kind))
    with caplog.at_level(logging.WARNING):
        fast = LlamaForCausalLM.from_pretrained(file, engine="numba", threads=1)
    assert (fast.form, caplog.messages) == (kind.lower(), [])
    expected = LlamaForCausalLM.from_pretrained(file, engine="numpy")(IDS).logits
    error = np.sqrt(np.mean((fast(IDS).logits - expected) ** 2) / np.mean(expected**2))
    assert error < {"F32": 1e-5, "F16": 1e-2}.get(kind, 0.05)


def test_a_mixed_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As llama.cpp's quantizer makes them: most in Q4_0, the head in Q5_1, an embedding in Q8_0."""
    rng = np.random.default_rng(4)
    tensors = [*model_tensors(kind="Q4_0")[1:], info("output.weight", random_matrix(rng, (VOCAB, 64), "Q5_1"), "Q5_1"),
               info("token_embd.weight", random_matrix(rng, (VOCAB, 64), "Q8_0"), "Q8_0")]  # fmt: skip
    file = write(tmp_path, tensors=tensors)
    with caplog.at_level(logging.WARNING):
        fast = LlamaForCausalLM.from_pretrained(file, engine="numba", threads=1)
    assert fast.form == "q4_0"
    assert caplog.messages == []
    expected = LlamaForCausalLM.from_pretrained(file, engine="numpy")(IDS).logits
    error = np.sqrt(np.mean((fast(IDS).logits - expected) ** 2) / np.mean(expected**2))
    assert error < 0.05  # as above


def test_biases_of_some_projections_and_some_layers(tmp_path: Path) -> None:
    """llama.cpp adds what is there; zero is added elsewhere."""
    rng = np.random.default_rng(6)
    biases = {"blk.0.attn_q.bias": 96, "blk.0.attn_v.bias": 48, "blk.1.attn_v.bias": 48, "blk.1.ffn_down.bias": 64}
    given = [info(name, rng.normal(size=size).astype(np.float32)) for name, size in biases.items()]
    opened = open_checkpoint(write(tmp_path, tensors=[*model_tensors(), *given]))
    assert (opened.config.attention_bias, opened.config.mlp_bias) == (True, True)
    assert opened.tensors.keys() == names.expected_shapes(opened.config).keys()
    for name, shape in names.expected_shapes(opened.config).items():
        if name.endswith(".bias"):
            tensor = opened.tensors[name].read(np.float32)
            assert tensor.shape == shape
            assert tensor.any() == (gguf_name(name) in biases)


def test_config_and_overrides_given(tmp_path: Path) -> None:
    file = write(tmp_path)
    assert open_checkpoint(file, overrides={"rope_theta": 2e4}).config.rope_theta == 2e4
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 99}')  # is not of this file
    assert open_checkpoint(file).config.hidden_size == 64
    assert open_checkpoint(tmp_path).config.hidden_size == 64


def test_folders(tmp_path: Path) -> None:
    file = write(tmp_path)
    assert open_checkpoint(tmp_path).folder == tmp_path
    file.rename(tmp_path / "a.gguf")
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has 2 \.gguf files: name one of them"):
        open_checkpoint(tmp_path)


def without(*gone: str) -> list[Info]:
    return [tensor for tensor in model_tensors() if tensor.name not in gone]


def replaced(name: str, tensor: Info) -> list[Info]:
    return [tensor if one.name == name else one for one in model_tensors()]


L = "llama."
REFUSED: dict[str, tuple[dict[str, Any], list[Info] | None, str]] = {
    "no architecture": ({"general.architecture": None}, None, "metadata have no general.architecture"),
    "another architecture": ({"general.architecture": "gemma3"}, None, "the architecture 'gemma3', and"),
    "an architecture of a number": ({"general.architecture": 3}, None, "architecture must be of type str, not 3"),
    "no sizes": ({f"{L}embedding_length": None}, None, "have no llama.embedding_length"),
    "no layers": ({f"{L}block_count": None}, None, "have no llama.block_count"),
    "no context": ({f"{L}context_length": None}, None, "have no llama.context_length"),
    "no epsilon": ({f"{L}attention.layer_norm_rms_epsilon": None}, None, "have no llama.attention.layer_norm_rms"),
    "a size of a text": ({f"{L}block_count": "2"}, None, "block_count must be of type int"),
    "a size of 0": ({f"{L}attention.head_count": 0}, None, "attention.head_count is 0"),
    "2^32 - 1 layers": ({f"{L}block_count": 2**32 - 1}, None, "block_count is 4294967295"),
    "2^30 layers": ({f"{L}block_count": 2**30}, None, "config says 1073741824 layers and it has"),
    "3 layers": ({f"{L}block_count": 3}, None, "9 missing: model.layers.2.input_layernorm.weight"),
    "1 layer": ({f"{L}block_count": 1}, None, "9 unexpected: model.layers.1."),
    "other heads": ({f"{L}attention.head_count": 8}, None, "attn_q.weight has 96 rows, and its metadata say 8 heads"),
    "heads that do not divide": ({f"{L}attention.head_count_kv": 3}, None, "not a multiple of num_key_value_heads 3"),
    "two widths of heads": ({f"{L}attention.value_length": 12}, None, "value_length is 12 and its heads are 24 wide"),
    "half a rotation": ({f"{L}rope.dimension_count": 12}, None, "rope.dimension_count is 12 and its heads are 24"),
    "an epsilon of 0": ({f"{L}attention.layer_norm_rms_epsilon": 0.0}, None, "rms_norm_eps must be a number above 0"),
    "an epsilon of nan": ({f"{L}attention.layer_norm_rms_epsilon": float("nan")}, None, "rms_norm_eps must be a"),
    "a theta of -1": ({f"{L}rope.freq_base": -1.0}, None, "rope.freq_base is -1.0, which must be above 0 and finite"),
    "a theta of nan": ({f"{L}rope.freq_base": float("nan")}, None, "rope.freq_base is nan, which must be above 0"),
    "a theta of 0, with rotary factors": (
        {f"{L}rope.freq_base": 0.0}, [*model_tensors(), info("rope_freqs.weight", np.full(12, 2, np.float32))],
        "rope.freq_base is 0.0, which must be above 0 and finite"),
    "another vocabulary": ({f"{L}vocab_size": 41}, None, r"embed_tokens.weight \(40, 64\) instead of \(41, 64\)"),
    "experts": ({f"{L}expert_count": 8}, None, "a mixture of experts"),
    "one of several": ({"split.count": 3}, None, "it is the first of 3 parts of a model, and its name does not"),
    "a scaling by a negative factor": ({f"{L}rope.scaling.factor": -4.0}, None, "factor is -4.0, which must be above"),
    "yarn that shortens": (
        {f"{L}rope.scaling.type": "yarn", f"{L}rope.scaling.factor": 0.5}, None, "factor must be a number 1 or above"),
    "an end of a text": ({"tokenizer.ggml.eos_token_id": "2"}, None, "eos_token_id must be of type int"),
    "no tensors": ({}, [], "no tensor token_embd.weight: it holds no whole model"),
    "no norm": ({}, without("output_norm.weight"), "1 missing: model.norm.weight"),
    "no q": ({}, without("blk.1.attn_q.weight"), "1 missing: model.layers.1.self_attn.q_proj.weight"),
    "a tensor more": ({}, [*model_tensors(), info("blk.0.x", np.ones(2, np.float32))], "1 unexpected: blk.0.x"),
    "an odd layer": ({}, [*model_tensors(), info("blk.01.attn_q.weight", np.ones((96, 64), np.float32))], "blk.01."),
    "a norm of two": (
        {}, replaced("output_norm.weight", info("output_norm.weight", np.ones(2, np.float32))), r"norm.weight \(2,\)"),
    "an embedding that is no matrix": (
        {}, replaced("token_embd.weight", info("token_embd.weight", np.ones(64, np.float32))), "instead of"),
    "a bias of q in blocks": (
        {}, [*model_tensors(), Info("blk.0.attn_q.bias", (96,), KINDS["Q8_0"], bytes(3 * 34))],
        "attn_q.bias is in Q8_0, whose blocks"),
    "rotary factors of another width": (
        {}, [*model_tensors(), info("rope_freqs.weight", np.ones(11, np.float32))], "must be 12 numbers in F32"),
    "rotary factors in float16": (
        {}, [*model_tensors(), info("rope_freqs.weight", np.ones(12, np.float16), "F16")], "must be 12 numbers in F32"),
    "rotary factors of nan": (
        {}, [*model_tensors(), info("rope_freqs.weight", np.full(12, np.nan, np.float32))], "not above 0 and finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_files_of_no_llama_are_refused(name: str, tmp_path: Path) -> None:
    metadata, tensors, words = REFUSED[name]
    file = write(tmp_path, metadata, tensors)
    with pytest.raises(ValueError, match=words) as caught:
        open_checkpoint(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_rotary_factors_become_a_scaling(tmp_path: Path) -> None:
    inv_freq = 1e4 ** -(np.arange(0, 24, 2) / 24)
    turns = 256 * inv_freq / (2 * np.pi)
    keep = np.clip((turns - 1) / 3, 0, 1)
    factors = (1 / (keep + (1 - keep) / 32)).astype(np.float32)
    opened = open_checkpoint(write(tmp_path, tensors=[*model_tensors(), info("rope_freqs.weight", factors)]))
    assert opened.config.rope_scaling == {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }  # fmt: skip
