"""How far one model's predictions are from another's: of other weights, in another format, on another engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.debug.perplexity import CausalLM, Perplexity, Window, predictions


@dataclass
class Divergence:
    """A model beside the reference, at every predicted token, in order.

    kl: sum of p (log p - log q) over the vocabulary in nats, p of the reference, q of the model. same: whether both
    find the same token likeliest. margin: by how many nats the reference prefers its likeliest token to the next; what
    greedy decoding turns on.
    """

    scores: Perplexity = field(default_factory=Perplexity)
    kl: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    margin: list[float] = field(default_factory=list)

    @property
    def mean_kl(self) -> float:
        return math.fsum(self.kl) / len(self.kl)

    def kl_at(self, share: float) -> float:
        """What that share of the tokens stays below."""
        return float(np.quantile(self.kl, share))

    @property
    def agreement(self) -> float:
        """The share of tokens where both find the same one likeliest."""
        return sum(self.same) / len(self.same)

    @property
    def overturned(self) -> float:
        """The largest margin of the reference that the model turned round, in nats; 0 if it turned none."""
        return max((m for m, same in zip(self.margin, self.same, strict=True) if not same), default=0.0)

    def close(self, nats: float) -> float:
        """The share of tokens where the reference's margin is smaller: what so large an error could turn round."""
        return sum(m < nats for m in self.margin) / len(self.margin)


def kl_divergence(log_p: Array, log_q: Array) -> Array:
    """Sum of p (log p - log q) over the last axis, in nats: (..., V), (..., V) -> (...). Where p is 0 nothing is added.

    Kullback and Leibler 1951. It is never below 0 but for rounding, and exactly 0 for equal inputs.
    """
    with np.errstate(invalid="ignore"):
        terms = np.exp(log_p) * (log_p - log_q)
    return np.asarray(np.where(np.isneginf(log_p), 0, terms).sum(axis=-1))


def divergences(
    reference: CausalLM,
    models: Sequence[CausalLM],
    ids: Array,
    plan: Sequence[Window],
    bos: int | None = None,
    step: Callable[[int], Any] = int,
) -> tuple[Perplexity, list[Divergence]]:
    """How well the reference predicts ids (N,), and each model beside it, window by window of the plan.

    All are read in step, some tokens at a time, so that no more than their logits for these are held.
    """
    ours, others = Perplexity(), [Divergence() for _ in models]
    for window in plan:
        nll: list[list[float]] = [[] for _ in range(len(models) + 1)]
        streams = [predictions(model, ids, window, bos) for model in (reference, *models)]
        for parts in zip(*streams, strict=True):
            (log_p, came), *rest = parts
            rows = np.arange(len(came))
            top = log_p.argmax(axis=-1)
            second, first = np.partition(log_p, -2, axis=-1)[:, -2:].T
            nll[0] += (-log_p[rows, came]).tolist()
            for other, mine, (log_q, _) in zip(others, nll[1:], rest, strict=True):
                mine += (-log_q[rows, came]).tolist()
                other.kl += kl_divergence(log_p, log_q).tolist()
                other.same += (log_q.argmax(axis=-1) == top).tolist()
                other.margin += (first - second).tolist()
        for scores, of_window in zip((ours, *(other.scores for other in others)), nll, strict=True):
            scores.add(window, of_window)
        step(window.stop - window.start)
    return ours, others
