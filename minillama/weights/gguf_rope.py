"""Rotary scaling as GGUF files have it: by name in the metadata, or as a factor for every pair of components."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.messages import shown
from minillama.weights.gguf_file import field, shortest

log = logging.getLogger("minillama")
EXACT = 1e-5  # relative: the factors are float32, whose rounding errors a few operations on them make a little larger


def scaling_of(
    metadata: Mapping[str, Any], factors: Array | None, theta: float, head_dim: int
) -> dict[str, Any] | None:
    """rope_scaling as a config has it, or None. factors: (K/2,), by which llama.cpp divides the frequencies."""
    prefix = "llama.rope.scaling."
    kind = field(metadata, f"{prefix}type", str, "linear")  # as llama.cpp takes a factor without a type
    older = field(metadata, "llama.rope.scale_linear", float, 1.0)
    factor = shortest(field(metadata, f"{prefix}factor", float, older)) or 1.0
    attention = shortest(field(metadata, f"{prefix}attn_factor", float, 1.0))
    if kind not in ("none", "linear", "yarn"):
        raise ValueError(f"its rotary scaling is {shown(kind)}, and 'linear', 'yarn' and that of Llama 3 are read")
    for name, value in (("factor", factor), ("attn_factor", attention)):
        if not 0 < value < math.inf:
            raise ValueError(f"its {prefix}{name} is {value}, which must be above 0 and finite")
    plain = factors is None or bool((factors == 1).all())
    if kind == "yarn":
        if not plain:
            raise ValueError("its rotary frequencies are scaled twice, by yarn and by a tensor")
        return _yarn(metadata, factor, attention)
    factor = 1.0 if kind == "none" else factor
    if attention == 1 and factor == 1:
        return None if plain else _of_factors(np.asarray(factors), theta, head_dim)
    if attention == 1 and plain and factor > 1:
        return {"rope_type": "linear", "factor": factor}
    return _as_they_are(factor * (np.ones(head_dim // 2) if factors is None else factors), attention)


def _yarn(metadata: Mapping[str, Any], factor: float, attention: float) -> dict[str, Any]:
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    original = "llama.rope.scaling.original_context_length"
    if original in metadata:
        scaling["original_max_position_embeddings"] = field(metadata, original, int)
    if attention != 1:  # llama.cpp multiplies the usual by it
        scaling["attention_factor"] = (1 + 0.1 * math.log(max(factor, 1))) * attention
    return scaling


def _as_they_are(factors: Array, attention: float = 1.0) -> dict[str, Any]:
    """What every pair's frequency is divided by, and what cosines and sines are multiplied by, kept without a name."""
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ValueError("its rope_freqs.weight holds numbers that are not above 0 and finite")
    listed = [float(factor) for factor in factors]
    return {"rope_type": "longrope", "short_factor": listed, "long_factor": listed, "attention_factor": attention}


def _of_factors(factors: Array, theta: float, head_dim: int) -> dict[str, Any]:
    """The scaling of Llama 3 that gives these factors; where none does, the factors themselves."""
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise ValueError("its rope_freqs.weight holds numbers that are not above 0 and finite")
    inv_freq = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    for scaling in _candidates(factors, inv_freq):
        if np.allclose(llama3_factors(inv_freq, scaling), factors, rtol=EXACT, atol=0):
            return scaling
    log.warning("its rotary factors are not those of Llama 3's scaling: they are kept as they are, as longrope")
    return _as_they_are(factors)


def llama3_factors(inv_freq: Array, scaling: Mapping[str, Any]) -> Array:
    """By what Llama 3's scaling divides each frequency; see minillama.model.rope_scaling."""
    turns = scaling["original_max_position_embeddings"] * inv_freq / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(1 / (keep + (1 - keep) / scaling["factor"]))


def _candidates(factors: Array, inv_freq: Array) -> Iterator[dict[str, Any]]:
    """Scalings that may give the factors. Only the ratios of low, high and the original length matter, so low is 1."""
    factor = float(factors.max())
    if factor <= 1:
        return

    def scaling(high: float, original: int) -> dict[str, Any]:
        return {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }

    yield scaling(4.0, 8192)  # Meta's own
    # Between low and high, what is kept is a line over the frequency: slope original / (2 pi (high - low)), at 0
    # -low / (high - low)
    keep = (1 / factors - 1 / factor) / (1 - 1 / factor)
    between = (keep > 0.001) & (keep < 0.999)
    if between.sum() >= 2:
        slope, start = np.polyfit(inv_freq[between], keep[between], 1)
        if slope > 0 and start < 0 and -1 / start < 1e6:
            high = 1 - 1 / start
            original = 2 * math.pi * slope * (high - 1)
            if 1 <= original < 1 << 31:
                yield scaling(float(f"{high:.5g}"), round(original))
                yield scaling(high, round(original))
    for power in range(3, 24):
        yield scaling(4.0, 1 << power)
