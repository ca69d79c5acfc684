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
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or a finite number above"),
            "top_k": (self.top_k >= 0 and self.top_k == int(self.top_k), "0 (off) or a whole number above"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "between 0 and 1"),
        }
        for name, (sound, wanted) in checks.items():
            if not sound:
                raise ValueError(f"{name} must be {wanted}, not {getattr(self, name)}")

    def choose(self, logits: Array, seen: Iterable[int], rng: np.random.Generator) -> int:
        """The next id after `seen`, from its logits (V,). ValueError if they are NaN, or leave nothing to choose."""
        logits = self._penalized(logits, seen)
        if self.temperature == 0:
            return int(logits.argmax())
        return draw(self._kept(logits), rng)

    def probabilities(self, logits: Array, seen: Iterable[int]) -> Array:
        """What choose draws from: the probability (V,) of every id, 0 of those cut off. ValueError as there."""
        logits = self._penalized(logits, seen)
        if self.temperature == 0:
            return np.asarray(np.arange(len(logits)) == logits.argmax(), np.float64)
        return _softmax(self._kept(logits))

    def _penalized(self, logits: Array, seen: Iterable[int]) -> Array:
        logits = logits.astype(np.float64)
        if self.repetition_penalty != 1:
            ids = np.fromiter(seen, dtype=np.int64)
            logits = penalize_repetition(logits, seen_ids(ids, len(logits)), self.repetition_penalty)
        check_choice(logits)
        return logits

    def _kept(self, logits: Array) -> Array:
        """Logits at this temperature, minus infinity for the unlikely."""
        with np.errstate(over="ignore"):  # the largest becomes 0; a tiny temperature may leave the others at -inf
            logits = (logits - logits.max()) / self.temperature
        if self.top_k:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p < 1:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p > 0:
            logits = keep_min_p(logits, self.min_p)
        return logits


# The functions below take logits (..., V). Those that keep some of them set the others to `fill`; the `least` that come
# first stay in any case.


def check_choice(logits: Array) -> None:
    """ValueError if a row of logits (..., V) is not made of numbers, or leaves no id to choose."""
    if np.isnan(logits).any() or logits.max() == math.inf:
        raise ValueError("the model's logits are not finite: its weights have NaN or infinity, or overflow")
    if logits.max(axis=-1).min() == -math.inf:
        raise ValueError("every logit is minus infinity: there is no token left to choose")


def draw(logits: Array, rng: np.random.Generator) -> int:
    """An id, with the probabilities that logits (V,) stand for."""
    cumulative = np.cumsum(np.exp(logits.astype(np.float64) - logits.max()))
    # random() is below 1, so the first sum above the draw exists, and is the end of a token that can be chosen
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def seen_ids(ids: Array, size: int) -> Array:
    """Which of the ids 0 .. size - 1 each row of ids (..., T) has: a mask (..., size)."""
    seen = np.zeros((*ids.shape[:-1], size + 1), bool)
    np.put_along_axis(seen, np.where((ids < 0) | (ids > size), size, ids), True, axis=-1)
    return seen[..., :size]


def penalize_repetition(logits: Array, seen: Array, penalty: float) -> Array:
    """Where `seen`, a mask (..., V), holds, positive logits are divided by `penalty` and negative ones multiplied."""
    wide = logits.astype(np.float64)  # in which no penalty becomes infinite
    with np.errstate(over="ignore"):
        return np.where(seen, np.where(wide > 0, wide / penalty, wide * penalty), wide).astype(logits.dtype)


def keep_top_k(logits: Array, k: int, fill: float = -math.inf) -> Array:
    """The k largest stay, and ties with the last of them."""
    if k >= logits.shape[-1]:
        return logits
    return np.where(logits < np.partition(logits, -k, axis=-1)[..., [-k]], fill, logits)


def keep_top_p(logits: Array, p: float, least: int = 1, fill: float = -math.inf) -> Array:
    """The fewest stay whose probabilities sum to at least p; of equals, the first."""
    order = np.argsort(-logits, axis=-1, kind="stable")[..., ::-1]  # the least likely first
    below = np.take_along_axis(_softmax(logits), order, axis=-1).cumsum(axis=-1) <= 1 - p
    below[..., -least:] = False
    return _fill(logits, order, below, fill)


def keep_min_p(logits: Array, min_p: float, least: int = 1, fill: float = -math.inf) -> Array:
    """Those stay that are at least min_p times as likely as the likeliest."""
    cut = _relative(logits) < min_p
    if least > 1:
        np.put_along_axis(cut, np.argsort(-logits, axis=-1, kind="stable")[..., :least], False, axis=-1)
    return np.where(cut, fill, logits)


def keep_typical(logits: Array, mass: float, least: int = 1, fill: float = -math.inf) -> Array:
    """The fewest stay whose probabilities sum to at least `mass`, taken by how near their -log p is to the entropy,
    and ties with the last of them (Meister et al. 2023, section 3)."""
    log_p = log_softmax(logits.astype(np.float64))
    p = np.exp(log_p)
    entropy = -np.sum(p * np.where(p > 0, log_p, 0), axis=-1, keepdims=True)
    oddness = np.abs(-log_p - entropy)
    order = np.argsort(oddness, axis=-1, kind="stable")
    reached = (np.take_along_axis(p, order, axis=-1).cumsum(axis=-1) < mass).sum(axis=-1, keepdims=True)
    ranked = np.take_along_axis(oddness, order, axis=-1)
    beyond = ranked > np.take_along_axis(ranked, np.minimum(reached, logits.shape[-1] - 1), axis=-1)
    beyond[..., :least] = False
    return _fill(logits, order, beyond, fill)


def log_softmax(logits: Array) -> Array:
    """log p: logits (..., V) minus the logarithm of the sum of their exponentials."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _relative(logits: Array) -> Array:
    """How likely each is, in float64, as a part of the likeliest."""
    with np.errstate(invalid="ignore"):  # all of them -inf: what is drawn from that is refused
        return np.asarray(np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)))


def _softmax(logits: Array) -> Array:
    weights = _relative(logits)
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _fill(logits: Array, order: Array, cut: Array, fill: float) -> Array:
    """Logits with `fill` at the places of `order` that `cut` marks."""
    mask = np.empty_like(cut)
    np.put_along_axis(mask, order, cut, axis=-1)
    return np.where(mask, fill, logits)
