"""Rotary frequencies: theta and its scalings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.hypotheses.rope import Q, both, by, frequencies, powers, scale, turned
from minillama.debug.steps import Scene
from minillama.model.rope_scaling import inverse_frequencies

THETAS = (10_000.0, 100_000.0, 500_000.0, 1_000_000.0, 1_000.0, 100.0)
FACTORS = (2.0, 4.0, 8.0, 16.0, 32.0)
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    config = case.config
    if config.rope_type in ("dynamic", "longrope"):
        yield from _of_length(config)
        return
    for cause, other in _configs(config):
        yield from both("rope.theta" if "theta" in cause else "rope.scaling", cause, partial(by, config=other))
    yield from both("rope.factor", "the attention factor of the scaling is left out",
                    lambda s, x: turned(x, s.positions, frequencies(config)))  # fmt: skip
    for cause, inv_freq in _frequencies(config):
        yield from both("rope.scaling", cause, partial(_with, inv_freq=inv_freq))
    fitted = fitted_frequencies(case)
    named = [frequencies(config) ** power for *_, power in powers(config)]
    if fitted is not None and not (
        np.isclose(THETAS, _theta(fitted), rtol=1e-2).any() or any(np.allclose(fitted, f, rtol=1e-2) for f in named)
    ):
        yield from both("rope.theta", _said(fitted, config), lambda s, x: turned(x, s.positions, fitted))


def _of_length(config: LlamaConfig) -> Iterator[Hypothesis]:
    """Frequencies that are not those of each token's own length."""
    short = "the short factors are taken" if config.rope_type == "longrope" else "the dynamic scaling is never applied"
    whole = "frequencies are those of the whole text, for every token of it, as transformers has them"
    factor = scale(config)
    changes: list[tuple[str, str, int | None, float]] = [
        ("rope.short", f"{short}, whatever the length", 1, factor),
        ("rope.whole_text", whole, None, factor),
    ]
    if factor != 1:
        changes.append(("rope.factor", f"{whole}, and the attention factor is left out", None, 1.0))
    for key, cause, length, times in changes:

        def q(s: Scene, length: int | None = length, times: float = times) -> Array:
            positions = s.positions
            inv_freq = inverse_frequencies(config, np.asarray(length or positions.max() + 1))
            return turned(s["self_attn.q_proj"], positions, inv_freq) * times

        yield Hypothesis(key, f"rope: {cause}", {Q: q})


def _with(s: Scene, x: Array, inv_freq: Array) -> Array:
    return turned(x, s.positions, inv_freq) * scale(s.config)


def _configs(config: LlamaConfig) -> Iterator[tuple[str, LlamaConfig]]:
    """Other thetas and scalings than the config's."""
    base = config.to_dict() | {"rope_parameters": None}
    own = dict(config.rope_scaling or {})

    def other(theta: float, scaling: object) -> LlamaConfig:
        return LlamaConfig.from_dict(base | {"rope_theta": theta, "rope_scaling": scaling})

    for theta in THETAS:
        if theta != config.rope_theta:
            yield f"theta is {theta:g} and not {config.rope_theta:g}", other(theta, config.rope_scaling)
    if own:
        yield f"the {config.rope_type} scaling of the frequencies is missing", other(config.rope_theta, None)
    for factor in FACTORS:
        if own.get("factor") != factor or config.rope_type != "linear":
            said = f"frequencies are scaled linearly by {factor:g}"
            yield said, other(config.rope_theta, {"rope_type": "linear", "factor": factor})
        length = config.original_max_position_embeddings
        if own.get("factor") != factor:
            llama3 = (
                LLAMA3 | own | {"rope_type": "llama3", "factor": factor, "original_max_position_embeddings": length}
            )
            yield f"frequencies are scaled as in Llama 3.1, by {factor:g}", other(config.rope_theta, llama3)


def _frequencies(config: LlamaConfig) -> Iterator[tuple[str, Array]]:
    """Scalings that no config says."""
    plain = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    scaling = config.rope_scaling or {}
    if factor := scaling.get("factor"):
        yield f"frequencies are multiplied by the factor {factor:g}, not divided", plain * factor
    if config.rope_type == "llama3":
        turns = config.original_max_position_embeddings * plain / (2 * math.pi)
        for limit, what in (("low_freq_factor", "kept"), ("high_freq_factor", "divided")):
            said = f"pairs between the two limits of the llama3 scaling are {what}, and not blended"
            yield said, np.where(turns < scaling[limit], plain / scaling["factor"], plain)


def fitted_frequencies(case: Case) -> Array | None:
    """How fast each pair turns in theirs, (K/2,): by how much those of position 1 have turned. None if they have not
    merely turned, or there are none to see."""
    before = case.honest.value(case.target._replace(local="self_attn.q_proj")) if case.target.local == Q else None
    if before is None or case.target.step or before.shape != case.theirs.shape or before.shape[2] < 2:
        return None
    (a, b), (c, d) = (np.split(x[:, :, 1], 2, axis=-1) for x in (before, case.theirs))
    angles = np.arctan2(a * d - b * c, a * c + b * d)  # (B, H, K/2)
    fitted = np.median(angles, axis=(0, 1))
    return fitted if np.abs(angles - fitted).max() < 1e-3 and (fitted > 0).all() else None


def _said(fitted: Array, config: LlamaConfig) -> str:
    """Frequencies in words: as powers of one theta, if they are."""
    theta = _theta(fitted)
    powers = theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    if np.allclose(powers, fitted, rtol=1e-2):
        return f"theta is about {theta:.4g} and not {config.rope_theta:g}"
    own = frequencies(config)
    j = int(np.abs(np.log(fitted / own)).argmax()) if (own > 0).all() else len(own) - 1
    return f"pairs turn with other frequencies: pair {j} of {len(own)} by {fitted[j]:.4g} and not {own[j]:.4g}"


def _theta(inv_freq: Array) -> float:
    """The theta of which frequencies are powers, by the slowest: theta^(-(K - 2) / K)."""
    return float(inv_freq[-1] ** (-len(inv_freq) / max(len(inv_freq) - 1, 1)))
