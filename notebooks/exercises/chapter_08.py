"""The exercises of chapter 8, sampling."""

import numpy as np
from checks import Exercise

from minillama.generation.sampling import keep_top_p, penalize_repetition
from minillama.model.ops import softmax

_random = np.random.default_rng(8)
_TABLE = _random.normal(0, 1, (7, 7))


def _logits_of(ids):
    """A model that looks at the last two ids."""
    row = _TABLE[ids[-1]] + (0.5 * _TABLE[ids[-2]][::-1] if len(ids) > 1 else 0)
    return row if len(ids) % 5 else row - 100  # as likely as before, and far below 0


def greedy(logits_of, ids, count, eos):
    new = []
    while len(new) < count and (not new or new[-1] != eos):
        new.append(int(np.argmax(logits_of([*ids, *new]))))
    return new


def _past_the_end(logits_of, ids, count, eos):
    return greedy(logits_of, ids, count, None)


def _without_end(logits_of, ids, count, eos):
    new = greedy(logits_of, ids, count, eos)
    return new[:-1] if new and new[-1] == eos else new


def _with_prompt(logits_of, ids, count, eos):
    return [*ids, *greedy(logits_of, ids, count, eos)]


def _one_more(logits_of, ids, count, eos):
    return greedy(logits_of, ids, count + 1, eos)


def _not_fed_back(logits_of, ids, count, eos):
    first = int(np.argmax(logits_of(ids)))
    return [first] if first == eos else [first] * count


def _only_last(logits_of, ids, count, eos):
    new = [ids[-1]]
    while len(new) <= count and (len(new) == 1 or new[-1] != eos):
        new.append(int(np.argmax(logits_of([ids[-2], new[-1]]))))
    return new[1:]


def _prompt_forgotten(logits_of, ids, count, eos):
    new = []
    while len(new) < count and (not new or new[-1] != eos):
        new.append(int(np.argmax(logits_of(new or ids))))
    return new


def _least(logits_of, ids, count, eos):
    return greedy(lambda text: -logits_of(text), ids, count, eos)


def _count_ignored(logits_of, ids, count, eos):
    return greedy(logits_of, ids, 50, eos)


def _all_from_one(logits_of, ids, count, eos):
    return [int(i) for i in np.argsort(-logits_of(ids))[:count]]


def _total_length(logits_of, ids, count, eos):
    return greedy(logits_of, ids, max(count - len(ids), 0), eos)


# An end that comes after some tokens, where the table has one
_FREE = greedy(_logits_of, [1, 2], 12, None)
_END = next(token for i, token in enumerate(_FREE) if i >= 2 and token not in _FREE[:i])
_Z = _random.normal(0, 2, 9)
_TIE = np.array([1.0, 4.0, 4.0, -2.0])


def probabilities(logits, temperature):
    if temperature == 0:
        p = np.zeros(len(logits))
        p[np.argmax(logits)] = 1
        return p
    return softmax(np.asarray(logits, float) / temperature)


def _zero(logits, temperature, otherwise):
    return probabilities(logits, temperature) if temperature == 0 else otherwise


def _ties_share(logits, temperature):
    top = logits == logits.max()
    return top / top.sum() if temperature == 0 else probabilities(logits, temperature)


def _ties_all_one(logits, temperature):
    return (logits == logits.max()).astype(float) if temperature == 0 else probabilities(logits, temperature)


_P = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
_LOGITS = np.log(_P) + 3  # softmax does not care for the 3


def _kept(logits, keep):
    return np.where(keep, logits, -np.inf)


def _sorted(logits):
    order = np.argsort(-logits, kind="stable")
    return order, softmax(logits)[order].cumsum()


def _without_crossing(logits, p):
    order, total = _sorted(logits)
    keep = np.zeros(len(logits), bool)
    keep[order[total <= p]] = True
    return _kept(logits, keep)


def _first_without_crossing(logits, p):
    kept = _without_crossing(logits, p)
    kept[np.argmax(logits)] = logits.max()
    return kept


