"""The frequencies that rotary pairs turn with, and the ways to stretch them to longer contexts."""

import math
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig


def inverse_frequencies(config: LlamaConfig, length: Array) -> Array:
    """Radians a position for each of the K/2 pairs: theta^(-2j/K), changed by config.rope_scaling.

    length: array of text lengths, any shape; it matters to "dynamic" and "longrope" only, which return
    (*length.shape, K/2); the others return (K/2,).
    """
    K, scaling = config.head_dim, config.rope_scaling or {}
    exponents = np.arange(0, K, 2) / K
    inv_freq: Array = config.rope_theta**-exponents
    match config.rope_type:
        case "linear":  # position interpolation, Chen et al. 2023
            return inv_freq / scaling["factor"]
        case "dynamic":  # the base grows with the text, so that the slowest pair spans it (bloc97, emozilla 2023)
            factor, limit = scaling["factor"], config.max_position_embeddings
            stretch = factor * np.maximum(length, limit) / limit - (factor - 1)
            base = config.rope_theta * stretch ** (K / (K - 2))
            return np.asarray(base[..., None] ** -exponents)
        case "llama3":
            return _llama3(inv_freq, config.original_max_position_embeddings, scaling)
        case "yarn":
            return _yarn(inv_freq, config, scaling)
        case "longrope":  # Ding et al. 2024: searched factors, one set up to the trained length, one beyond
            long = (length > config.original_max_position_embeddings)[..., None]
            return inv_freq / np.where(long, scaling["long_factor"], scaling["short_factor"])
        case "proportional":  # only the first pairs turn, as in Gemma 4
            turning = np.arange(K // 2) < int(scaling.get("partial_rotary_factor", 1.0) * K // 2)
            return np.where(turning, inv_freq, 0) / (scaling.get("factor") or 1)
        case _:
            return inv_freq


def _llama3(inv_freq: Array, original: int, scaling: dict[str, Any]) -> Array:
    """Slow pairs, which turn less than low_freq_factor times in the trained context, are divided by the factor;
    fast ones, more than high_freq_factor times, are left; between, the two blend linearly (Llama 3.1)."""
    turns = original * inv_freq / (2 * math.pi)  # in the trained context
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return keep * inv_freq + (1 - keep) * inv_freq / scaling["factor"]


def _yarn(inv_freq: Array, config: LlamaConfig, scaling: dict[str, Any]) -> Array:
    """As llama3, but the blend is linear in the index of the pair: from the pair that turns beta_fast times in the
    trained context to the one that turns beta_slow times (Peng et al. 2023, section 3.2)."""
    K, original = config.head_dim, config.original_max_position_embeddings

    def pair_turning(times: float) -> float:
        return K * math.log(original / (times * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    first = pair_turning(scaling.get("beta_fast") or 32)
    last = pair_turning(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, K - 1)
    interpolate = np.clip((np.arange(K // 2) - first) / (last - first or 0.001), 0, 1)
    return (1 - interpolate) * inv_freq + interpolate * inv_freq / stretch(config)


def stretch(config: LlamaConfig) -> float:
    """How many times longer contexts become: the factor, or where none is given, what the two lengths say."""
    given: float | None = (config.rope_scaling or {}).get("factor")
    return given or config.max_position_embeddings / config.original_max_position_embeddings


def attention_factor(config: LlamaConfig) -> float:
    """What cos and sin are multiplied by: yarn and longrope sharpen the softmax of stretched contexts."""
    scaling, original = config.rope_scaling or {}, config.original_max_position_embeddings
    if config.rope_type not in ("yarn", "longrope"):
        return 1.0
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    factor = stretch(config)
    if factor <= 1:
        return 1.0
    if config.rope_type == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(original))
    per_mscale = 0.1 * math.log(factor)  # Peng et al. 2023, equation 22
    mscale, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return (per_mscale * mscale + 1) / (per_mscale * all_dim + 1) if mscale and all_dim else per_mscale + 1
