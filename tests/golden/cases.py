"""What the goldens are of: configs, weights and inputs, made without torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.weights.names import LM_HEAD, expected_shapes

SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.7],
    "long_factor": [1.0, 2.0, 3.5, 6.0],
    "original_max_position_embeddings": 16,
}

# name -> (what differs from SMALL, the compat mode to compare in, the position of the first token)
CASES: dict[str, tuple[dict[str, Any], str | None, int]] = {
    "mha": ({"num_key_value_heads": 4}, None, 0),
    "mqa": ({"num_key_value_heads": 1}, None, 0),
    "gqa": ({}, None, 0),
    "wide_heads": ({"head_dim": 12}, None, 0),
    "biases": ({"attention_bias": True, "mlp_bias": True}, None, 0),
    "tied": ({"tie_word_embeddings": True}, None, 0),
    "gelu": ({"hidden_act": "gelu"}, None, 0),
    "gelu_tanh": ({"hidden_act": "gelu_pytorch_tanh"}, None, 0),
    "relu": ({"hidden_act": "relu"}, None, 0),
    "theta": ({"rope_theta": 5e5}, None, 1000),
    "far": ({}, None, 2000),
    "very_far": ({}, None, 100_000),
    "linear": ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, None, 2000),
    "llama3": ({"rope_scaling": LLAMA3}, None, 1000),
    "yarn": (
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
        None,
        1000,
    ),
    "longrope_short": ({"rope_scaling": LONGROPE | {"original_max_position_embeddings": 64, "factor": 4.0}}, None, 0),
    "longrope_long": ({"rope_scaling": LONGROPE, "max_position_embeddings": 64}, "hf5", 0),
    "dynamic_short": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, None, 0),
    "dynamic_long": (
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 16},
        "hf5",
        0,
    ),
}
# Out there torch's own float32 angles are off by up to 0.004 radians: its float32 numbers are no measure
FLOAT64_ONLY = {"very_far"}
HF4_CASE = "dynamic_long"
TALE = "tale"  # the shipped model, beside the random ones

PREFILL, LENGTH, NEW = 14, 24, 24  # tokens prefilled before decoding one by one, tokens in all, greedy tokens


def config_of(case: str) -> LlamaConfig:
    return LlamaConfig(**SMALL | CASES[case][0])


def weights_of(case: str) -> dict[str, Array]:
    """float32 tensors under their Hugging Face names, some of their numbers far out.

    RandomState, not default_rng: NumPy promises that its stream never changes.
    """
    rng = np.random.RandomState(sum(map(ord, case)))
    config, weights = config_of(case), {}
    for name, shape in expected_shapes(config).items():
        if name == LM_HEAD and config.tie_word_embeddings:
            continue
        w = rng.standard_normal(shape) * (1.2 / np.sqrt(shape[-1]) if len(shape) == 2 else 0.2)
        w.flat[rng.randint(w.size, size=1 + w.size // 100)] *= 6
        weights[name] = (w + (1 if name.endswith("norm.weight") else 0)).astype(np.float32)
    return weights


def inputs_of(case: str) -> tuple[Array, Array, Array]:
    """input_ids (2, T), an attention mask that pads the second row on the right, position_ids (2, T)."""
    rng = np.random.RandomState(len(case))
    ids = rng.randint(3, SMALL["vocab_size"], size=(2, LENGTH))
    mask = np.ones_like(ids)
    mask[1, LENGTH - 5 :] = 0
    positions = np.broadcast_to(np.arange(LENGTH) + CASES[case][2], ids.shape)
    return ids, mask, positions


TALE_PROMPT = "Once upon a time there was a fox who"
