"""From logits to one id: penalties, temperature, and the ways to cut off the unlikely."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minillama.arrays import Array


@dataclass(frozen=True)
class Sampling:
    """How the next id is chosen. The steps run in the order of the fields; each is off at its default.

    repetition_penalty: logits of ids already seen are divided by it if positive, multiplied if negative (Keskar et
    al. 2019). temperature: logits are divided by it; 0 takes the largest logit (greedy) and nothing below matters.
    top_k: only the k most likely stay; 0 is off. top_p: only the fewest whose probabilities reach p (Holtzman et al.
    2019). min_p: only those at least min_p times as likely as the likeliest (Nguyen et al. 2024). The likeliest
    always stays.
    """

    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            "repetition_penalty": (0.01 <= self.repetition_penalty <= 100, "between 0.01 and 100"),
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or a number above"),
            "top_k": (self.top_k >= 0 and self.top_k == int(self.top_k), "0 (off) or a whole number above"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "between 0 and 1"),
        }
        for name, (sound, wanted) in checks.items():
            if not sound:
                raise ValueError(f"{name} must be {wanted}, not {getattr(self, name)}")

    def choose(self, logits: Array, seen: Iterable[int], rng: np.random.Generator) -> int:
        """The next id after `seen`, from its logits (V,). ValueError if they are NaN, or leave nothing to choose."""
        if self.repetition_penalty != 1:
            logits = penalize_repetition(logits, seen, self.repetition_penalty)
        if np.isnan(logits).any() or logits.max() == math.inf:
            raise ValueError("the model's logits are not finite: its weights have NaN or infinity, or overflow")
        if logits.max() == -math.inf:
            raise ValueError("every logit is minus infinity: there is no token left to choose")
        if self.temperature == 0:
            return int(logits.argmax())
        logits = logits.astype(np.float64)
        with np.errstate(over="ignore"):  # the largest becomes 0; a tiny temperature may leave the others at -inf
            logits = (logits - logits.max()) / self.temperature
        if self.top_k:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p < 1:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p > 0:
            logits = keep_min_p(logits, self.min_p)
        cumulative = np.cumsum(np.exp(logits))
        # random() is below 1, so the first sum above the draw exists, and is the end of a token that can be chosen
        return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def penalize_repetition(logits: Array, seen: Iterable[int], penalty: float) -> Array:
    """Logits (V,) with those of seen ids moved down by the factor `penalty`."""
    ids = np.unique(np.fromiter(seen, dtype=np.int64))
    ids = ids[ids < len(logits)]  # a prompt may have ids that are never chosen
    logits = logits.astype(np.float64)  # a copy, in which no penalty becomes infinite
    with np.errstate(over="ignore"):
        logits[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return logits


def keep_top_k(logits: Array, k: int) -> Array:
    """Everything below the k-th largest logit is set to -inf (ties with it stay)."""
    if k >= len(logits):
        return logits
    return np.where(logits < np.partition(logits, -k)[-k], -np.inf, logits)


def keep_top_p(logits: Array, p: float) -> Array:
    """Everything outside the smallest set of largest probabilities that sums to at least p is set to -inf."""
    order = np.argsort(-logits, kind="stable")
    probs = _softmax(logits)[order]
    outside = np.cumsum(probs) - probs >= p  # the sum before a token has reached p already
    result = logits.copy()
    result[order[outside]] = -np.inf
    return result


def keep_min_p(logits: Array, min_p: float) -> Array:
    """Everything less likely than min_p times the likeliest is set to -inf."""
    return np.where(logits < logits.max() + math.log(min_p), -np.inf, logits)


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())
