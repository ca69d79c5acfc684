"""The exercises of chapter 2, embeddings and logits."""

import math

import numpy as np
from checks import Exercise

from minillama.model.heads import log_softmax
from minillama.model.ops import softmax

_random = np.random.default_rng(2)

# -- 2.1 ----------------------------------------------------------------------------------------------------------

# Rows of very different lengths around a direction that all of them share; the longest is near to none
_TABLE = _random.normal(0.4, 1, (40, 6)) * _random.uniform(0.5, 2, (40, 1))
_TABLE[17] *= 9
_TABLE[23] *= 0.05


def _nearest(score, index, table, number, skip=True):
    order = [int(i) for i in np.argsort(-score, kind="stable") if i != index or not skip]
    return order[:number]


def _cosines(index, table):
    return table @ table[index] / np.linalg.norm(table, axis=1) / np.linalg.norm(table[index])


def nearest(index, table, number):
    return _nearest(_cosines(index, table), index, table, number)


def _by_dot_product(index, table, number):
    return _nearest(table @ table[index], index, table, number)


def _by_distance(index, table, number):
    return _nearest(-np.linalg.norm(table - table[index], axis=1), index, table, number)


def _itself_too(index, table, number):
    return _nearest(_cosines(index, table), index, table, number, skip=False)


def _farthest(index, table, number):
    return _nearest(-_cosines(index, table), index, table, number)


def _of_least_size(index, table, number):
    return _nearest(np.abs(_cosines(index, table)), index, table, number)


def _one_fewer(index, table, number):
    return nearest(index, table, number - 1)


def _one_length_for_all(index, table, number):
    return _nearest(table @ table[index] / np.linalg.norm(table, axis=1) ** 2, index, table, number)


def _scaled_columns(index, table, number):
    unit = table / np.linalg.norm(table, axis=0)
    return _nearest(unit @ unit[index], index, table, number)


def _backwards(index, table, number):
    return nearest(index, table, number)[::-1]


def _cosines_themselves(index, table, number):
    cosines = _cosines(index, table)
    return [float(cosines[i]) for i in nearest(index, table, number)]


# -- 2.2 ----------------------------------------------------------------------------------------------------------

# Ordinary rows, one so high that its exponentials overflow, one so low that they vanish
_SCORES = _random.normal(0.3, 2, (3, 5)) + np.array([[0.0], [900.0], [-900.0]])
# One score so far above the others that it overflows with the row's mean subtracted
_ALONE = np.array([0.5, -1.0, 2000.0, 1.5, 0.0])


def _quietly(function):
    def quiet(*arguments):
        with np.errstate(all="ignore"):
            return function(*arguments)

    return quiet


@_quietly
def _overflowing(scores):
    weights = np.exp(scores)
    return weights / weights.sum(-1, keepdims=True)


