"""The exercises of chapter 11, classification."""

import numpy as np
from checks import Exercise

from minillama.model.heads import classification_loss, pooled_tokens
from minillama.model.ops import softmax

_random = np.random.default_rng(11)

# Padding on the right, on the left, nowhere, in the middle, on both sides, and nothing else
_IDS = np.array([[5, 3, 7, 0, 0], [0, 0, 4, 9, 2], [8, 1, 6, 2, 3], [5, 0, 7, 4, 0], [0, 6, 3, 0, 0], [0, 0, 0, 0, 0]])


def last_token(ids, pad):
    return pooled_tokens(ids, pad)


def gradient(X, y, W):
    p = softmax(X @ W.T)
    p[np.arange(len(y)), y] -= 1
    return p.T @ X / len(y)


def _ones(X, y, W):
    return np.eye(len(W))[y]


def yes_or_no_loss(logits, labels):
    return classification_loss(logits, labels, "multi_label_classification")


def _entropies(p, labels):
    return -(labels * np.log(p) + (1 - labels) * np.log(1 - p))


def _sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def _clipped(least):
    return lambda logits, labels: np.mean(_entropies(np.clip(_sigmoid(logits), least, 1 - least), labels))


def _parts(logits, labels):
    """The three terms of the safe formula."""
    return np.maximum(logits, 0), logits * labels, np.log1p(np.exp(-np.abs(logits)))


_X, _Y = _random.normal(0.3, 1.5, (7, 5)), np.array([2, 0, 1, 2, 2, 0, 2])
_HEAD = _random.normal(0.2, 0.8, (3, 5))
_SQUARE, _SQUARE_HEAD = _random.normal(0.1, 1, (4, 4)), _random.normal(0, 1, (4, 4))
_LOGITS = _random.normal(0.5, 2, (4, 3))
_ANSWERS = np.array([[1.0, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]])
_LARGE = np.array([[800.0, -3.0], [-800.0, 2.0], [1.0, -800.0]])
_THEIRS = np.array([[1.0, 0], [1, 1], [0, 0]])
_S, _M, _R = "single_label_classification", "multi_label_classification", "regression"

