"""A LlamaConfig from Meta's params.json, or Mistral's, whose defaults are those of their model code (ModelArgs).

Mistral's has `hidden_dim`, the intermediate size itself, where Meta's has what that is made of.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minillama.config import LlamaConfig
from minillama.weights import names
from minillama.weights.formats import FLOATS
from minillama.weights.guess import KNOWN, Known
from minillama.weights.safetensors import Tensor
from minillama.weights.saving import main_dtype

LIMIT = 1 << 31
# Beginning and end of a text in Meta's tokenizers, by the size of the vocabulary
SPECIAL_IDS = {128256: (128000, 128001)}
SENTENCEPIECE_IDS, SENTENCEPIECE_VOCAB = (1, 2), 100_000  # of Llama 1, 2 and CodeLlama, all of which are below this
MISTRAL_LENGTH = 32768  # what its models of LLaMA's shape were published with
_READ = {
    "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "multiple_of", "ffn_dim_multiplier",
    "norm_eps", "rope_theta", "vocab_size", "max_seq_len", "max_position_embeddings", "sliding_window",
    "use_scaled_rope", "rope_scaling_factor", "rope_low_freq_factor", "rope_high_freq_factor",
}  # fmt: skip
_IDLE = {"max_batch_size", "tied_embeddings", "dropout"}  # which say nothing of the numbers, or what the tensors say
_ONLY = {"model_type": "transformer", "causal": True}  # what else there may be, with the one value that changes nothing
log = logging.getLogger("minillama")


def config_from_params(file: Path, params: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LlamaConfig:
    """The config of a model; what params.json leaves open (a vocab_size of -1 among it) is read off the shapes of the
    tensors, which have Hugging Face's names. ValueError that names the file and the field."""
    number = partial(_number, file, params)
    _refuse_others(file, params)
    D, layers, heads = number("dim"), number("n_layers"), number("n_heads")
    mistral, window = _is_mistral(params), _window(file, params)
    kv_heads, eps = number("n_kv_heads", heads), number("norm_eps", 1e-5, 0)
    theta = number("rope_theta", 1e6 if mistral and window is None else 1e4, 0)
    rows = _rows(tensors, names.EMBED_TOKENS) or _rows(tensors, names.LM_HEAD)
    V = rows if params.get("vocab_size", -1) == -1 and rows else number("vocab_size")
    made = _intermediate_size(D, number("multiple_of", 256), number("ffn_dim_multiplier", 1.0, 0))
    F = number("hidden_dim", made)
    length = MISTRAL_LENGTH if mistral else _context_length(theta, eps, bool(params.get("use_scaled_rope")))
    length = number("max_seq_len", number("max_position_embeddings", length))
    if window is not None and window < length:
        log.warning("%s: it attends to %d tokens back, and texts are kept to so many", file, window)
        length = window
    known = KNOWN.get((V, D, F, layers, _rows(tensors, names.layer_name(0, "k_proj")) or 0))
    floats = {name: tensor for name, tensor in tensors.items() if tensor.dtype in FLOATS}
    usual = SENTENCEPIECE_IDS if mistral or V < SENTENCEPIECE_VOCAB else (None, None)
    bos, eos = usual if mistral else SPECIAL_IDS.get(V, usual)
    try:
        return LlamaConfig(
            vocab_size=V,
            hidden_size=D,
            intermediate_size=F,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=None if params.get("head_dim") is None else number("head_dim"),
            max_position_embeddings=length,
            rms_norm_eps=eps,
            rope_theta=theta,
            rope_scaling=_scaling(file, params, known),
            bos_token_id=bos,
            eos_token_id=eos,
            tie_word_embeddings=names.LM_HEAD not in tensors,
            torch_dtype=main_dtype(floats) if floats else None,
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _is_mistral(params: Mapping[str, Any]) -> bool:
    """Whether the settings are Mistral's own, which leave open other things than Meta's: they say hidden_dim and no
    multiple_of. Those of llama2.c have a hidden_dim too, beside multiple_of."""
    return params.get("hidden_dim") is not None and params.get("multiple_of") is None


def _number(file: Path, params: Mapping[str, Any], key: str, default: Any = None, least: float = 1) -> Any:
    value = params.get(key)
    value = default if value is None else value
    whole = isinstance(default, int | None)
    fits = isinstance(value, int) if whole else isinstance(value, int | float)
    if isinstance(value, bool) or not fits or not least <= value < LIMIT:
        kind = "whole number" if whole else "number"
        raise ValueError(f"{file}: {key} must be a {kind} of at least {least:g}, not {repr(value)[:60]}")
    return value


def _scaling(file: Path, params: Mapping[str, Any], known: Known | None) -> dict[str, Any] | None:
    """That of Llama 3.1 and later. Their params.json does not say the factor, which differs."""
    if not params.get("use_scaled_rope"):
        return None
    factor = (known.rope_scaling if known and known.rope_scaling else {}).get("factor", 8.0)
    return {
        "rope_type": "llama3",
        "factor": _number(file, params, "rope_scaling_factor", factor),
        "low_freq_factor": _number(file, params, "rope_low_freq_factor", 1.0, 0),
        "high_freq_factor": _number(file, params, "rope_high_freq_factor", 4.0, 0),
        "original_max_position_embeddings": 8192,
    }


def _refuse_others(file: Path, params: Mapping[str, Any]) -> None:
    """ValueError for a field that is set and unknown here: it may say that the model computes otherwise."""
    for field, value in params.items():
        means = value is not None and value != _ONLY[field] if field in _ONLY else value
        if means and field not in _READ | _IDLE:
            raise ValueError(
                f"{file}: {field[:60]!a} is {repr(value)[:60]}, which is not known of any LLaMA: get the model as "
                "Hugging Face keeps it, if it is one"
            )


def _window(file: Path, params: Mapping[str, Any]) -> int | None:
    """How many tokens back the narrowest layer attends, where one does not to all of them."""
    stated = params.get("sliding_window")
    windows = [window for window in (stated if isinstance(stated, list) else [stated]) if window is not None]
    if not all(type(window) is int and 0 < window < LIMIT for window in windows):
        raise ValueError(f"{file}: sliding_window must be whole numbers above 0, not {repr(stated)[:60]}")
    return min(windows, default=None)


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
