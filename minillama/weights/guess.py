"""A config for weights that come without one: read off the shapes, and assumed where shapes are silent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillama.config import LlamaConfig
from minillama.messages import listed
from minillama.weights import names
from minillama.weights.projects import whose
from minillama.weights.safetensors import Tensor


class Known(NamedTuple):
    """What a published model's shapes do not tell. The figures are from its own config.json or params.json."""

    name: str
    head_dim: int
    rope_theta: float = 1e4
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 2048
    rope_scaling: dict[str, Any] | None = None


_LLAMA_3_2 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# (vocab_size, hidden_size, intermediate_size, layers, key/value rows) -> the model. Where several models share their
# shapes (Llama 1 and 2, Llama 3 and 3.1, SmolLM and SmolLM2), one had to be chosen.
KNOWN = {
    (32000, 288, 768, 6, 288): Known("stories15M", 48, max_position_embeddings=256),
    (32000, 512, 1376, 8, 512): Known("stories42M", 64, max_position_embeddings=1024),
    (32000, 768, 2048, 12, 768): Known("stories110M", 64, max_position_embeddings=1024),
    (49152, 576, 1536, 30, 192): Known("SmolLM2 135M", 64, 1e5, max_position_embeddings=8192),
    (49152, 960, 2560, 32, 320): Known("SmolLM2 360M", 64, 1e5, max_position_embeddings=8192),
    (49152, 2048, 8192, 24, 2048): Known("SmolLM2 1.7B", 64, 130000.0, max_position_embeddings=8192),
    (32000, 2048, 5632, 22, 256): Known("TinyLlama 1.1B", 64),
    (32000, 4096, 11008, 32, 4096): Known("Llama 2 7B", 128, max_position_embeddings=4096),
    (32000, 5120, 13824, 40, 5120): Known("Llama 2 13B", 128, max_position_embeddings=4096),
    (32000, 6656, 17920, 60, 6656): Known("LLaMA 33B", 128, rms_norm_eps=1e-6),
    (32000, 8192, 22016, 80, 8192): Known("LLaMA 65B", 128),
    (32000, 8192, 28672, 80, 1024): Known("Llama 2 70B", 128, max_position_embeddings=4096),
    (32016, 4096, 11008, 32, 4096): Known("CodeLlama 7B", 128, 1e6, max_position_embeddings=16384),
    (32016, 5120, 13824, 40, 5120): Known("CodeLlama 13B", 128, 1e6, max_position_embeddings=16384),
    (32000, 8192, 22016, 48, 1024): Known("CodeLlama 34B", 128, 1e6, max_position_embeddings=16384),
    (128256, 4096, 14336, 32, 1024): Known("Llama 3 8B", 128, 5e5, max_position_embeddings=8192),
    (128256, 8192, 28672, 80, 1024): Known("Llama 3 70B", 128, 5e5, max_position_embeddings=8192),
    (128256, 2048, 8192, 16, 512): Known("Llama 3.2 1B", 64, 5e5, 1e-5, 131072, _LLAMA_3_2),
    (128256, 3072, 8192, 28, 1024): Known("Llama 3.2 3B", 128, 5e5, 1e-5, 131072, _LLAMA_3_2),
}


