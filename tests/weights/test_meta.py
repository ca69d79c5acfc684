"""Meta's own checkpoints: parts put together, names and rotary layout changed, params.json read."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from minillama.shipped import tale_model
from minillama.weights import open_checkpoint
from minillama.weights.drawn import DrawnTensor
from minillama.weights.formats import narrow_bfloat16, widen
from minillama.weights.meta_config import config_from_params
from tests.bad import CONFIG as BAD_CONFIG
from tests.bad import Capture, assert_refused, assert_runs, checkpoint, random_tensors
from tests.tiny import assert_close, random_ids, random_weights, tiny_config
from tests.weights.meta_files import cut, meta_weights, params_of, write_meta
from tests.weights.torch_files import torch_save

# 96 rows of w1, 32 of the vocabulary, 8 heads of 4: all can be cut into 8
SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 4,
}
MHA, GQA = tiny_config(**SIZES), tiny_config(**SIZES | {"num_key_value_heads": 4})
WEIGHTS = {8: random_weights(MHA, 70), 4: random_weights(GQA, 71)}
SHAPE = {"multiple_of": 96}


def same_weights(path: Path, weights: dict[str, Array], **how: Any) -> Any:
    """Every tensor has the numbers, whole, by rows and as stored; the config."""
    opened = open_checkpoint(path, **how)
    assert opened.tensors.keys() == weights.keys()
    for name, tensor in opened.tensors.items():
        expected = widen(weights[name], tensor.dtype, np.float32)
        assert tensor.shape == expected.shape
        np.testing.assert_array_equal(tensor.stored(), weights[name])
        np.testing.assert_array_equal(tensor.read(np.float32), expected)
        if tensor.shape[1:]:
            rows = np.array([[tensor.shape[0] - 1, 0, 3], [9, 9, 4]]) % tensor.shape[0]
            np.testing.assert_array_equal(tensor.read(np.float64, rows), expected[rows])
    return opened.config


@pytest.mark.parametrize("llama3", [False, True])
@pytest.mark.parametrize("shards", [1, 2, 4, 8])
@pytest.mark.parametrize("config", [MHA, GQA], ids=["mha", "gqa"])
def test_parts_are_put_together(config: Any, shards: int, llama3: bool, tmp_path: Path) -> None:
    weights = WEIGHTS[config.num_key_value_heads]
    if shards == 8 and config is GQA:  # each head of keys and values is in two parts
        parts = cut(meta_weights(weights, config), 8, llama3)
        whole = meta_weights(weights, config)
        for number, part in enumerate(parts):
            for i in range(2):
                for name in (f"layers.{i}.attention.wk.weight", f"layers.{i}.attention.wv.weight"):
                    part[name] = whole[name][number // 2 * 4 :][:4].copy()
            torch_save(part, tmp_path / f"consolidated.{number:02}.pth")
        (tmp_path / "params.json").write_text(json.dumps(params_of(config, **SHAPE)))
    else:
        write_meta(tmp_path, weights, config, shards, llama3, **SHAPE)
    read = same_weights(tmp_path, weights)
    for field in SIZES:
        assert getattr(read, field) == getattr(config, field)
    assert read.torch_dtype == "float32"


@pytest.mark.parametrize("by", ["folder", "consolidated.00.pth", "consolidated.03.pth"])
def test_any_part_stands_for_all(by: str, tmp_path: Path) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 4, **SHAPE)
    same_weights(tmp_path if by == "folder" else tmp_path / by, WEIGHTS[4])


def test_parts_are_sorted_as_numbers(tmp_path: Path) -> None:
    """Sixteen parts named 0, 1 ... 15, which as texts would be sorted 0, 1, 10, 11 ..."""
    config = tiny_config(**SIZES | {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 2})
    weights = random_weights(config, 72)
    write_meta(tmp_path, weights, config, 16, **SHAPE)
    for number in range(10):
        (tmp_path / f"consolidated.{number:02}.pth").rename(tmp_path / f"consolidated.{number}.pth")
    same_weights(tmp_path, weights)


def test_the_logits_are_those_of_the_model(tmp_path: Path) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 2, **SHAPE)
    ours = LlamaForCausalLM.from_pretrained(tmp_path, dtype="float64")(random_ids(61, 1, 5) % 32).logits
    assert_close(ours, LlamaForCausalLM(GQA, WEIGHTS[4], dtype="float64")(random_ids(61, 1, 5) % 32).logits)


def test_bfloat16(tmp_path: Path) -> None:
    weights = {name: narrow_bfloat16(array) for name, array in WEIGHTS[8].items()}
    config = same_weights(write_meta(tmp_path, weights, MHA, 2, **SHAPE), weights)
    assert config.torch_dtype == "bfloat16"


def test_frequencies_are_left_out(tmp_path: Path) -> None:
    parts = cut(meta_weights(WEIGHTS[8], MHA), 2)
    for number, part in enumerate(parts):
        extra = {
            "rope.freqs": np.ones(2, np.float32),
            "layers.0.attention.inner_attention.rope.freqs": np.ones(2, "f4"),
        }
        torch_save(part | extra, tmp_path / f"consolidated.{number:02}.pth")
    (tmp_path / "params.json").write_text(json.dumps(params_of(MHA, **SHAPE)))
    same_weights(tmp_path, WEIGHTS[8])


def test_safetensors_with_these_names(tmp_path: Path) -> None:
    for number, part in enumerate(cut(meta_weights(WEIGHTS[8], MHA), 2)):
        save_file(part, tmp_path / f"consolidated.{number:02}.safetensors")
    (tmp_path / "params.json").write_text(json.dumps(params_of(MHA, **SHAPE)))
    same_weights(tmp_path, WEIGHTS[8])


def test_a_config_json_beside_or_given(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(meta_weights(WEIGHTS[4], GQA), file)
    same_weights(file, WEIGHTS[4], config=GQA)
    GQA.save_pretrained(tmp_path)
    assert same_weights(file, WEIGHTS[4]) == GQA


def test_the_config_given_comes_before_params_json(tmp_path: Path) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 2, **SHAPE, n_heads=16)
    GQA.save_pretrained(tmp_path / "other")
    assert same_weights(tmp_path, WEIGHTS[4], config=tmp_path / "other") == GQA


def test_shapes_tell_when_there_is_no_config(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    freqs = (1e4 ** -(np.arange(0, 4, 2) / 4)).astype(np.float32)
    torch_save(meta_weights(WEIGHTS[4], GQA) | {"rope.freqs": freqs}, tmp_path / "consolidated.00.pth")
    with caplog.at_level(logging.WARNING, "minillama"):
        config = same_weights(tmp_path, WEIGHTS[4])
    assert (config.head_dim, config.rope_theta) == (4, 1e4)
    assert "no params.json beside it" in caplog.text


# -- params.json --------------------------------------------------------------------------------------------------


def config_of(folder: Path, **params: Any) -> Any:
    return open_checkpoint(write_meta(folder, WEIGHTS[4], GQA, **SHAPE | params)).config


def test_a_params_json_of_each_generation(tmp_path: Path) -> None:
    first = config_of(tmp_path, norm_eps=1e-6)
    assert (first.max_position_embeddings, first.rms_norm_eps, first.rope_theta) == (2048, 1e-6, 1e4)
    assert (first.bos_token_id, first.eos_token_id, first.vocab_size) == (1, 2, 32)
    second = config_of(tmp_path, norm_eps=1e-5)
    assert (second.max_position_embeddings, second.rope_scaling) == (4096, None)
    assert config_of(tmp_path, rope_theta=1e6).max_position_embeddings == 16384
    assert config_of(tmp_path, rope_theta=500000.0, vocab_size=32).max_position_embeddings == 8192
    later = config_of(tmp_path, rope_theta=500000.0, use_scaled_rope=True)
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert later.rope_scaling == scaling | {"original_max_position_embeddings": 8192}
    assert later.max_position_embeddings == 131072
    small = config_of(tmp_path, rope_theta=500000.0, use_scaled_rope=True, rope_scaling_factor=32)
    assert small.rope_scaling["factor"] == 32
    assert config_of(tmp_path, max_seq_len=77).max_position_embeddings == 77
    assert not config_of(tmp_path).tie_word_embeddings


# As in the config.json that Hugging Face publishes for each
PUBLISHED = [
    (4096, 256, None, 11008),  # 7B
    (5120, 256, None, 13824),  # 13B
    (6656, 256, None, 17920),  # 33B
    (8192, 256, None, 22016),  # 65B, CodeLlama 34B
    (8192, 4096, 1.3, 28672),  # Llama 2 70B
    (4096, 1024, 1.3, 14336),  # Llama 3 8B
    (2048, 256, 1.5, 8192),  # Llama 3.2 1B
    (3072, 256, 1.0, 8192),  # Llama 3.2 3B
    (16384, 4096, 1.2, 53248),  # Llama 3.1 405B
]


@pytest.mark.parametrize(("dim", "multiple_of", "multiplier", "expected"), PUBLISHED)
def test_the_intermediate_size_of_published_models(
    dim: int, multiple_of: int, multiplier: float | None, expected: int
) -> None:
    params = {"dim": dim, "n_layers": 1, "n_heads": 32, "multiple_of": multiple_of, "vocab_size": 32000}
    params |= {} if multiplier is None else {"ffn_dim_multiplier": multiplier}
    assert config_from_params(Path("params.json"), params, {}).intermediate_size == expected


@pytest.mark.parametrize(("dim", "layers", "heads", "multiplier"), [(2048, 16, 32, 1.5), (3072, 28, 24, 1.0)])
def test_llama_3_2_is_known_by_its_shapes(dim: int, layers: int, heads: int, multiplier: float) -> None:
    """Its params.json has no factor, which is 32, unlike that of Llama 3.1."""
    params = {"dim": dim, "n_layers": layers, "n_heads": heads, "n_kv_heads": 8, "ffn_dim_multiplier": multiplier}
    params |= {"multiple_of": 256, "rope_theta": 5e5, "use_scaled_rope": True, "vocab_size": 128256}
    k_proj = DrawnTensor((8 * dim // heads, dim), 1, [0])
    config = config_from_params(Path("params.json"), params, {"model.layers.0.self_attn.k_proj.weight": k_proj})
    assert config.rope_scaling is not None
    assert config.rope_scaling["factor"] == 32
    assert config.tie_word_embeddings
    assert (config.bos_token_id, config.eos_token_id) == (128000, 128001)


MISTRAL = tiny_config(hidden_size=40, intermediate_size=52, num_attention_heads=4, num_key_value_heads=2, head_dim=6)
MISTRAL_PARAMS = {"dim": 40, "n_layers": 2, "head_dim": 6, "hidden_dim": 52, "n_heads": 4, "n_kv_heads": 2,
                  "norm_eps": 1e-5, "vocab_size": 37}  # fmt: skip


def write_mistral(folder: Path, **params: Any) -> dict[str, Array]:
    """A folder as Mistral publishes one: params.json and consolidated.safetensors; the weights."""
    weights = random_weights(MISTRAL, 72)
    save_file(meta_weights(weights, MISTRAL), folder / "consolidated.safetensors")
    (folder / "params.json").write_text(json.dumps(MISTRAL_PARAMS | params))
    return weights


def test_mistral_s_own_files(tmp_path: Path) -> None:
    """hidden_dim is the intermediate size, and head_dim is not dim / n_heads; Meta's formula would give 256."""
    weights = write_mistral(tmp_path, rope_theta=1e6)
    config = same_weights(tmp_path, weights)
    assert (config.intermediate_size, config.head_dim, config.rope_theta) == (52, 6, 1e6)
    assert (config.max_position_embeddings, config.bos_token_id, config.eos_token_id) == (32768, 1, 2)
    ids = random_ids(5, 1, 9)
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype="float64", engine="numpy")
    theirs = LlamaForCausalLM(tiny_config(**MISTRAL.to_dict() | {"rope_theta": 1e6}), weights, dtype="float64")
    assert_close(model(ids).logits, theirs(ids).logits)


