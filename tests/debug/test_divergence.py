"""Divergence by its definition; none between a model and itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from minillama.arrays import Array
from minillama.debug.divergence import Divergence, divergences, kl_divergence
from minillama.debug.perplexity import strided_windows
from minillama.model.heads import log_softmax
from tests.tiny import SEEDS, random_ids, spiky, tiny_model


def by_definition(log_p: Array, log_q: Array) -> float:
    return math.fsum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True) if p > -math.inf)


@given(SEEDS)
def test_kl_divergence_is_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_p, log_q = log_softmax(3 * spiky(rng, 4, 29)), log_softmax(3 * spiky(rng, 4, 29))
    wanted = [by_definition(p, q) for p, q in zip(log_p, log_q, strict=True)]
    # The terms are up to some hundred and rounded at 1e-16
    np.testing.assert_allclose(kl_divergence(log_p, log_q), wanted, atol=1e-13)
    assert (kl_divergence(log_p, log_q) > 0).all()
    assert (kl_divergence(log_p, log_p) == 0).all()


def test_what_is_impossible_adds_nothing_and_what_was_thought_so_everything() -> None:
    with np.errstate(divide="ignore"):
        half, all_of_it = np.log([0.5, 0.5, 0]), np.log([1.0, 0, 0])
    assert kl_divergence(all_of_it, half) == pytest.approx(math.log(2))
    assert kl_divergence(half, all_of_it) == math.inf


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_beside_itself(dtype: str) -> None:
    model, ids = tiny_model(dtype=dtype), random_ids(3, 30)
    ours, (itself,) = divergences(model, [model], ids, list(strided_windows(30, 12, 7)))
    assert itself.kl == [0.0] * 29
    assert itself.agreement == 1
    assert itself.overturned == 0
    assert itself.scores == ours


def test_models_beside_each_other() -> None:
    """Against a pass over each window by itself."""
    models, ids = [tiny_model(seed) for seed in (0, 1, 2)], random_ids(4, 25)
    plan = list(strided_windows(25, 10, 6))
    done: list[int] = []
    ours, others = divergences(models[0], models[1:], ids, plan, step=done.append)
    assert done == [10, 10, 10, 7]
    log_p = [
        np.concatenate([
            log_softmax(model(ids[None, w.start : w.stop]).logits[0])[w.first - 1 - w.start : w.stop - 1 - w.start]
            for w in plan
        ])
        for model in models
    ]  # fmt: skip
    rows, came = np.arange(24), ids[1:]
    np.testing.assert_allclose(ours.nll, -log_p[0][rows, came], atol=1e-11)  # two orders of the same float64 sums
    for other, log_q in zip(others, log_p[1:], strict=True):
        np.testing.assert_allclose(other.kl, kl_divergence(log_p[0], log_q), atol=1e-11)
        np.testing.assert_allclose(other.scores.nll, -log_q[rows, came], atol=1e-11)
        assert other.same == (log_p[0].argmax(1) == log_q.argmax(1)).tolist()
        best = np.sort(log_p[0], axis=1)
        np.testing.assert_allclose(other.margin, best[:, -1] - best[:, -2], atol=1e-11)
    assert others[0].kl != others[1].kl


def test_what_is_told_of_a_divergence() -> None:
    told = Divergence(kl=[0.1, 0.2, 0.6], same=[True, False, False], margin=[5.0, 0.003, 0.02])
    assert told.mean_kl == pytest.approx(0.3)
    assert told.agreement == pytest.approx(1 / 3)
    assert told.overturned == 0.02
    assert told.close(0.01) == pytest.approx(1 / 3)
    assert told.kl_at(0.5) == pytest.approx(0.2)