def guess_config(tensors: Mapping[str, Tensor], where: Path) -> tuple[LlamaConfig, list[str]]:
    """A config that fits the tensors, and the assumptions made, a line each. ValueError if they are no LLaMA's."""
    tensors = names.standard_names(tensors)
    embed = tensors.get(names.EMBED_TOKENS, tensors.get(names.LM_HEAD))
    parts = {name: tensors.get(names.layer_name(0, name)) for name in ("q_proj", "k_proj", "gate_proj")}
    absent = [names.layer_name(0, name) for name, tensor in parts.items() if tensor is None]
    absent += [names.EMBED_TOKENS] if embed is None else []
    if absent:
        if what := whose(tensors):
            raise ValueError(f"{where} holds no weights of a LLaMA as Hugging Face or Meta names them: {what}")
        raise ValueError(
            f"{where} has no config.json beside it, and its sizes cannot be read off the shapes "
            f"because it lacks {listed(absent)}: name one with --config"
        )
    shapes = [tensor.shape for tensor in (embed, *parts.values()) if tensor is not None]
    if any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise ValueError(f"{where} has weights that are not matrices, {shapes}: it is not a LLaMA checkpoint")
    (V, D), (q_rows, _), (kv_rows, _), (F, _) = shapes
    found = [int(match[1]) for name in tensors if (match := re.match(r"model\.layers\.(\d{1,4})\.", name))]
    layers = max(found) + 1

    known, assumptions = KNOWN.get((V, D, F, layers, kv_rows)), []
    stored = next((tensors[name] for name in sorted(tensors) if name.endswith("rotary_emb.inv_freq")), None)
    if stored is not None and len(stored.shape) == 1 and stored.shape[0] > 1:
        head_dim, theta = _from_inv_freq(stored)
        theta = theta or (known.rope_theta if known else 1e4)
        known = (known or Known("", 0))._replace(head_dim=head_dim, rope_theta=theta, rope_scaling=None)
        assumptions.append(f"head_dim {head_dim} is read off the stored inv_freq, and rope_theta taken as {theta:g}")
    elif known:
        assumptions.append(f"its shapes are those of {known.name}, so head_dim is taken as {known.head_dim}")
        assumptions.append(f"rope_theta is taken as {known.rope_theta:g}, as in {known.name}")
        if known.rope_scaling:
            assumptions.append(f"rope_scaling is taken as in {known.name}, {known.rope_scaling}")
    else:
        known = Known("", 128)
        assumptions.append("its shapes are unknown, so head_dim is taken as 128")
        assumptions.append(f"rope_theta is taken as {known.rope_theta:g}")
    assumptions.append("hidden_act is taken as silu")
    assumptions.append(f"rms_norm_eps is taken as {known.rms_norm_eps:g}")
    assumptions.append(f"max_position_embeddings is taken as {known.max_position_embeddings}")

    if q_rows % known.head_dim or kv_rows % known.head_dim:
        raise ValueError(
            f"{where} has no config.json beside it, and its {q_rows} query and {kv_rows} key rows "
            f"are not multiples of the head_dim {known.head_dim} taken for it: name one with --config"
        )
    try:
        config = LlamaConfig(
            vocab_size=V,
            hidden_size=D,
            intermediate_size=F,
            num_hidden_layers=layers,
            num_attention_heads=q_rows // known.head_dim,
            num_key_value_heads=kv_rows // known.head_dim,
            head_dim=known.head_dim,
            rope_theta=known.rope_theta,
            rms_norm_eps=known.rms_norm_eps,
            max_position_embeddings=known.max_position_embeddings,
            rope_scaling=known.rope_scaling,
            bos_token_id=None,  # the tokenizer's are used
            eos_token_id=None,
            tie_word_embeddings=not {names.EMBED_TOKENS, names.LM_HEAD} <= tensors.keys(),
            attention_bias=names.layer_name(0, "q_bias") in tensors,
            mlp_bias=names.layer_name(0, "gate_bias") in tensors,
        )
    except ValueError as error:
        raise ValueError(f"{where} has no config.json beside it, and its shapes fit no LLaMA: {error}") from None
    return config, assumptions


def _from_inv_freq(stored: Tensor) -> tuple[int, float | None]:
    """head_dim, and rope_theta if the frequencies are a plain geometric series theta^(-2j/K)."""
    inv_freq = stored.read(np.float64)
    K = 2 * len(inv_freq)
    if not inv_freq[-1] > 0:
        return K, None
    theta = float(f"{inv_freq[-1] ** (-K / (K - 2)):.3g}")
    series = theta ** -(np.arange(0, K, 2) / K)
    # Some libraries stored inv_freq in bfloat16, which keeps 8 bits: 2^-8 is the largest relative error of rounding
    return K, theta if np.allclose(inv_freq, series, rtol=2**-8, atol=0) else None
