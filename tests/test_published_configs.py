"""The figures of published LLaMAs: what follows from them, and that models of their make, shrunk, run.

Each entry is what config.json says in the repository of that name on the Hugging Face hub. The numbers of parameters
are those the hub or the models' authors give; for Llama 2 the hub counts 64 rotary frequencies a layer on top, which
are stored in these files and are no parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.config import ROPE_TYPES, LlamaConfig
from minillama.llama import LlamaForCausalLM
from minillama.weights.names import LM_HEAD, expected_shapes
from tests.tiny import assert_close, random_weights


def figures(
    hidden: int, intermediate: int, layers: int, heads: int, key_value_heads: int, vocabulary: int, **others: Any
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "vocab_size": vocabulary,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    } | others


L1: dict[str, Any] = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
L2: dict[str, Any] = {"max_position_embeddings": 4096, "pretraining_tp": 1, "rope_scaling": None}
CODE: dict[str, Any] = {"max_position_embeddings": 16384, "rope_theta": 1000000, "rope_scaling": None}
L3: dict[str, Any] = {
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "attention_bias": False,
}


def llama3_rope(factor: float) -> dict[str, Any]:
    scaling = {
        "factor": factor,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    return L3 | {"max_position_embeddings": 131072, "mlp_bias": False, "rope_scaling": scaling}


SMOL: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, "rope_scaling": None}
LINEAR: dict[str, Any] = {"rope_scaling": {"factor": 4.0, "type": "linear"}, "max_sequence_length": 16384}
YARN: dict[str, Any] = {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096}

# repository: (figures, parameters, head_dim, query heads to a key/value head, tokens it reads at most)
PUBLISHED: dict[str, tuple[dict[str, Any], int, int, int, int]] = {
    "huggyllama/llama-7b": (figures(4096, 11008, 32, 32, 32, 32000, **L1), 6_738_415_616, 128, 1, 2048),
    "huggyllama/llama-13b": (figures(5120, 13824, 40, 40, 40, 32000, **L1), 13_015_864_320, 128, 1, 2048),
    "huggyllama/llama-30b": (figures(6656, 17920, 60, 52, 52, 32000, **L1), 32_528_943_616, 128, 1, 2048),
    "huggyllama/llama-65b": (
        figures(8192, 22016, 80, 64, 64, 32000, **L1 | {"rms_norm_eps": 1e-5}), 65_285_660_672, 128, 1, 2048,
    ),
    "meta-llama/Llama-2-7b-hf": (figures(4096, 11008, 32, 32, 32, 32000, **L2), 6_738_415_616, 128, 1, 4096),
    "meta-llama/Llama-2-13b-hf": (figures(5120, 13824, 40, 40, 40, 32000, **L2), 13_015_864_320, 128, 1, 4096),
    "meta-llama/Llama-2-70b-hf": (figures(8192, 28672, 80, 64, 8, 32000, **L2), 68_976_648_192, 128, 8, 4096),
    "codellama/CodeLlama-7b-hf": (figures(4096, 11008, 32, 32, 32, 32016, **CODE), 6_738_546_688, 128, 1, 16384),
    "codellama/CodeLlama-13b-hf": (figures(5120, 13824, 40, 40, 40, 32016, **CODE), 13_016_028_160, 128, 1, 16384),
    "codellama/CodeLlama-34b-hf": (figures(8192, 22016, 48, 64, 8, 32000, **CODE), 33_743_970_304, 128, 8, 16384),
    # Llama 2 70B and sixteen tokens, in the embedding and in the head
    "codellama/CodeLlama-70b-hf": (
        figures(8192, 28672, 80, 64, 8, 32016, **CODE), 68_976_648_192 + 2 * 16 * 8192, 128, 8, 16384,
    ),
    "meta-llama/Meta-Llama-3-8B": (figures(4096, 14336, 32, 32, 8, 128256, **L3), 8_030_261_248, 128, 4, 8192),
    "meta-llama/Meta-Llama-3-70B": (figures(8192, 28672, 80, 64, 8, 128256, **L3), 70_553_706_496, 128, 8, 8192),
    "meta-llama/Llama-3.1-8B": (
        figures(4096, 14336, 32, 32, 8, 128256, **llama3_rope(8.0)), 8_030_261_248, 128, 4, 131072,
    ),
    "meta-llama/Llama-3.1-8B-Instruct": (
        figures(4096, 14336, 32, 32, 8, 128256, **llama3_rope(8.0) | {"eos_token_id": [128001, 128008, 128009]}),
        8_030_261_248, 128, 4, 131072,
    ),
    "meta-llama/Llama-3.1-70B": (
        figures(8192, 28672, 80, 64, 8, 128256, **llama3_rope(8.0)), 70_553_706_496, 128, 8, 131072,
    ),
    "meta-llama/Llama-3.1-405B": (
        figures(16384, 53248, 126, 128, 8, 128256, **llama3_rope(8.0)), 405_853_388_800, 128, 16, 131072,
    ),
    "meta-llama/Llama-3.2-1B": (
        figures(2048, 8192, 16, 32, 8, 128256, **llama3_rope(32.0) | {"head_dim": 64, "tie_word_embeddings": True}),
        1_235_814_400, 64, 4, 131072,
    ),
    "meta-llama/Llama-3.2-3B": (
        figures(3072, 8192, 28, 24, 8, 128256, **llama3_rope(32.0) | {"head_dim": 128, "tie_word_embeddings": True}),
        3_212_749_824, 128, 3, 131072,
    ),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": (
        figures(2048, 5632, 22, 32, 4, 32000, max_position_embeddings=2048), 1_100_048_384, 64, 8, 2048,
    ),
    "lmsys/vicuna-7b-v1.5": (
        figures(4096, 11008, 32, 32, 32, 32000, **L2, pad_token_id=0), 6_738_415_616, 128, 1, 4096,
    ),
    "lmsys/vicuna-7b-v1.5-16k": (
        figures(4096, 11008, 32, 32, 32, 32000, **L2 | LINEAR, pad_token_id=0), 6_738_415_616, 128, 1, 16384,
    ),
    # What github.com/jquesnelle/yarn trains it with: its finetune.py writes these into the config of Llama 2
    "NousResearch/Yarn-Llama-2-7b-64k": (
        figures(4096, 11008, 32, 32, 32, 32000, **L2 | {"max_position_embeddings": 65536, "rope_scaling": YARN}),
        6_738_415_616, 128, 1, 65536,
    ),
    # github.com/huggingface/smollm, config_smollm1_135M.yaml
    "HuggingFaceTB/SmolLM-135M": (
        figures(576, 1536, 30, 9, 3, 49152, **SMOL, max_position_embeddings=2048), 134_515_008, 64, 3, 2048,
    ),
    "HuggingFaceTB/SmolLM2-135M": (
        figures(576, 1536, 30, 9, 3, 49152, **SMOL, max_position_embeddings=8192, rope_theta=100000),
        134_515_008, 64, 3, 8192,
    ),
    "HuggingFaceTB/SmolLM2-360M": (
        figures(960, 2560, 32, 15, 5, 49152, **SMOL, max_position_embeddings=8192, rope_theta=100000),
        361_821_120, 64, 3, 8192,
    ),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": (
        figures(
            2048, 8192, 24, 32, 32, 49152, pad_token_id=2, tie_word_embeddings=True,
            max_position_embeddings=8192, rope_theta=130000,
        ),
        1_711_376_384, 64, 1, 8192,
    ),
}  # fmt: skip

BASE = figures(4096, 11008, 32, 32, 8, 32000, max_position_embeddings=4096)
# What a config may say and no LLaMA above does
OTHERS: dict[str, dict[str, Any]] = {
    "attention_bias": BASE | {"attention_bias": True},
    "mlp_bias": BASE | {"mlp_bias": True},
    "a function as hidden_act": BASE | {"hidden_act": np.tanh},
    "another hidden_act": BASE | {"hidden_act": "gelu_pytorch_tanh"},
    "head_dim": BASE | {"head_dim": 96},
    "pretraining_tp": BASE | {"pretraining_tp": 2},
    "dynamic": BASE | {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "longrope": BASE
    | {
        "rope_scaling": {
            "rope_type": "longrope",
            "short_factor": [1.0 + 0.01 * j for j in range(64)],
            "long_factor": [1.0 + 0.5 * j for j in range(64)],
            "original_max_position_embeddings": 1024,
        }
    },
}
SHRUNK = {name: entry[0] for name, entry in PUBLISHED.items()} | OTHERS
TRAINED, TEXT = 8, 20  # positions a shrunken model was trained on, before any scaling, and those of a text


def shrink(real: dict[str, Any]) -> LlamaConfig:
    """The same make, about a sixteenth of each head's components and two key/value heads, with positions scaled so that
    a text passes the trained length."""
    config = LlamaConfig.from_dict(real)
    G = 2
    H, K = G * config.num_attention_heads // config.num_key_value_heads, config.head_dim // 16
    small = real | {
        "hidden_size": H * K * config.hidden_size // (config.num_attention_heads * config.head_dim),
        "num_attention_heads": H,
        "num_key_value_heads": G,
        "num_hidden_layers": 2,
        "vocab_size": 61,
        "bos_token_id": 1,
        "eos_token_id": [2, 3, 5] if isinstance(real["eos_token_id"], list) else 2,
    }
    small["intermediate_size"] = real["intermediate_size"] * small["hidden_size"] // real["hidden_size"] // 4 * 4
    if "head_dim" in real:
        small["head_dim"] = K
    if real.get("rope_scaling"):
        original = config.original_max_position_embeddings
        small["max_position_embeddings"] = real["max_position_embeddings"] * TRAINED // original
        small["rope_scaling"] = scaling = dict(real["rope_scaling"])
        if "original_max_position_embeddings" in scaling:
            scaling["original_max_position_embeddings"] = TRAINED
        for name in ("short_factor", "long_factor"):
            if name in scaling:
                scaling[name] = scaling[name][:: len(scaling[name]) * 2 // K]
    else:
        small["max_position_embeddings"] = 32
    return LlamaConfig.from_dict(small)


def text_of(config: LlamaConfig) -> Array:
    return np.random.default_rng(config.hidden_size).integers(0, config.vocab_size, (2, TEXT))


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_follows_from_the_figures(name: str) -> None:
    real, parameters, head_dim, group, context = PUBLISHED[name]
    config = LlamaConfig.from_dict(real)
    assert config.head_dim == head_dim
    assert config.num_attention_heads // config.num_key_value_heads == group
    assert config.context_length == context
    eos = real["eos_token_id"]
    assert config.eos_token_ids == (tuple(eos) if isinstance(eos, list) else (eos,))
    scaling = real.get("rope_scaling") or {"type": "default"}
    assert config.rope_type == (scaling.get("type") or scaling.get("rope_type"))
    assert config.original_max_position_embeddings == scaling.get(
        "original_max_position_embeddings", real["max_position_embeddings"]
    )
    shapes = expected_shapes(config)
    once = {n: shape for n, shape in shapes.items() if not (n == LM_HEAD and config.tie_word_embeddings)}
    assert sum(int(np.prod(shape)) for shape in once.values()) == parameters
    assert LlamaForCausalLM(config).num_parameters() == parameters  # nothing is drawn for it
    assert {key: config.to_dict()[key] for key in real} == real
    assert LlamaConfig.from_dict(config.to_dict()) == config


def test_every_kind_of_rotary_scaling_is_among_them() -> None:
    # "proportional" is of other models than LLaMA
    assert {shrink(real).rope_type for real in SHRUNK.values()} == set(ROPE_TYPES) - {"proportional"}
    beyond = {
        shrink(real).rope_type for real in SHRUNK.values() if shrink(real).original_max_position_embeddings < TEXT
    }
    assert beyond == set(ROPE_TYPES) - {"default", "proportional"}


@pytest.mark.parametrize("name", SHRUNK)
def test_shrunk_it_decodes_as_it_reads(name: str) -> None:
    config = shrink(SHRUNK[name])
    model, ids = LlamaForCausalLM(config, random_weights(config), dtype="float64"), text_of(config)
    whole = model(ids).logits
    assert whole.shape == (2, TEXT, config.vocab_size)
    assert np.isfinite(whole).all()
    pieces, past = [], None
    for start, stop in [(0, 7), (7, 11), *((t, t + 1) for t in range(11, TEXT))]:  # past the trained length, one by one
        out = model(ids[:, start:stop], past_key_values=past)
        past = out.past_key_values
        pieces.append(out.logits)
    assert_close(np.concatenate(pieces, axis=1), whole)


@pytest.mark.parametrize("name", SHRUNK)
def test_shrunk_and_saved_it_comes_back(name: str, tmp_path: Path) -> None:
    config = shrink(SHRUNK[name])
    model, ids = LlamaForCausalLM(config, random_weights(config)), text_of(config)
    assert LlamaConfig.from_dict(config.to_dict()) == config
    if callable(config.hidden_act):
        with pytest.raises(ValueError, match="hidden_act is a function"):
            model.save_pretrained(tmp_path)
        return
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert again.config.rope_scaling == config.rope_scaling
    assert again.config.eos_token_ids == config.eos_token_ids
    np.testing.assert_array_equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize("name", ["attention_bias", "mlp_bias"])
def test_biases_are_parameters(name: str) -> None:
    plain, biased = (LlamaForCausalLM(LlamaConfig.from_dict(real)) for real in (BASE, OTHERS[name]))
    width = {"attention_bias": 4096 + 2 * 1024 + 4096, "mlp_bias": 2 * 11008 + 4096}[name]
    assert biased.num_parameters() - plain.num_parameters() == 32 * width
