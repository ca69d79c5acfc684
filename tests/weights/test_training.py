"""Checkpoints as training programs save them: read, or told whose they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from minillama.weights import open_checkpoint
from tests.bad import Capture, assert_refused
from tests.tiny import random_ids, random_weights, tiny_config
from tests.weights.meta_files import meta_weights
from tests.weights.torch_files import View, pickled, torch_bytes, torch_save, viewed

CONFIG = tiny_config(hidden_size=24)  # heads of 6, as llama2.c's are dim / n_heads wide
WEIGHTS = random_weights(CONFIG, 41)
LOSS = View("0", "Float", WEIGHTS["model.embed_tokens.weight"].size, 7, (), ())  # a number of a storage that is there
RANDOM = View("0", "Float", WEIGHTS["model.embed_tokens.weight"].size, 0, (9,), (1,))
OPTIMIZER = {"state": {0: {"step": LOSS, "exp_avg": RANDOM}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
ARGS = {"dim": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 37, "multiple_of": 20,
        "max_seq_len": 32, "dropout": 0.1}  # fmt: skip
Tensors = dict[str, Array]


def logits(path: Path) -> Array:
    model = LlamaForCausalLM.from_pretrained(path, engine="numpy", dtype="float64")
    return model(random_ids(61, 1, 5)).logits


EXPECTED = LlamaForCausalLM(CONFIG, WEIGHTS, dtype="float64")(random_ids(61, 1, 5)).logits


def called(change: Callable[[str], str], weights: Tensors = WEIGHTS) -> Tensors:
    return {change(name): array for name, array in weights.items()}


def test_llama2_c_s_own_checkpoint(tmp_path: Path) -> None:
    """With its optimizer, a loss that is a tensor, and the sizes that no shape tells: of other heads it would answer
    otherwise."""
    config = tiny_config(hidden_size=24, intermediate_size=80)
    weights = random_weights(config, 42)
    meta = called(lambda name: f"_orig_mod.{name}", meta_weights(weights, config))
    file = torch_save(
        meta, tmp_path / "ckpt.pt", "model", optimizer=OPTIMIZER, model_args=ARGS, iter_num=10, best_val_loss=LOSS,
        config={"dataset": "tinystories", "compile": True},
    )  # fmt: skip
    opened = open_checkpoint(tmp_path)
    read = opened.config
    assert (read.head_dim, read.num_key_value_heads, read.max_position_embeddings, read.rms_norm_eps) == (
        6,
        2,
        32,
        1e-5,
    )
    for name, array in weights.items():
        np.testing.assert_array_equal(opened.tensors[name].read(np.float32), array)
    expected = LlamaForCausalLM(config, weights, dtype="float64")(random_ids(61, 1, 5)).logits
    np.testing.assert_array_equal(logits(file), expected)


def test_a_hidden_dim_in_llama2_c_s_settings(tmp_path: Path) -> None:
    """Is the size of its MLP alone: Mistral's settings, which name it too, have another theta and length by default."""
    config = tiny_config(hidden_size=24, intermediate_size=80)
    weights = random_weights(config, 42)
    torch_save(meta_weights(weights, config), tmp_path / "ckpt.pt", "model", model_args=ARGS | {"hidden_dim": 80})
    read = open_checkpoint(tmp_path).config
    assert (read.intermediate_size, read.rope_theta, read.max_position_embeddings) == (80, 1e4, 32)


