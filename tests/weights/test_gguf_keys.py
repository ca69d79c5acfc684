"""Settings of GGUF files: every one that is there is read, changes nothing, or is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minillama.weights import open_checkpoint
from minillama.weights.gguf_keys import IDLE, NEUTRAL, READ
from tests.ggufs import SETTINGS, gguf_bytes, model_tensors

# One value of each kind at which a setting would make a LLaMA compute otherwise, by llama.cpp or by who wrote it
OTHERWISE: dict[str, Any] = {
    "attention.causal": False,
    "attention.clamp_kqv": 0.5,
    "attention.max_alibi_bias": 8.0,
    "attention.output_scale": 0.5,
    "attention.scale": 0.5,
    "attention.shared_kv_layers": 1,
    "attention.sliding_window": 31,
    "attention.temperature_length": 4,
    "attention.value_scale": 0.5,
    "attn_logit_softcapping": 50.0,
    "embedding_scale": 12.0,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu",
    "logit_scale": 0.25,
    "nextn_predict_layers": 1,
    "residual_scale": 0.5,
    "rope.dimension_sections": [4, 4, 4, 0],
    "rope.scaling.alpha": 1000.0,
    "rope.scaling.yarn_attn_factor": 0.5,
    "rope.scaling.yarn_beta_fast": 64.0,
    "rope.scaling.yarn_beta_slow": 0.5,
    "rope.scaling.yarn_ext_factor": 0.5,
    "rope.scaling.yarn_log_multiplier": 0.5,
    "use_parallel_residual": True,
}


def write(folder: Path, **settings: Any) -> Path:
    file = folder / "model.gguf"
    said = SETTINGS | {f"llama.{name}": value for name, value in settings.items()}
    file.write_bytes(gguf_bytes(said, model_tensors()))
    return file


def test_each_setting_is_of_one_kind() -> None:
    assert not READ & IDLE
    assert not (READ | IDLE) & NEUTRAL.keys()
    assert OTHERWISE.keys() == NEUTRAL.keys()


@pytest.mark.parametrize("name", NEUTRAL)
def test_settings_that_change_nothing_at_one_value_only(name: str, tmp_path: Path) -> None:
    plain = open_checkpoint(write(tmp_path)).config
    for value in NEUTRAL[name]:
        typed = type(OTHERWISE[name])(value) if not isinstance(OTHERWISE[name], list) else [value] * 4
        assert open_checkpoint(write(tmp_path, **{name: typed})).config == plain
    for value in (OTHERWISE[name], "0.1", [1, 2], float("nan")):
        with pytest.raises(
            ValueError, match=f"its llama.{name} is .*, and what that changes is not computed here: get"
        ):
            open_checkpoint(write(tmp_path, **{name: value}))


@pytest.mark.parametrize(("name", "value"), [("attention.sliding_window", 32), ("attention.scale", 24**-0.5)])
def test_settings_that_follow_from_others(name: str, value: Any, tmp_path: Path) -> None:
    assert open_checkpoint(write(tmp_path, **{name: value})).config == open_checkpoint(write(tmp_path)).config


def test_settings_that_change_nothing(tmp_path: Path) -> None:
    plain = open_checkpoint(write(tmp_path)).config
    assert open_checkpoint(write(tmp_path, **dict.fromkeys(IDLE, 7))).config == plain


@pytest.mark.parametrize("name", ["moon", "attention.q_lora_rank", "rope.scaling.yarn_beta", "llama.block_count"])
def test_settings_that_nobody_here_knows(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"its metadata have llama.{name} \(7\), which is not known here and may change"
    ):
        open_checkpoint(write(tmp_path, **{name: 7}))


def test_settings_of_other_things_are_no_settings(tmp_path: Path) -> None:
    """Of other architectures, of the file, of what a user notes."""
    others = {"gemma3.attention.causal": False, "general.sampling.temp": 0.5, "quantize.imatrix.chunks_count": 3}
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf_bytes(SETTINGS | others, model_tensors()))
    assert open_checkpoint(file).config == open_checkpoint(write(tmp_path)).config
