"""Small models for tests. Their sizes all differ, and some of their numbers lie far out: a swapped axis shows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.llama import LlamaForCausalLM
from minillama.model.rope_scaling import inverse_frequencies
from minillama.weights.names import LM_HEAD, expected_shapes

SIZES: dict[str, Any] = {
    "vocab_size": 37,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.2, 1.7],
    "long_factor": [1.0, 2.5, 6.0],
    "original_max_position_embeddings": 8,
}
# Every kind of rotary scaling. dynamic and longrope pass their trained length within the first dozen of tokens
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 8},
    "llama3": {"rope_scaling": LLAMA3},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}},
    "longrope": {"rope_scaling": LONGROPE},
    "proportional": {"rope_scaling": {"rope_type": "proportional", "partial_rotary_factor": 0.5}},
}
SEEDS = st.integers(0, 2**32 - 1)

ROOT = Path(__file__).parents[1]
# Not ours to ship: a copy in a folder beside the clone, or named by the environment, is used where there is one
_BESIDE = next(ROOT.parent.glob("*/data/llama2-tokenizer/tokenizer.model"), "absent")
LLAMA2_TOKENIZER = Path(os.environ.get("MINILLAMA_LLAMA2_TOKENIZER", _BESIDE))
needs_llama2_tokenizer = pytest.mark.skipif(
    not LLAMA2_TOKENIZER.exists(), reason="needs the Llama 2 tokenizer model (MINILLAMA_LLAMA2_TOKENIZER)"
)


def tiny_config(**overrides: Any) -> LlamaConfig:
    return LlamaConfig(**SIZES | overrides)


def frequencies(kind: str, length: int = 1) -> Array:
    """Of the tiny model with a kind of rope, for a text of that length."""
    return inverse_frequencies(tiny_config(**ROPES[kind]), np.asarray(length))


def spiky(rng: np.random.Generator, *shape: int) -> Array:
    """Normal numbers, about one in twenty of them five times as large."""
    return rng.standard_normal(shape) * np.where(rng.random(shape) < 0.05, 5, 1)


def random_weights(config: LlamaConfig, seed: int = 0) -> dict[str, Array]:
    """float32 tensors under their Hugging Face names; a tied head is left out."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in expected_shapes(config).items():
        if name == LM_HEAD and config.tie_word_embeddings:
            continue
        w = spiky(rng, *shape) * (1.2 / np.sqrt(shape[-1]) if len(shape) == 2 else 0.2)
        weights[name] = (w + (1 if name.endswith("norm.weight") else 0)).astype(np.float32)
    return weights


def tiny_model(
    seed: int = 0, *, dtype: str = "float64", compat: str | None = None, **overrides: Any
) -> LlamaForCausalLM:
    config = tiny_config(**overrides)
    return LlamaForCausalLM(config, random_weights(config, seed), dtype=dtype, compat=compat)


def random_ids(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(0, SIZES["vocab_size"], shape)


def assert_close(ours: Array, theirs: Array) -> None:
    """Equal, for two ways of computing the same in float64.

    float64 rounds at 1e-16. Sums of some dozen terms, and a softmax of scores up to about 100, whose rounding it
    passes on as relative error, make that 1e-13 at the end of a tiny model; 1e-10 of the largest number leaves room
    and is a million times below what any slip in the formulas would cost.
    """
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max(initial=0) <= 1e-10 * np.abs(theirs).max(initial=0)


def write_safetensors(file: Path, tensors: dict[str, Array], metadata: dict[str, str] | None = None) -> None:
    """The format written out by hand, so that bfloat16, as uint16 bits, can be written too."""
    names = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "<u2": "BF16"}
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, array in tensors.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": names[array.dtype.str], "shape": array.shape, "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + 1)  # so that no tensor is aligned: the format does not promise it
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


ODD: dict[str, Any] = {  # sizes that all differ, and a head_dim that is not D / H
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}


def odd_model(folder: Path, **settings: Any) -> LlamaForCausalLM:
    """A model of odd sizes, which is saved in the folder too."""
    config = LlamaConfig(**ODD | settings)
    model = LlamaForCausalLM(config, random_weights(config))
    model.save_pretrained(folder)
    return model