def test_what_mistral_s_params_leave_open(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mistral(tmp_path)
    assert open_checkpoint(tmp_path).config.rope_theta == 1e6
    write_mistral(tmp_path, max_position_embeddings=128, sliding_window=None, model_type="transformer")
    assert open_checkpoint(tmp_path).config.max_position_embeddings == 128
    write_mistral(tmp_path, max_seq_len=77, sliding_window=77, causal=True, moe=None)
    assert open_checkpoint(tmp_path).config.max_position_embeddings == 77
    assert not caplog.messages
    for window in (4096, [None, 4096, 8192]):
        write_mistral(tmp_path, sliding_window=window)
        config = open_checkpoint(tmp_path).config
        assert (config.rope_theta, config.max_position_embeddings) == (1e4, 4096)
    assert "it attends to 4096 tokens back, and texts are kept to so many" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("moe", {"num_experts": 8, "num_experts_per_tok": 2}),  # of Mistral; the next ones of Meta
        ("moe_args", {"num_experts": 16}),
        ("quantization_args", {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32}),
        ("quantization", {"qformat_weight": "fp8_e4m3"}),
        ("vision_encoder", {"hidden_size": 1024}),
        ("yarn", {"factor": 16}),
        ("use_qk_norm", True),
        ("causal", False),
        ("model_type", "mamba"),
    ],
)
def test_fields_that_no_llama_has(field: str, value: Any, tmp_path: Path, capfd: Capture) -> None:
    write_mistral(tmp_path, **{field: value})
    assert_refused(
        capfd, ["--weights", tmp_path], tmp_path / "params.json", field, "get the model as Hugging Face keeps"
    )