WAYS: dict[str, tuple[Callable[[str], str], str | None, dict[str, Any]]] = {
    "a plain one": (lambda name: name, None, {}),
    "a loop of one's own": (lambda name: name, "model_state_dict", {"epoch": 3, "loss": LOSS, "optimizer": OPTIMIZER}),
    "torch.compile": (lambda name: f"_orig_mod.{name}", "model", {"optimizer": OPTIMIZER}),
    "DDP": (lambda name: f"module.{name}", None, {}),
    "DDP of a compiled one": (lambda name: f"module._orig_mod.{name}", "state_dict", {"rng_state": RANDOM}),
    "FSDP": (
        lambda name: "_fsdp_wrapped_module." + name.replace(".layers.0.", ".layers.0._fsdp_wrapped_module."), None, {}
    ),
    "activation checkpoints": (
        lambda name: name.replace(".layers.1.", ".layers.1._checkpoint_wrapped_module."), None, {}
    ),
    "Lightning": (
        lambda name: f"model.{name}", "state_dict",
        {"epoch": 1, "global_step": 7, "pytorch-lightning_version": "2.5", "loops": {"fit_loop": {"state_dict": {}}},
         "optimizer_states": [OPTIMIZER], "lr_schedulers": [], "callbacks": {"best": {"best_model_score": LOSS}}},
    ),
    "Lightning of a compiled one": (lambda name: f"net._orig_mod.{name}", "state_dict", {"callbacks": {}}),
    "DeepSpeed": (lambda name: name, "module", {"buffer_names": [], "ds_config": {"zero": 1}, "global_steps": 4}),
    "metrics beside": (lambda name: name, "weights", {"metrics": {"loss": LOSS, "accuracy": LOSS}}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_weights_under_the_names_of_wrappers(way: str, tmp_path: Path) -> None:
    change, wrap, beside = WAYS[way]
    torch_save(called(change), tmp_path / "last.ckpt", wrap, **beside)
    CONFIG.save_pretrained(tmp_path)
    np.testing.assert_array_equal(logits(tmp_path), EXPECTED)


def test_a_dictionary_in_a_dictionary(tmp_path: Path) -> None:
    """As Composer saves it: the model is in the state of the run."""
    values = {name: viewed(str(number), array) for number, (name, array) in enumerate(WEIGHTS.items())}
    nested = {
        "state": {"model": values, "optimizers": {"AdamW": OPTIMIZER}, "timestamp": {"epoch": 1}},
        "rng": [RANDOM],
    }
    storages = {str(number): array.tobytes() for number, array in enumerate(WEIGHTS.values())}
    (tmp_path / "latest-rank0.pt").write_bytes(torch_bytes(pickled(nested), storages))
    CONFIG.save_pretrained(tmp_path)
    np.testing.assert_array_equal(logits(tmp_path), EXPECTED)


def test_safetensors_of_a_wrapped_model(tmp_path: Path) -> None:
    save_file(called(lambda name: f"_orig_mod.{name}"), tmp_path / "model.safetensors")
    CONFIG.save_pretrained(tmp_path)
    np.testing.assert_array_equal(logits(tmp_path), EXPECTED)


def test_a_folder_of_a_trainer(tmp_path: Path) -> None:
    """What lies beside the weights is not taken for them."""
    torch_save(WEIGHTS, tmp_path / "weights.pt")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "scaler.pt"):
        (tmp_path / name).write_bytes(b"not weights")
    CONFIG.save_pretrained(tmp_path)
    np.testing.assert_array_equal(logits(tmp_path), EXPECTED)


def test_an_optimizer_alone(tmp_path: Path, capfd: Capture) -> None:
    file = tmp_path / "optimizer.pt"
    file.write_bytes(torch_bytes(pickled(OPTIMIZER), {"0": WEIGHTS["model.embed_tokens.weight"].tobytes()}))
    assert_refused(capfd, ["--weights", file], file, "the state of an optimizer, and the weights are in another file")


def test_what_deepspeed_has_cut_into_pieces(tmp_path: Path, capfd: Capture) -> None:
    file = torch_save({name: array[:0] for name, array in WEIGHTS.items()}, tmp_path / "model_states.pt", "module")
    assert_refused(capfd, ["--weights", file], file, "its tensors are empty: DeepSpeed", "zero_to_fp32.py")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".metadata", "torch.distributed.checkpoint.format_utils dcp_to_torch"),
        ("__0_0.distcp", "torch.distributed.checkpoint.format_utils dcp_to_torch"),
        ("pytorch_model_fsdp_0/__0_0.distcp", "torch.distributed.checkpoint.format_utils dcp_to_torch"),
        ("zero_to_fp32.py", "DeepSpeed in pieces: its zero_to_fp32.py"),
    ],
)
def test_folders_of_pieces(name: str, words: str, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, words)


PROJECTS = {
    "litgpt": (["transformer.wte.weight", "transformer.h.0.norm_1.weight"], "litgpt convert_from_litgpt"),
    "nanoGPT": (["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"], "it is a GPT-2"),
    "torchtune": (["tok_embeddings.weight", "layers.0.sa_norm.scale"], "FullModelHFCheckpointer"),
    "Megatron": (["decoder.layers.0.self_attention.linear_qkv.weight"], "Megatron's names"),
    "nanotron": (["token_position_embeddings.pp_block.token_embedding.weight"], "nanotron's names"),
    "TransformerLens": (["blocks.0.attn.W_Q"], "TransformerLens' names"),
    "GPT-NeoX": (["gpt_neox.layers.0.input_layernorm.weight"], "another kind of model than a LLaMA"),
    "an adapter": (["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"], "name it with --lora"),
    "a model that sees": (["vision_tower.x.weight", "language_model.model.layers.0.mlp.up_proj.weight"], "that sees"),
}


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize("project", PROJECTS)
def test_whose_tensors_they_are(project: str, with_config: bool, tmp_path: Path, capfd: Capture) -> None:
    names, words = PROJECTS[project]
    torch_save({name: np.ones((2, 3), np.float32) for name in names}, tmp_path / "model.pth")
    if with_config:
        tiny_config(num_hidden_layers=1).save_pretrained(tmp_path)
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, words)


def test_two_names_that_only_wrappers_tell_apart(tmp_path: Path, capfd: Capture) -> None:
    both = WEIGHTS | {"model.norm._orig_mod.weight": WEIGHTS["model.norm.weight"]}
    torch_save(both, tmp_path / "model.pth")
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, "two tensors whose names differ in wrapper prefixes alone")


def test_settings_that_are_no_llama_s(tmp_path: Path, capfd: Capture) -> None:
    meta = meta_weights(WEIGHTS, CONFIG)
    for args, words in (
        ({**ARGS, "n_heads": 5}, "not a multiple of num_attention_heads 5"),
        ({**ARGS, "dim": True}, "dim must be"),
        ({}, ""),
    ):
        file = torch_save(meta, tmp_path / "ckpt.pt", "model", model_args=args)
        if args:
            assert_refused(capfd, ["--weights", file], file, words)
        else:
            assert_refused(capfd, ["--weights", file], "no config.json beside it")
    save_file(meta, tmp_path / "x.safetensors", {"model_args": "[" * 99999})  # which are not settings
    assert_refused(capfd, ["--weights", tmp_path / "x.safetensors"], "no config.json beside it")
