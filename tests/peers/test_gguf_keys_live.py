"""Settings of GGUF files beside llama.cpp: what is read gives its logits; what is said to change nothing does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from minillama.weights.gguf_keys import IDLE
from tests.ggufs import SETTINGS, gguf_bytes, info, model_tensors
from tests.peers.beside import their_logits

IDS = np.random.default_rng(5).integers(0, 40, 30).tolist()
FACTORS = np.linspace(1, 5, 12).astype(np.float32) ** 2
# float32: sums of a hundred terms in another order, two layers in a row
FLOAT32 = 1e-5
# llama.cpp takes a pooling type and labels for embeddings, and experts where a model has some
NOT_TRIED = {"classifier.output_labels", "expert_used_count", "expert_group_count", "tensor_data_layout"}

S = "rope.scaling."
READ: list[dict[str, Any]] = [
    {f"{S}factor": 4.0},
    {f"{S}factor": 4.0, f"{S}type": "none"},
    {f"{S}factor": 0.5, f"{S}type": "linear"},
    {f"{S}factor": 0.0},
    {"rope.scale_linear": 4.0},
    {"rope.scale_linear": 4.0, f"{S}type": "none"},
    {"rope.scale_linear": 4.0, f"{S}factor": 2.0},
    {f"{S}attn_factor": 1.25},
    {f"{S}attn_factor": 1.25, f"{S}factor": 4.0},
    {f"{S}attn_factor": 1.25, f"{S}type": "none"},
    {f"{S}type": "yarn", f"{S}factor": 4.0},
    {f"{S}type": "yarn", f"{S}factor": 4.0, f"{S}original_context_length": 16, f"{S}attn_factor": 1.25},
    {f"{S}type": "yarn"},
    {"rope.freq_base": 5e5},
]


def write(folder: Path, factors: Array | None = None, **settings: Any) -> Path:
    said = SETTINGS | {"tokenizer.ggml.model": "no_vocab", "llama.vocab_size": 40}
    said |= {f"llama.{name}": value for name, value in settings.items()}
    more = [] if factors is None else [info("rope_freqs.weight", factors)]
    file = folder / "model.gguf"
    file.write_bytes(gguf_bytes(said, [*model_tensors(), *more]))
    return file


def far(ours: Array, theirs: Array) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("factors", [None, FACTORS], ids=["", "with rope_freqs"])
@pytest.mark.parametrize("settings", READ, ids=str)
def test_what_is_read_gives_their_logits(settings: dict[str, Any], factors: Array | None, tmp_path: Path) -> None:
    file = write(tmp_path, factors, **settings)
    if factors is not None and settings.get(f"{S}type") == "yarn":
        with pytest.raises(ValueError, match="scaled twice"):
            LlamaForCausalLM.from_pretrained(file, engine="numpy")
        return
    ours = LlamaForCausalLM.from_pretrained(file, engine="numpy")(np.array([IDS])).logits[0]
    assert far(ours, their_logits(file, IDS)) < FLOAT32


def test_what_changes_nothing_does_not(tmp_path: Path) -> None:
    """All at once. The numbers are such that each would show if it were taken."""
    values = {"rope.freq_base_swa": 5.0, "attention.layer_norm_epsilon": 0.5, "expert_weights_scale": 2.0,
              f"{S}finetuned": True, "expert_weights_norm": True, "expert_group_scale": 2.0}  # fmt: skip
    idle = {name: values.get(name, 1) for name in IDLE - NOT_TRIED}
    plain = their_logits(write(tmp_path), IDS)
    np.testing.assert_array_equal(their_logits(write(tmp_path, **idle), IDS), plain)
    np.testing.assert_array_equal(their_logits(write(tmp_path, tensor_data_layout="Meta AI original pth"), IDS), plain)


def test_what_is_refused_and_they_take(tmp_path: Path) -> None:
    """So that a refusal of ours is known to be one of need: attention that looks ahead."""
    plain, ahead = (their_logits(write(tmp_path, **{"attention.causal": causal}), IDS) for causal in (True, False))
    assert far(ahead, plain) > 0.1
