"""LoRA adapters that peft saved, merged here and by peft: every weight of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.llama import LlamaForCausalLM

torch = pytest.importorskip("torch", reason="needs the oracle extra")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra")
peft = pytest.importorskip("peft", reason="needs the oracle extra")
# The libraries' own deprecation notes are not ours to fail on
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

SIZES: dict[str, Any] = {
    "vocab_size": 70,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
EVERYWHERE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"]
CASES: dict[str, dict[str, Any]] = {
    "two matrices": {"target_modules": ["q_proj", "v_proj"]},
    "every matrix": {"target_modules": EVERYWHERE, "r": 5, "lora_alpha": 3},
    "rslora": {"target_modules": ["q_proj", "down_proj"], "use_rslora": True, "lora_alpha": 7},
    "patterns": {
        "target_modules": EVERYWHERE,
        "rank_pattern": {"q_proj": 2, "^model.layers.1.mlp.up_proj": 5, "layers.0.self_attn.v_proj": 1, "proj": 6},
        "alpha_pattern": {"embed_tokens": 9, "mlp.down_proj": 0.5, "^lm_head": 2, "^up_proj": 100},
    },
    "some layers": {"target_modules": ["o_proj"], "layers_to_transform": [1]},
    "trained whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    "fan_in_fan_out": {"target_modules": ["q_proj", "embed_tokens"], "fan_in_fan_out": True},
    "biases of the adapted": {"target_modules": ["q_proj"], "bias": "lora_only", "attention_bias": True},
    "all biases": {"target_modules": ["q_proj"], "bias": "all", "attention_bias": True},
    "a tied embedding": {"target_modules": ["embed_tokens"], "tie_word_embeddings": True},
    "a tied head": {"target_modules": ["lm_head"], "tie_word_embeddings": True},
    "gaussian": {"target_modules": ["k_proj"], "init_lora_weights": "gaussian"},
}
# float32 rounds at 6e-8, a product of rank 6 and its sum with the weight each once or twice, in another order in torch
FLOAT32 = 1e-6
# The same sum rounded to bfloat16: where the two lie on either side of the middle between two bfloat16, one step
BFLOAT16 = 2**-7


def base_model(folder: Path, dtype: Any, **overrides: Any) -> Any:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | overrides)).to(dtype)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_merged_weights_are_pefts(case: str, dtype: str, tmp_path: Path) -> None:
    settings = {"r": 3, "lora_alpha": 5, "init_lora_weights": False} | CASES[case]
    of_model = {name: settings.pop(name) for name in ("attention_bias", "tie_word_embeddings") if name in settings}
    model = peft.get_peft_model(
        base_model(tmp_path / "base", getattr(torch, dtype), **of_model), peft.LoraConfig(**settings)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name or name.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter) * (1 + 4 * (torch.rand_like(parameter) < 0.05)))
    model.save_pretrained(tmp_path / "adapter")
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype=getattr(torch, dtype))
    theirs = peft.PeftModel.from_pretrained(again, tmp_path / "adapter").merge_and_unload().state_dict()
    ours = LlamaForCausalLM.from_pretrained(tmp_path / "base", lora=tmp_path / "adapter").state_dict()
    plain = LlamaForCausalLM.from_pretrained(tmp_path / "base").state_dict()
    assert theirs.keys() == ours.keys()
    assert any(not np.array_equal(ours[name], plain[name]) for name in ours)
    for name, tensor in theirs.items():
        merged = tensor.float().numpy()
        allowed = FLOAT32 * np.abs(merged).max() + (BFLOAT16 * np.abs(merged) if dtype == "bfloat16" else 0)
        assert (np.abs(ours[name] - merged) <= allowed).all(), name
        if dtype == "bfloat16":  # and such steps are rare
            assert (ours[name] == merged).mean() > 0.98, name