EXERCISES = {
    "11.1": Exercise(
        name="last_token",
        right=last_token,
        cases=[(_IDS, 0), (np.where(_IDS == 0, 2, _IDS + 10), 2), (_IDS[:3], 0)],
        mistakes={
            "that is the last column, padding or not": lambda ids, pad: np.full(len(ids), ids.shape[1] - 1),
            "you count tokens: with padding on the left or in the middle the last one stands further right": (
                lambda ids, pad: np.maximum((ids != pad).sum(axis=1) - 1, 0)
            ),
            "you count tokens, and a row of padding gets -1: look for the place of the last one instead": (
                lambda ids, pad: (ids != pad).sum(axis=1) - 1
            ),
            "you stop before the first padding, as transformers 4 did: there may be text after it": lambda ids, pad: (
                pooled_tokens(ids, pad, "before first pad")
            ),
            "you stop before the first padding: there may be text after it, and a row without any has no first": (
                lambda ids, pad: np.argmax(ids == pad, axis=1) - 1
            ),
            "that is the first token that is no padding": lambda ids, pad: np.argmax(ids != pad, axis=1),
            "one too far: indices count from 0": lambda ids, pad: pooled_tokens(ids, pad) + 1,
            "a row of nothing but padding is read at its first token, 0; yours has the last": lambda ids, pad: (
                ids.shape[1] - 1 - np.argmax((ids != pad)[:, ::-1], axis=1)
            ),
            "a row of nothing but padding is read at its first token, 0; yours has -1": lambda ids, pad: np.where(
                ids != pad, np.arange(ids.shape[1]), -1
            ).max(axis=1),
            "you look from the end, and have not turned the index round again": lambda ids, pad: np.argmax(
                (ids != pad)[:, ::-1], axis=1
            ),
            "that is the largest id of the row: wanted is the place of the last": lambda ids, pad: np.where(
                ids != pad, ids, 0
            ).max(axis=1),
            "you look for the id 0; it is the id `pad`": lambda ids, pad: pooled_tokens(ids, 0),
            "that is the id of the token; its index is wanted": lambda ids, pad: ids[
                np.arange(len(ids)), pooled_tokens(ids, pad)
            ],
        },
    ),
    "11.2": Exercise(
        name="gradient",
        right=gradient,
        cases=[(_X, _Y, _HEAD), (_SQUARE, np.array([3, 1, 1, 0]), _SQUARE_HEAD)],
        mistakes={
            "you sum over the texts where their mean is wanted": lambda X, y, W: gradient(X, y, W) * len(y),
            "the sign is wrong: probabilities minus ones, not ones minus probabilities": lambda X, y, W: (
                -gradient(X, y, W)
            ),
            "the ones are missing: subtract 1 from the probability of the right class": lambda X, y, W: (
                softmax(X @ W.T).T @ X / len(y)
            ),
            "the softmax is missing: you take logits for probabilities": lambda X, y, W: (
                (X @ W.T - _ones(X, y, W)).T @ X / len(y)
            ),
            "the exponentials are not divided by their sum": lambda X, y, W: (
                (np.exp(X @ W.T) - _ones(X, y, W)).T @ X / len(y)
            ),
            "you subtract the number of the class: it is 1, and from the probability of that class only": (
                lambda X, y, W: (softmax(X @ W.T) - y[:, None]).T @ X / len(y)
            ),
            "you divide by all numbers of X: it is the mean over its texts": lambda X, y, W: (
                gradient(X, y, W) / X.shape[1]
            ),
            "the softmax runs over the texts: it belongs over the classes, the last axis": lambda X, y, W: (
                (softmax((X @ W.T).T).T - _ones(X, y, W)).T @ X / len(y)
            ),
            "you divide by the number of classes: it is the mean over the texts": lambda X, y, W: (
                gradient(X, y, W) * len(y) / len(W)
            ),
            "you divide by the number of all probabilities: it is the mean over the texts": lambda X, y, W: (
                gradient(X, y, W) / len(W)
            ),
            "the probabilities are squared somewhere: the gradient has p minus ones, and no other factor": (
                lambda X, y, W: ((softmax(X @ W.T) - _ones(X, y, W)) * softmax(X @ W.T)).T @ X / len(y)
            ),
            "1 is taken from a whole column: index the rows too, p[np.arange(N), y]": lambda X, y, W: (
                (softmax(X @ W.T) - np.isin(np.arange(len(W)), y)).T @ X / len(y)
            ),
        },
    ),
    "11.3": Exercise(
        name="kinds",
        right=[_R, _S, _M, _M],
        mistakes={
            "(d): floats are taken for multi-label, even where they are meant as classes": [_R, _S, _M, _S],
            "(a): with one output it is a regression, whatever the dtype": [_S, _S, _M, _M],
            "(a) and (d): one output is a regression whatever the dtype, and floats are taken for multi-label": [
                _S,
                _S,
                _M,
                _S,
            ],
            "(d): regression is for one output only; floats with five are taken for multi-label": [_R, _S, _M, _R],
            "(b) and (c) are the wrong way round: whole numbers name one class, floats answer for each": [
                _R,
                _M,
                _S,
                _S,
            ],
            "(b): whole numbers name one class each": [_R, _M, _M, _M],
            "write the names out, as they stand in the table": [
                "regression",
                "single_label",
                "multi_label",
                "multi_label",
            ],
            "(b): regression is for one output only": [_R, _R, _M, _M],
        },
    ),
    "11.4": Exercise(
        name="yes_or_no_loss",
        right=yes_or_no_loss,
        cases=[(_LOGITS, _ANSWERS), (_LARGE, _THEIRS), (_LOGITS[:1, :2], _ANSWERS[:1, :2])],
        mistakes={
            "a logit of 800 breaks it: use the formula without large exponentials": lambda logits, labels: np.mean(
                _entropies(_sigmoid(logits), labels)
            ),
            "exp(-z) overflows for z = -800: it is exp of minus the size of z": lambda logits, labels: np.mean(
                np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-logits))
            ),
            **{
                f"probabilities clipped at {least:g} make the loss of a large logit too small: use the formula above": (
                    _clipped(least)
                )
                for least in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-15)
            },
            "you sum where a mean is wanted": lambda logits, labels: yes_or_no_loss(logits, labels) * logits.size,
            "you sum over the questions of a text: the mean is over all of them": lambda logits, labels: (
                yes_or_no_loss(logits, labels) * logits.shape[1]
            ),
            "the sign is wrong: a loss is not negative": lambda logits, labels: -yes_or_no_loss(logits, labels),
            "one mean for all is wanted; yours has one for each text": lambda logits, labels: sum(
                np.array(_parts(logits, labels)) * np.array([1, -1, 1])[:, None, None]
            ).mean(axis=1),
            "max(z, 0) is missing": lambda logits, labels: np.mean(
                _parts(logits, labels)[2] - _parts(logits, labels)[1]
            ),
            "the first term is max(z, 0), not the size of z": lambda logits, labels: np.mean(
                np.abs(logits) - logits * labels + _parts(logits, labels)[2]
            ),
            "the term z y is missing: the labels are not in it": lambda logits, labels: np.mean(
                _parts(logits, labels)[0] + _parts(logits, labels)[2]
            ),
            "the sign of z y is wrong": lambda logits, labels: np.mean(sum(_parts(logits, labels))),
            "the size of z in the exponential needs a minus": lambda logits, labels: np.mean(
                np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(np.abs(logits)))
            ),
            "the 1 inside the logarithm is missing": lambda logits, labels: np.mean(
                np.maximum(logits, 0) - logits * labels + np.log(np.exp(-np.abs(logits)))
            ),
            "the logarithm is added, not subtracted": lambda logits, labels: np.mean(
                np.maximum(logits, 0) - logits * labels - _parts(logits, labels)[2]
            ),
            "max(z, 0) is taken number by number, with np.maximum: not one maximum of all": lambda logits, labels: (
                np.mean(max(logits.max(), 0) - logits * labels + _parts(logits, labels)[2])
            ),
            "a softmax ties the classes together: here each has its own yes or no": lambda logits, labels: (
                -np.mean(labels * np.log(np.maximum(softmax(logits), 1e-300)))
            ),
        },
    ),
}