BAD_PARAMS: dict[str, tuple[dict[str, Any], str]] = {
    "no dim": ({"dim": None}, "dim must be a whole number of at least 1, not None"),
    "text": ({"n_layers": "2"}, "n_layers must be a whole number of at least 1, not '2'"),
    "true": ({"n_heads": True}, "n_heads must be a whole number of at least 1, not True"),
    "zero heads": ({"n_heads": 0}, "n_heads must be a whole number of at least 1, not 0"),
    "zero kv heads": ({"n_kv_heads": 0}, "n_kv_heads must be a whole number of at least 1, not 0"),
    "kv heads that do not divide": ({"n_kv_heads": 3}, "num_key_value_heads"),
    "NaN": ({"norm_eps": float("nan")}, "norm_eps must be a number of at least 0, not nan"),
    "infinite theta": ({"rope_theta": float("inf")}, "rope_theta must be a number of at least 0, not inf"),
    "theta 0": ({"rope_theta": 0}, "rope_theta"),
    "multiple of 0": ({"multiple_of": 0}, "multiple_of must be a whole number of at least 1, not 0"),
    "huge dim": ({"dim": 10**400}, "dim must be a whole number of at least 1, not 1000"),
    "vocab 0": ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1, not 0"),
    "vocab of another model": ({"vocab_size": 33}, "of another shape than the config says"),
    "layers of another model": ({"n_layers": 3}, "missing"),
    "a billion layers": ({"n_layers": 10**9}, "its config says 1000000000 layers"),
    "intermediate size of another model": ({"multiple_of": 7}, "of another shape than the config says"),
    "heads that do not divide": ({"n_heads": 5, "n_kv_heads": 5}, "hidden_size 32 is not a multiple of"),
    "high frequencies below low": ({"use_scaled_rope": True, "rope_high_freq_factor": 0.5}, "high_freq_factor"),
    "hidden_dim of another model": ({"hidden_dim": 95}, "use the params.json that belongs to these weights"),
    "a window of 0": ({"sliding_window": 0}, "sliding_window must be whole numbers above 0, not 0"),
    "a head_dim of text": ({"head_dim": "4"}, "head_dim must be a whole number of at least 1, not '4'"),
    "a list": ({"dim": [32]}, "dim must be a whole number of at least 1, not [32]"),
}


