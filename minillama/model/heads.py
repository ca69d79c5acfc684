"""Heads: what turns hidden states into an answer, and the losses that train it."""

import math
from typing import Literal

import numpy as np

from minillama.arrays import Array
from minillama.messages import listed, shown
from minillama.model.ops import linear

IGNORE = -100  # the label of what does not count
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]


# -- language modelling -------------------------------------------------------------------------------------------


def lm_logits(hidden: Array, lm_head: Array) -> Array:
    """The score of every token of the vocabulary to come next: (B, T, D), (V, D) -> (B, T, V)."""
    return linear(hidden, lm_head)


def causal_lm_loss(logits: Array, labels: Array) -> float:
    """Mean of -log p(label) in nats, where the logits at t predict the label at t + 1.

    logits: (B, T, V); labels: (B, T) integers in 0 .. V - 1, or -100 for a token that does not count. NaN if none
    counts; ValueError for a label outside the vocabulary.
    """
    check_labels(labels, logits.shape[-1])
    return cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


def cross_entropy(logits: Array, labels: Array) -> float:
    """Mean of -log p(label) in nats over the labels that are not -100; NaN if all are. logits: (N, V), labels: (N,)."""
    counts = labels != IGNORE
    if not counts.any():
        return math.nan
    log_p = log_softmax(logits[counts])
    return float(-np.mean(np.take_along_axis(log_p, labels[counts][:, None], axis=1)))


def check_labels(labels: Array, number: int, what: str = "vocabulary") -> None:
    """ValueError if a label is neither one of 0 .. number - 1 nor ignored."""
    outside = (labels != IGNORE) & ((labels < 0) | (labels >= number))
    if outside.any():
        raise ValueError(f"labels has {labels[outside][0]}, outside the {what} 0..{number - 1} ({IGNORE} is ignored)")


def log_softmax(scores: Array) -> Array:
    """log(softmax(scores)) over the last axis, without ever taking the logarithm of a rounded zero."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


# -- classification -----------------------------------------------------------------------------------------------


def pooled_tokens(
    input_ids: Array, pad_token_id: int | None, rule: Literal["rightmost", "before first pad"] = "rightmost"
) -> Array:
    """Which token of each row stands for the whole row: the last one that is not padding. (B, T) -> (B,)

    A row of padding only is read at its first token. rule: "before first pad" is the way of transformers 4, which takes
    padding to be on the right, and a row that begins with it to end at its last token.
    """
    B, T = input_ids.shape
    if pad_token_id is None:
        return np.full(B, T - 1)
    if rule == "rightmost":
        return np.where(input_ids != pad_token_id, np.arange(T), 0).max(axis=1)
    return np.asarray((np.argmax(input_ids == pad_token_id, axis=1) - 1) % T)


def infer_problem_type(num_labels: int, labels: Array) -> ProblemType:
    """What a classifier is for, from its first labels: one number is a regression, whole numbers name one class each,
    others say of every class whether it applies."""
    if num_labels == 1:
        return "regression"
    return "single_label_classification" if np.issubdtype(labels.dtype, np.integer) else "multi_label_classification"


def check_class_labels(labels: Array, rows: int, num_labels: int, problem_type: str) -> Array:
    """Labels in the shape that classification_loss wants; one label a row may come as (B,), (B, 1) or (1, B).
    ValueError for what does not fit."""
    one_each, table = (rows,), (rows, num_labels)
    wanted = {
        "regression": one_each if num_labels == 1 else table,
        "single_label_classification": one_each,
        "multi_label_classification": table,
    }
    if problem_type not in wanted:
        raise ValueError(f"problem_type must be one of {listed(wanted)}, not {shown(problem_type)}")
    shape = wanted[problem_type]
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"labels for {problem_type} must be numbers, not {labels.dtype}")
    fits = labels.size == rows == max(labels.shape, default=1) if shape == one_each else labels.shape == shape
    if not fits:
        raise ValueError(f"labels for {problem_type} must have the shape {shape}, not {labels.shape}")
    if problem_type == "single_label_classification":
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels for {problem_type} must be integers, not {labels.dtype}")
        check_labels(labels, num_labels, "classes")
    return labels.reshape(shape)


def classification_loss(logits: Array, labels: Array, problem_type: str) -> float:
    """The loss of a classifier's logits (B, N), by the kind of its problem.

    regression: mean squared error against (B,) numbers for N = 1, else (B, N). single_label_classification: mean cross
    entropy in nats against (B,) class numbers, -100 ignored. multi_label_classification: mean over all (B, N) yes-or-no
    questions of the cross entropy of sigmoid(logit) against 0 .. 1. ValueError for labels that do not fit.
    """
    B, N = logits.shape
    labels = check_class_labels(labels, B, N, problem_type)
    if problem_type == "single_label_classification":
        return cross_entropy(logits, labels)
    labels = labels.astype(logits.dtype)
    if problem_type == "regression":
        return float(np.mean((logits.reshape(labels.shape) - labels) ** 2))
    # -y log sigmoid(x) - (1 - y) log(1 - sigmoid(x)), with no exponential of a positive number
    losses = np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))
    return float(np.mean(losses))
