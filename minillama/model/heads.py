"""Heads: what turns hidden states into an answer, and the loss that trains it."""

import math

import numpy as np

from minillama.arrays import Array
from minillama.model.ops import linear


def lm_logits(hidden: Array, lm_head: Array) -> Array:
    """The score of every token of the vocabulary to come next: (B, T, D), (V, D) -> (B, T, V)."""
    return linear(hidden, lm_head)


def causal_lm_loss(logits: Array, labels: Array, ignore_index: int = -100) -> float:
    """Mean of -log p(label) in nats, where the logits at t predict the label at t + 1.

    logits: (B, T, V); labels: (B, T) integers in 0 .. V - 1, or ignore_index for a token that does not count. NaN
    if none counts; ValueError for a label outside the vocabulary.
    """
    V = logits.shape[-1]
    check_labels(labels, V, ignore_index)
    predicted, targets = logits[:, :-1].reshape(-1, V), labels[:, 1:].reshape(-1)
    counts = targets != ignore_index
    if not counts.any():
        return math.nan
    log_p = log_softmax(predicted[counts])
    return float(-np.mean(np.take_along_axis(log_p, targets[counts][:, None], axis=1)))


def check_labels(labels: Array, vocab_size: int, ignore_index: int = -100) -> None:
    """ValueError if a label is neither a token of the vocabulary nor ignored."""
    outside = (labels != ignore_index) & ((labels < 0) | (labels >= vocab_size))
    if outside.any():
        raise ValueError(
            f"labels has {labels[outside][0]}, outside the vocabulary 0..{vocab_size - 1} ({ignore_index} is ignored)"
        )


def log_softmax(scores: Array) -> Array:
    """log(softmax(scores)) over the last axis, without ever taking the logarithm of a rounded zero."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