@pytest.mark.parametrize("case", BAD_PARAMS)
def test_bad_params(case: str, tmp_path: Path, capfd: Capture) -> None:
    params, words = BAD_PARAMS[case]
    write_meta(tmp_path, WEIGHTS[4], GQA, **SHAPE | params)
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, words)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_params_that_are_no_json_object(text: str, tmp_path: Path, capfd: Capture) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, **SHAPE)
    (tmp_path / "params.json").write_text(text)
    assert_refused(capfd, ["--weights", tmp_path], tmp_path / "params.json", "JSON", "Meta's settings of a model")


# -- parts that do not belong together ----------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_three_of_four_parts(missing: int, tmp_path: Path, capfd: Capture) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 4, **SHAPE)
    (tmp_path / f"consolidated.{missing:02}.pth").unlink()
    assert_refused(
        capfd,
        ["--weights", tmp_path],
        tmp_path,
        f"has 3 of 4 parts of the model: get consolidated.{missing:02}.pth too",
    )


def test_a_part_under_another_name(tmp_path: Path, capfd: Capture) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 2, **SHAPE)
    (tmp_path / "consolidated.01.pth").unlink()
    (tmp_path / "consolidated.00.pth").rename(tmp_path / "half.pth")
    assert_refused(capfd, ["--weights", tmp_path], "has 1 of 2 parts", "call half.pth consolidated.NN.pth")