@_quietly
def _one_top_for_all(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum(-1, keepdims=True)


@_quietly
def _mean_subtracted(scores):
    weights = np.exp(scores - scores.mean(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@_quietly
def _maximum_divided(scores):
    weights = np.exp(scores / scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _over_columns(scores):
    weights = np.exp(scores - scores.max(0))
    return weights / weights.sum(0)


def _over_everything(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum()


def _not_divided(scores):
    return np.exp(scores - scores.max(-1, keepdims=True))


def _base_two(scores):
    return softmax(scores * math.log(2))


def _negated(scores):
    return softmax(-scores)


# -- 2.3 ----------------------------------------------------------------------------------------------------------

_LOGITS = _random.normal(0, 3, (7, 11))
_LABELS = _random.integers(0, 11, 7)


def _nats(logits, labels):
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def next_token_loss(logits, ids):
    return float(np.mean(_nats(logits[:-1], ids[1:])))


def _not_shifted(logits, ids):
    return float(np.mean(_nats(logits, ids)))


def _shifted_backwards(logits, ids):
    return float(np.mean(_nats(logits[1:], ids[:-1])))


def _summed(logits, ids):
    return float(np.sum(_nats(logits[:-1], ids[1:])))


def _over_all_positions(logits, ids):
    return float(np.sum(_nats(logits[:-1], ids[1:])) / len(ids))


def _sign(logits, ids):
    return -next_token_loss(logits, ids)


def _bits(logits, ids):
    return next_token_loss(logits, ids) / math.log(2)


def _log_of_the_mean(logits, ids):
    return float(-np.log(np.mean(np.exp(-_nats(logits[:-1], ids[1:])))))


def _perplexity(logits, ids):
    return math.exp(next_token_loss(logits, ids))


def _no_softmax(logits, ids):
    return float(-np.mean(logits[np.arange(len(ids) - 1), ids[1:]]))


def _probability(logits, ids):
    return float(np.mean(np.exp(-_nats(logits[:-1], ids[1:]))))


# -- 2.4 ----------------------------------------------------------------------------------------------------------


def bits_per_byte(loss, number_of_ids, text):
    return loss * (number_of_ids - 1) / math.log(2) / len(text.encode())


EXERCISES = {
    "2.1": Exercise(
        name="nearest",
        right=nearest,
        cases=[(3, _TABLE, 5), (23, _TABLE, 4), (0, _TABLE, 7)],
        mistakes={
            "you compare dot products, which long rows win: divide by the lengths of both rows": _by_dot_product,
            "you compare distances, which short rows win: the cosine does not see lengths": _by_distance,
            "the nearest row to a row is itself: leave it out": _itself_too,
            "these are the rows farthest away: a larger cosine is nearer": _farthest,
            "a cosine near -1 is far away: do not take its absolute value": _of_least_size,
            "one is missing: leaving out the row itself must not make the list shorter": _one_fewer,
            "you divide by the squared length of the other row: by its length once": _one_length_for_all,
            "you take the lengths of the columns: a row's length is over axis 1": _scaled_columns,
            "the order is turned round: the nearest comes first": _backwards,
            "these are the cosines: the ids of the rows are wanted": _cosines_themselves,
        },
    ),
    "2.2": Exercise(
        name="softmax",
        right=softmax,
        cases=[(_SCORES,), (_SCORES[0],), (_ALONE,)],
        mistakes={
            "exp overflows for a large score: first subtract the row's maximum": _overflowing,
            "you subtract the maximum of the whole array: each row has its own": _one_top_for_all,
            "you subtract the mean of each row: a score far above it still overflows, so take the maximum": (
                _mean_subtracted
            ),
            "you divide by the maximum: subtract it, for a factor changes the probabilities": _maximum_divided,
            "you go over the columns: the last axis is the one that sums to 1": _over_columns,
            "all numbers together sum to 1: each row must, along the last axis": _over_everything,
            "the exponentials are not divided by their sum": _not_divided,
            "these are powers of 2: np.exp has the base e": _base_two,
            "the largest score has the smallest probability: a sign is turned round": _negated,
            "these are the logarithms of the probabilities": log_softmax,
        },
    ),
    "2.3": Exercise(
        name="next_token_loss",
        right=next_token_loss,
        cases=[(_LOGITS, _LABELS), (_LOGITS[2:], _LABELS[:5])],
        mistakes={
            "the logits at t predict the id at t + 1: you compare them with the id at t": _not_shifted,
            "you shift in the wrong direction: drop the last logits and the first id": _shifted_backwards,
            "that is the sum: the mean over the predictions is wanted": _summed,
            "you divide by the number of ids: there is one prediction fewer": _over_all_positions,
            "the sign is wrong: a loss is -log p, never below 0": _sign,
            "these are bits: nats are wanted, with the natural logarithm": _bits,
            "you take the logarithm of a mean: the mean of the logarithms is wanted": _log_of_the_mean,
            "that is the perplexity, exp(loss)": _perplexity,
            "logits are no log-probabilities yet: log_softmax makes them so": _no_softmax,
            "that is the mean probability: its negative logarithm, position by position, is wanted": _probability,
        },
    ),
    "2.4": Exercise(
        name="bits_per_byte",
        right=bits_per_byte,
        cases=[(3.0, 21, "Ein naïver Fuchs fraß den Käse 🧀."), (0.75, 6, "the fox")],
        mistakes={
            "you divide by characters: `ï` is two bytes, and text.encode() has them": lambda loss, n, text: (
                loss * (n - 1) / math.log(2) / len(text)
            ),
            "these are nats per byte: a bit is log(2) nats": lambda loss, n, text: loss * (n - 1) / len(text.encode()),
            "the loss is a mean: its sum is the loss times the number of predictions": lambda loss, n, text: (
                loss / math.log(2) / len(text.encode())
            ),
            "n ids have n - 1 predictions: nothing predicts the first": lambda loss, n, text: (
                loss * n / math.log(2) / len(text.encode())
            ),
            "these are bits per piece: the text's bytes are not used": lambda loss, n, text: loss / math.log(2),
            "a bit is log(2) nats: divide by it, do not multiply": lambda loss, n, text: (
                loss * (n - 1) * math.log(2) / len(text.encode())
            ),
            "log(10) makes decimal digits: a bit is log(2) nats": lambda loss, n, text: (
                loss * (n - 1) / math.log(10) / len(text.encode())
            ),
        },
    ),
}
