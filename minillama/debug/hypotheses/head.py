"""The head, and the last norm before it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis, multiplied, table
from minillama.debug.names import LOGITS, NORM
from minillama.debug.steps import STEPS, How, Scene
from minillama.model.heads import log_softmax
from minillama.model.norm import rms_norm
from minillama.model.ops import linear, softmax

TABLE: dict[str, tuple[str, dict[str, How]]] = {
    "head.embedding": (
        "the embedding stands in the place of the head, which is not tied to it",
        {LOGITS: lambda s: linear(s[NORM], s.weights.embed_tokens[np.arange(s.config.vocab_size)])},
    ),
    "head.norm_missing": (
        "the head reads the stream before the last norm",
        {LOGITS: lambda s: linear(s.x, s.weights.lm_head)},
    ),
    "head.norm_twice": (
        "the last norm is applied twice",
        {LOGITS: lambda s: linear(rms_norm(s[NORM], s.weights.norm, s.config.rms_norm_eps), s.weights.lm_head)},
    ),
    "head.reshaped": (
        "the head is read as (in, out) and not transposed",
        {LOGITS: lambda s: s[NORM] @ s.weights.lm_head.reshape(s.weights.lm_head.shape[::-1])},
    ),
    "head.log_softmax": ("logits are log-probabilities", {LOGITS: lambda s: log_softmax(_logits(s))}),
    "head.softmax": ("logits are probabilities", {LOGITS: lambda s: softmax(_logits(s))}),
    "head.off_by_one": ("logits are one id too late", {LOGITS: lambda s: np.roll(_logits(s), 1, axis=-1)}),
    "head.off_by_one_early": ("logits are one id too early", {LOGITS: lambda s: np.roll(_logits(s), -1, axis=-1)}),
    "head.token": ("logits are one token late", {LOGITS: lambda s: np.roll(_logits(s), 1, axis=1)}),
}
FITS = 0.01  # of their size may be left of logits; of those of another matrix, where V >= 2 D, 0.7 is
SCALES = {"sqrt(D)": 0.5, "1/sqrt(D)": -0.5, "1/D": -1.0}  # as powers of D


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    yield from table(TABLE)
    for said, power in SCALES.items():
        factor = math.pow(case.config.hidden_size, power)
        yield Hypothesis("head.scale", f"logits are multiplied by {said}", {LOGITS: partial(multiplied, by=factor)})
    for cap in (30.0, 50.0):
        yield Hypothesis("head.softcap", f"logits are capped at {cap:g} by tanh", {LOGITS: partial(_capped, at=cap)})


def of_embedding(case: Case) -> bool | None:
    """Whether their logits are products of something with the embedding: D numbers for each token give those of twice
    as many ids, which they do not with another matrix. None if there are not so many ids."""
    V, D = case.config.vocab_size, case.config.hidden_size
    if V < 2 * D:
        return None  # any numbers would fit
    some = np.unique(np.linspace(0, V - 1, 2 * D).astype(np.int64))
    rows, theirs = case.weights.embed_tokens[some], case.theirs.reshape(-1, V)[:, some].T
    left = theirs - rows @ np.linalg.lstsq(rows, theirs)[0]
    return bool(np.linalg.norm(left) < FITS * np.linalg.norm(theirs))


def _capped(s: Scene, at: float) -> Array:
    return np.asarray(at * np.tanh(_logits(s) / at))


def _logits(s: Scene) -> Array:
    return STEPS[LOGITS](s)