def test_one_part_too_many(tmp_path: Path, capfd: Capture) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 4, **SHAPE)
    shutil.copyfile(tmp_path / "consolidated.03.pth", tmp_path / "consolidated.04.pth")
    assert_refused(
        capfd, ["--weights", tmp_path], tmp_path, "has 5 consolidated files, and consolidated.00.pth is one of 4"
    )


@pytest.mark.parametrize("other", ["consolidated.1.pth", "consolidated.9999.pth"])
def test_numbers_that_cannot_be(other: str, tmp_path: Path, capfd: Capture) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 2, **SHAPE)
    shutil.copyfile(tmp_path / "consolidated.01.pth", tmp_path / other)
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, "leave the files of one model there")


def test_parts_with_other_tensors(tmp_path: Path, capfd: Capture) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 2, **SHAPE)
    part = cut(meta_weights(WEIGHTS[4], GQA), 2)[1]
    del part["layers.1.attention.wk.weight"]
    torch_save(part, tmp_path / "consolidated.01.pth")
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, "have not the same tensors (layers.1.attention.wk.weight)")


@pytest.mark.parametrize("how", ["shape", "dtype"])
def test_parts_with_tensors_of_other_shapes(how: str, tmp_path: Path, capfd: Capture) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 2, **SHAPE)
    part, name = cut(meta_weights(WEIGHTS[4], GQA), 2)[1], "layers.1.attention.wk.weight"
    part[name] = part[name][:-2] if how == "shape" else part[name].astype(np.float16)
    torch_save(part, tmp_path / "consolidated.01.pth")
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, f"{name} is F", "in part 1 and F32 (8, 32) in part 0")


def test_key_heads_that_are_not_repeated(tmp_path: Path, capfd: Capture) -> None:
    write_meta(tmp_path, WEIGHTS[8], MHA, 8, **SHAPE, n_kv_heads=4)
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, "does not repeat the one before it")


def test_a_part_that_is_damaged(tmp_path: Path, capfd: Capture) -> None:
    write_meta(tmp_path, WEIGHTS[4], GQA, 2, **SHAPE)
    file = tmp_path / "consolidated.01.pth"
    file.write_bytes(file.read_bytes()[:-1])
    assert_refused(capfd, ["--weights", tmp_path], file, "is not a sound PyTorch file")


def test_a_tensor_that_no_llama_has(tmp_path: Path, capfd: Capture) -> None:
    weights = meta_weights(WEIGHTS[4], GQA) | {"vision_model.weight": np.ones((2, 2), np.float32)}
    torch_save(weights, tmp_path / "consolidated.00.pth")
    (tmp_path / "params.json").write_text(json.dumps(params_of(GQA, **SHAPE)))
    assert_refused(capfd, ["--weights", tmp_path], "1 unexpected: vision_model.weight")


# -- through the command ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numpy", "numba"])
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("where", ["beside", "parent"])
def test_the_command_tells_the_same_story(engine: str, shards: int, where: str, tmp_path: Path, capfd: Capture) -> None:
    settings = {"num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False}
    weights = random_tensors(BAD_CONFIG | settings)
    folder = checkpoint(tmp_path / "hf", weights, **settings)
    arguments = ["--engine", engine, "--max-new-tokens", 6, "--temperature", 0, "--weights"]
    story = assert_runs(capfd, [*arguments, folder])
    config = open_checkpoint(folder).config
    meta = write_meta(tmp_path / "meta" / "7B", weights, config, shards, multiple_of=24, ffn_dim_multiplier=0.5)
    beside = meta if where == "beside" else meta.parent
    shutil.copyfile(tale_model() / "tokenizer.model", beside / "tokenizer.model")
    assert assert_runs(capfd, [*arguments, meta]) == story