def _beyond(logits, p):
    order, total = _sorted(logits)
    keep = np.zeros(len(logits), bool)
    keep[order[total >= p]] = True
    return _kept(logits, keep)


def _sum_of_logits(logits, p):
    order = np.argsort(-logits, kind="stable")
    keep = np.zeros(len(logits), bool)
    keep[order[logits[order].cumsum() - logits[order] < p]] = True
    return _kept(logits, keep)


def _one_too_many(logits, p):
    order, total = _sorted(logits)
    keep = np.zeros(len(logits), bool)
    keep[order[: int((total < p).sum()) + 2]] = True
    return _kept(logits, keep)


def _each_above(logits, p):
    return _kept(logits, softmax(logits) >= p)


def _in_order_of_ids(logits, p):
    total = softmax(logits).cumsum()
    return _kept(logits, total - softmax(logits) < p)


def _from_below(logits, p):
    order = np.argsort(logits, kind="stable")
    total = softmax(logits)[order].cumsum()
    keep = np.zeros(len(logits), bool)
    keep[order[total - softmax(logits)[order] < p]] = True
    return _kept(logits, keep)


def _tail_of_p(logits, p):
    order = np.argsort(logits, kind="stable")
    keep = np.zeros(len(logits), bool)
    keep[order[softmax(logits)[order].cumsum() >= p]] = True
    return _kept(logits, keep)


def _sorted_result(logits, p):
    return np.sort(keep_top_p(logits, p))[::-1]


def _unsorted_mask(logits, p):
    _, total = _sorted(logits)
    return _kept(logits, np.concatenate(([0], total[:-1])) < p)


def penalize(logits, seen, penalty):
    mask = np.zeros(len(logits), bool)
    mask[list(seen)] = True
    return penalize_repetition(np.asarray(logits, float), mask, penalty)


def _each_time(logits, seen, penalty):
    z = np.array(logits, float)
    for i in seen:
        z[i] = z[i] / penalty if z[i] > 0 else z[i] * penalty
    return z


def _seen_only(logits, seen, change):
    z = np.array(logits, float)
    for i in set(seen):
        z[i] = change(z[i])
    return z


_SCORES = np.array([2.5, -1.5, 0.75, 4.0, -0.25, 0.0])

