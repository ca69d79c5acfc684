"""A LlamaConfig from Meta's params.json, whose defaults are those of its model code (class ModelArgs)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minillama.config import LlamaConfig
from minillama.weights import names
from minillama.weights.formats import FLOATS
from minillama.weights.guess import KNOWN
from minillama.weights.safetensors import Tensor
from minillama.weights.saving import main_dtype

LIMIT = 1 << 31
# Beginning and end of a text in Meta's tokenizers, by the size of the vocabulary
SPECIAL_IDS = {128256: (128000, 128001)}
SENTENCEPIECE_IDS, SENTENCEPIECE_VOCAB = (1, 2), 100_000  # of Llama 1, 2 and CodeLlama, all of which are below this


def config_from_params(file: Path, params: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LlamaConfig:
    """The config of a model; what params.json leaves open (a vocab_size of -1 among it) is read off the shapes of the
    tensors, which have Hugging Face's names. ValueError that names the file and the field."""

    def number(key: str, default: Any = None, least: float = 1) -> Any:
        value = params.get(key)
        value = default if value is None else value
        whole = isinstance(default, int | None)
        fits = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not fits or not least <= value < LIMIT:
            kind = "whole number" if whole else "number"
            raise ValueError(f"{file}: {key} must be a {kind} of at least {least:g}, not {repr(value)[:60]}")
        return value

    D, layers, heads = number("dim"), number("n_layers"), number("n_heads")
    kv_heads, theta, eps = number("n_kv_heads", heads), number("rope_theta", 1e4, 0), number("norm_eps", 1e-5, 0)
    rows = _rows(tensors, names.EMBED_TOKENS) or _rows(tensors, names.LM_HEAD)
    V = rows if params.get("vocab_size", -1) == -1 and rows else number("vocab_size")
    F = _intermediate_size(D, number("multiple_of", 256), number("ffn_dim_multiplier", 1.0, 0))
    known = KNOWN.get((V, D, F, layers, _rows(tensors, names.layer_name(0, "k_proj")) or 0))
    scaling = None
    if params.get("use_scaled_rope"):
        factor = (known.rope_scaling if known and known.rope_scaling else {}).get("factor", 8.0)
        scaling = {
            "rope_type": "llama3",
            "factor": number("rope_scaling_factor", factor),
            "low_freq_factor": number("rope_low_freq_factor", 1.0, 0),
            "high_freq_factor": number("rope_high_freq_factor", 4.0, 0),
            "original_max_position_embeddings": 8192,
        }
    floats = {name: tensor for name, tensor in tensors.items() if tensor.dtype in FLOATS}
    bos, eos = SPECIAL_IDS.get(V, SENTENCEPIECE_IDS if V < SENTENCEPIECE_VOCAB else (None, None))
    try:
        return LlamaConfig(
            vocab_size=V,
            hidden_size=D,
            intermediate_size=F,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=number("max_seq_len", _context_length(theta, eps, scaling is not None)),
            rms_norm_eps=eps,
            rope_theta=theta,
            rope_scaling=scaling,
            bos_token_id=bos,
            eos_token_id=eos,
            tie_word_embeddings=names.LM_HEAD not in tensors,
            torch_dtype=main_dtype(floats) if floats else None,
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _rows(tensors: Mapping[str, Tensor], name: str) -> int | None:
    return tensors[name].shape[0] if name in tensors and tensors[name].shape else None


def _intermediate_size(D: int, multiple_of: int, multiplier: float) -> int:
    """Two thirds of 4 D, times the multiplier, rounded up to a multiple."""
    size = int(multiplier * int(8 * D / 3))
    return multiple_of * math.ceil(size / multiple_of)


def _context_length(theta: float, eps: float, scaled: bool) -> int:
    """What the published models were trained for, told apart by what params.json has of them: Llama 3.1 and later,
    CodeLlama, Llama 3, Llama 2, Llama 1."""
    if scaled:
        return 131072
    return 16384 if theta == 1e6 else 8192 if theta == 5e5 else 4096 if eps == 1e-5 else 2048
