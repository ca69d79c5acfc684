"""config.json files that make no model, or another one than the weights are."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from minillama.config import LlamaConfig
from tests.bad import Capture, assert_refused, assert_runs, checkpoint

LINEAR: dict[str, Any] = {"type": "linear", "factor": 2.0}
YARN: dict[str, Any] = {"type": "yarn", "factor": 2.0}
LONGROPE: dict[str, Any] = {"type": "longrope", "short_factor": [1.0, 1.0], "long_factor": [1.0, 2.0]}

# What is written into a sound config.json -> what is said of it
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "heads do not divide hidden": (
        {"num_attention_heads": 3},
        "hidden_size 16 is not a multiple of num_attention_heads 3",
    ),
    "kv heads do not divide heads": (
        {"num_key_value_heads": 3},
        "num_attention_heads 4 is not a multiple of num_key_v",
    ),
    "more kv heads than heads": (
        {"num_key_value_heads": 8},
        "num_attention_heads 4 is not a multiple of num_key_value",
    ),
    "0 kv heads": ({"num_key_value_heads": 0}, "num_key_value_heads must be at least 1, not 0"),
    "0 heads": ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, not 0"),
    "0 layers": ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, not 0"),
    "odd head_dim": ({"hidden_size": 12}, "head_dim must be even, not 3"),
    "odd head_dim, stated": ({"head_dim": 5}, "head_dim must be even, not 5"),
    "head_dim 0": ({"head_dim": 0}, "head_dim must be at least 1, not 0"),
    "eps 0": ({"rms_norm_eps": 0}, "rms_norm_eps must be a number above 0, not 0"),
    "eps -1": ({"rms_norm_eps": -1.0}, "rms_norm_eps must be a number above 0, not -1.0"),
    "eps NaN": ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a number above 0, not nan"),
    "eps infinite": ({"rms_norm_eps": float("inf")}, "rms_norm_eps must be a number above 0, not inf"),
    "eps text": ({"rms_norm_eps": "1e-5"}, "rms_norm_eps must be a number above 0, not '1e-5'"),
    "eps null": ({"rms_norm_eps": None}, "rms_norm_eps must be a number above 0, not None"),
    "theta 0": ({"rope_theta": 0}, "rope_theta must be a number above 0, not 0"),
    "theta -1": ({"rope_theta": -1}, "rope_theta must be a number above 0, not -1"),
    "theta NaN": ({"rope_theta": float("nan")}, "rope_theta must be a number above 0, not nan"),
    "theta of 400 digits": ({"rope_theta": 10**400}, "rope_theta must be a number above 0, not 1000"),
    "theta true": ({"rope_theta": True}, "rope_theta must be a number above 0, not True"),
    "factor 1": (
        {"rope_scaling": LINEAR | {"factor": 1}},
        "rope_scaling factor must be a number above 1 and below 2^31, not 1",
    ),
    "factor 0.5": (
        {"rope_scaling": LINEAR | {"factor": 0.5}},
        "rope_scaling factor must be a number above 1 and below 2^31, not 0.5",
    ),
    "factor -2": (
        {"rope_scaling": LINEAR | {"factor": -2}},
        "rope_scaling factor must be a number above 1 and below 2^31, not -2",
    ),
    "factor NaN": (
        {"rope_scaling": LINEAR | {"factor": float("nan")}},
        "factor must be a number above 1 and below 2^31, not nan",
    ),
    "factor infinite": (
        {"rope_scaling": LINEAR | {"factor": float("inf")}},
        "factor must be a number above 1 and below 2^31, not inf",
    ),
    "factor 1e308": ({"rope_scaling": LINEAR | {"factor": 1e308}}, "factor must be a number above 1"),
    "factor text": (
        {"rope_scaling": LINEAR | {"factor": "2"}},
        "rope_scaling factor must be a number above 1 and below 2^31, not '2'",
    ),
    "factor absent": ({"rope_scaling": {"type": "dynamic"}}, "rope_scaling of type dynamic needs 'factor'"),
    "unknown rope type": ({"rope_scaling": LINEAR | {"type": "magic"}}, "rope_scaling has the unknown type 'magic'"),
    "rope type a list": ({"rope_scaling": LINEAR | {"type": []}}, "rope_scaling has the unknown type []"),
    "rope_scaling text": ({"rope_scaling": "linear"}, "rope_scaling must be a dictionary or null, not 'linear'"),
    "rope_parameters a list": ({"rope_parameters": [1]}, "rope_parameters must be a dictionary, not [1]"),
    "longrope too short": (
        {"rope_scaling": LONGROPE | {"short_factor": [1.0]}},
        "rope_scaling short_factor must have head_dim / 2 = 2 numbers, not 1",
    ),
    "longrope of a context of 1": (
        {"rope_scaling": LONGROPE | {"original_max_position_embeddings": 1}},
        "rope_scaling of type longrope needs original_max_position_embeddings above 1",
    ),
    "yarn theta 1": ({"rope_scaling": YARN, "rope_theta": 1}, "type yarn needs another rope_theta than 1"),
    "yarn beta 1e300": ({"rope_scaling": YARN | {"beta_fast": 1e300}}, "beta_fast must be between 1e-6 and 1e6, not"),
    "yarn beta 1e-300": ({"rope_scaling": YARN | {"beta_slow": 1e-300}}, "beta_slow must be between 1e-6 and 1e6"),
    "llama3 factors the wrong way": (
        {"rope_scaling": YARN | {"type": "llama3", "low_freq_factor": 4, "high_freq_factor": 1}},
        "rope_scaling needs 0 < low_freq_factor < high_freq_factor, not 4 and 1",
    ),
    "trained context a list": (
        {"original_max_position_embeddings": [8]},
        "original_max_position_embeddings must be a whole number above 0 and below 2^31, not [8]",
    ),
    "trained context 0, inside": (
        {"rope_scaling": YARN | {"original_max_position_embeddings": 0}},
        "original_max_position_embeddings must be a whole number above 0 and below 2^31, not 0",
    ),
    "vocab -1": ({"vocab_size": -1}, "vocab_size must be at least 1, not -1"),
    "vocab text": ({"vocab_size": "4096"}, "vocab_size must be a whole number, not '4096'"),
    "hidden text": ({"hidden_size": "16"}, "hidden_size must be a whole number, not '16'"),
    "heads text": ({"num_attention_heads": "4"}, "num_attention_heads must be a whole number, not '4'"),
    "layers fractional": ({"num_hidden_layers": 2.0}, "num_hidden_layers must be a whole number, not 2.0"),
    "layers true": ({"num_hidden_layers": True}, "num_hidden_layers must be a whole number, not True"),
    "context null": ({"max_position_embeddings": None}, "max_position_embeddings must be a whole number, not None"),
    "context of 400 digits": ({"max_position_embeddings": 10**400}, "max_position_embeddings must be below 2^31"),
    "tie text": ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false, not 'yes'"),
    "eos text": ({"eos_token_id": ["</s>"]}, "eos_token_id must be a whole number, a list of them or null"),
    "hidden_act number": ({"hidden_act": 3}, "hidden_act must be a name or a function, not 3"),
    "labels a list": ({"id2label": ["a", "b"]}, "id2label must map numbers to names"),
    "labels not numbered": ({"id2label": {"first": "a"}}, "id2label must map numbers to names"),
    "label numbers a list": ({"label2id": ["a"]}, "label2id must map names to numbers"),
    "deviation -1": ({"initializer_range": -1}, "initializer_range must be a number of 0 or above, not -1"),
    "another model": ({"model_type": "gpt2"}, "model_type is 'gpt2', and minillama reads only LLaMA"),
}

# Sound by itself, and not what the tensors are
DISAGREES: dict[str, tuple[dict[str, Any], str]] = {
    "wider": (
        {"intermediate_size": 32},
        "of another shape than the config says: model.layers.0.mlp.gate_proj.weight (24, 16) instead of (32, 16)",
    ),
    "larger vocabulary": ({"vocab_size": 5000}, "model.embed_tokens.weight (4096, 16) instead of (5000, 16)"),
    "more layers": ({"num_hidden_layers": 3}, "9 missing: model.layers.2.input_layernorm.weight"),
    "fewer layers": ({"num_hidden_layers": 1}, "9 unexpected: model.layers.1."),
    "10^9 layers": ({"num_hidden_layers": 10**9}, "1000000000 layers"),
    "other heads": ({"num_key_value_heads": 4}, "model.layers.0.self_attn.k_proj.weight (8, 16) instead of (16, 16)"),
    "untied": ({"tie_word_embeddings": False}, "1 missing: lm_head.weight"),
    "biases": ({"attention_bias": True}, "8 missing: model.layers.0.self_attn.q_proj.bias"),
}

NO_JSON = {
    "empty": b"",
    "cut": b'{"vocab_size": 4096',
    "single quotes": b"{'vocab_size': 4096}",
    "a list": b"[1, 2]",
    "null": b"null",
    "a number of 5000 digits": b'{"vocab_size": ' + b"9" * 5000 + b"}",
    "nested without end": b'{"a":' * 100_000,
}


def rewrite(folder: Path, changes: dict[str, Any]) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return file


@pytest.mark.parametrize("case", BAD)
def test_bad_config(case: str, tmp_path: Path, capfd: Capture) -> None:
    changes, words = BAD[case]
    file = rewrite(checkpoint(tmp_path), changes)
    assert_refused(capfd, ["--weights", tmp_path], file, words)


def test_an_unknown_hidden_act(tmp_path: Path, capfd: Capture) -> None:
    checkpoint(tmp_path, hidden_act="sinus")
    assert_refused(capfd, ["--weights", tmp_path], "hidden_act 'sinus' is unknown: use one of silu")


@pytest.mark.parametrize("case", DISAGREES)
def test_config_that_disagrees_with_the_tensors(case: str, tmp_path: Path, capfd: Capture) -> None:
    changes, words = DISAGREES[case]
    rewrite(checkpoint(tmp_path), changes)
    assert_refused(capfd, ["--weights", tmp_path], tmp_path / "model.safetensors", words, "config.json", "--config")


@pytest.mark.parametrize("case", NO_JSON)
def test_config_that_is_not_json(case: str, tmp_path: Path, capfd: Capture) -> None:
    file = checkpoint(tmp_path) / "config.json"
    file.write_bytes(NO_JSON[case])
    assert_refused(capfd, ["--weights", tmp_path], file, "JSON", "a LLaMA configuration is expected there")


def test_config_that_is_not_text(tmp_path: Path, capfd: Capture) -> None:
    file = checkpoint(tmp_path) / "config.json"
    file.write_bytes(b"\xff\xfe{\x00")
    assert_refused(capfd, ["--weights", tmp_path], file, "is not UTF-8 text")


def test_config_that_is_a_folder(tmp_path: Path, capfd: Capture) -> None:
    file = checkpoint(tmp_path) / "config.json"
    file.unlink()
    file.mkdir()
    assert_refused(capfd, ["--weights", tmp_path], file, "is missing: a LLaMA configuration is expected")


def test_config_that_is_named_and_missing(tmp_path: Path, capfd: Capture) -> None:
    absent = checkpoint(tmp_path / "model") / "other.json"
    assert_refused(capfd, ["--weights", tmp_path / "model", "--config", absent], absent, "is missing")


def test_a_config_elsewhere_does_for_a_bare_file(tmp_path: Path, capfd: Capture) -> None:
    file = checkpoint(tmp_path / "model") / "model.safetensors"
    elsewhere = (tmp_path / "model" / "config.json").rename(tmp_path / "settings.json")
    assert assert_runs(capfd, ["--weights", file, "--config", elsewhere, "--max-new-tokens", 2])


def test_a_byte_order_mark(tmp_path: Path, capfd: Capture) -> None:
    file = checkpoint(tmp_path) / "config.json"
    plain = assert_runs(capfd, ["--weights", tmp_path, "--max-new-tokens", 4])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert assert_runs(capfd, ["--weights", tmp_path, "--max-new-tokens", 4]) == plain


@pytest.mark.parametrize("reason", ["No space left on device", "Read-only file system"])
def test_a_config_that_cannot_be_saved_leaves_the_old_one(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(descriptor: int) -> None:
        os.truncate(descriptor, 10)
        raise OSError(28, reason)

    old = LlamaConfig(hidden_size=64)
    old.save_pretrained(tmp_path)
    monkeypatch.setattr(os, "fsync", half_written)
    with pytest.raises(OSError, match=reason) as failure:
        LlamaConfig(hidden_size=128).save_pretrained(tmp_path)
    assert str(failure.value) == f"{tmp_path / 'config.json'} cannot be written: {reason}"
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    assert LlamaConfig.from_pretrained(tmp_path) == old


def test_a_config_saved_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(OSError, match=r"config\.json cannot be written: "):
        LlamaConfig().save_pretrained(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"