EXERCISES = {
    "8.1": Exercise(
        name="greedy",
        right=greedy,
        cases=[
            (_logits_of, [3, 5], 6, 99),
            (_logits_of, [1, 2], 12, _END),
            (_logits_of, [0, 4, 6], 1, 99),
            (_logits_of, [4, 6], 5, 99),
        ],
        mistakes={
            "it goes on after the end of the text": _past_the_end,
            "the end-of-text id belongs to the new ids": _without_end,
            "the new ids only: leave the prompt out": _with_prompt,
            "that is one id too many": _one_more,
            "every new id has to go into the text before the next one is asked for": _not_fed_back,
            "the whole text so far has to be asked about, not its last id": _only_last,
            "the prompt is forgotten after the first step: the text so far is the prompt and the new ids": (
                _prompt_forgotten
            ),
            "that is the least likely: argmax, not argmin": _least,
            "count is of the new ids, not of all": _total_length,
            "it is to stop after count new ids": _count_ignored,
            "those are the likeliest of one place: choose one id, append it, and ask again": _all_from_one,
        },
    ),
    "8.2": Exercise(
        name="probabilities",
        right=probabilities,
        cases=[(_Z, 0.5), (_Z, 1.0), (_Z, 2.0), (_Z * 300, 0.25), (_TIE, 0), (_Z, 0)],
        mistakes={
            "logits are divided by the temperature, not multiplied": lambda z, t: _zero(z, t, softmax(z * t)),
            "the temperature belongs before the softmax: on probabilities it has no effect": lambda z, t: _zero(
                z, t, softmax(z) / max(t, 1) / (softmax(z) / max(t, 1)).sum()
            ),
            "after the division the probabilities no longer sum to 1": lambda z, t: _zero(z, t, softmax(z) / (t or 1)),
            "a temperature of 0 needs lines of its own: one cannot divide by it": lambda z, t: softmax(
                z / np.float64(t)
            ),
            "large logits overflow: subtract the largest before exp, or use softmax": lambda z, t: _zero(
                z, t, np.exp(z / (t or 1)) / np.exp(z / (t or 1)).sum()
            ),
            "a temperature of 0 is greedy: the likeliest gets 1": lambda z, t: softmax(z / (t or 1)),
            "of equals, the first gets everything": _ties_share,
            "of equals, only the first gets 1: yours sum to more than 1": _ties_all_one,
            "that is a softmax of a softmax: the temperature divides the logits themselves": lambda z, t: probabilities(
                z if t == 0 else softmax(z), t
            ),
            "that is the logits, still to be put through softmax": lambda z, t: _zero(z, t, z / (t or 1)),
            "that is the root of the temperature": lambda z, t: _zero(z, t, softmax(z / np.sqrt(t or 1))),
        },
    ),
    "8.3": Exercise(
        name="top_p",
        right=keep_top_p,
        cases=[(_LOGITS, 0.6), (_LOGITS, 0.3), (_LOGITS, 0.99), (_Z, 0.9), (_Z / 4, 0.1)],
        mistakes={
            "the token that crosses the border stays too: without it the sum is below p": _without_crossing,
            "beyond the first, the token that crosses the border stays too": _first_without_crossing,
            "that is the tail, which is to go": _beyond,
            "add up probabilities, not logits: softmax first": _sum_of_logits,
            "that is min-p: here it is a sum that has to reach p": lambda z, p: _kept(
                z, softmax(z) >= p * softmax(z).max()
            ),
            "that is one token too many: stop as soon as the sum reaches p": _one_too_many,
            "it is the sum of the likeliest that has to reach p, not each by itself": _each_above,
            "add up the likeliest first: sort before you sum": _in_order_of_ids,
            "you cut off tokens from below until they sum to p: the likeliest have to sum to p": _tail_of_p,
            "you begin with the least likely: sort the other way round": _from_below,
            "logits go back to their own places: the result is sorted now": _sorted_result,
            "which to keep was found in sorted order, and applied in the old one": _unsorted_mask,
            "those that are cut off get -inf, not 0: exp(0) is 1": lambda z, p: np.where(
                np.isfinite(keep_top_p(z, p)), z, 0
            ),
            "logits are wanted, not probabilities": lambda z, p: softmax(keep_top_p(z, p)),
        },
    ),
    "8.4": Exercise(
        name="penalize",
        right=penalize,
        cases=[(_SCORES, [0, 1, 1, 3, 0], 1.5), (_SCORES, [4, 2, 5], 2.0), (_SCORES, [], 1.5)],
        mistakes={
            "a negative logit is multiplied: divided by 1.5 it would become likelier": lambda z, seen, n: _seen_only(
                z, seen, lambda x: x / n
            ),
            "a positive logit is divided: multiplied it would become likelier": lambda z, seen, n: _seen_only(
                z, seen, lambda x: x * n
            ),
            "both go the wrong way: positive ones are divided, negative ones multiplied": lambda z, seen, n: _seen_only(
                z, seen, lambda x: x * n if x > 0 else x / n
            ),
            "an id that was used twice is penalized once": _each_time,
            "the penalty is a factor, not subtracted": lambda z, seen, n: _seen_only(z, seen, lambda x: x - n),
            "the penalty divides the logit, not the probability": lambda z, seen, n: _seen_only(
                z, seen, lambda x: x - np.log(n)
            ),
            "`seen` holds ids, which are places of logits, not logits": lambda z, seen, n: np.where(
                np.isin(z, seen), np.where(z > 0, z / n, z * n), z
            ),
            "only the ids that were seen": lambda z, seen, n: np.where(z > 0, z / n, z * n),
            "those that were not seen are penalized, and those that were are not": lambda z, seen, n: _seen_only(
                z, set(range(len(z))) - set(seen), lambda x: x / n if x > 0 else x * n
            ),
            "a seen token may come again: less likely, not impossible": lambda z, seen, n: _seen_only(
                z, seen, lambda x: -np.inf
            ),
        },
    ),
}
