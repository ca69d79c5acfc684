"""The exercises of chapter 9, the KV cache."""

import math

import numpy as np
from checks import Exercise

from minillama.model.ops import softmax

_random = np.random.default_rng(9)


def _head(S, K):
    q, k, v = _random.normal(0.2, 1.5, (3, K)) * np.array([1, 1.3, 4])[:, None]
    return q, k, v, _random.normal(0.1, 1, (S, K)), _random.normal(2, 3, (S, K))


def attend(q, k, v, keys, values):
    keys, values = np.vstack((keys, k)), np.vstack((values, v))
    return keys, values, softmax(keys @ q / math.sqrt(len(q))) @ values


def _before_the_append(q, k, v, keys, values):
    return np.vstack((keys, k)), np.vstack((values, v)), softmax(keys @ q / math.sqrt(len(q))) @ values


def _in_front(q, k, v, keys, values):
    keys, values = np.vstack((k, keys)), np.vstack((v, values))
    return keys, values, softmax(keys @ q / math.sqrt(len(q))) @ values


def _unscaled(q, k, v, keys, values):
    keys, values = np.vstack((keys, k)), np.vstack((values, v))
    return keys, values, softmax(keys @ q) @ values


def _scaled_by_length(q, k, v, keys, values):
    keys, values = np.vstack((keys, k)), np.vstack((values, v))
    return keys, values, softmax(keys @ q / math.sqrt(len(keys))) @ values


def _scaled_without_root(q, k, v, keys, values):
    keys, values = np.vstack((keys, k)), np.vstack((values, v))
    return keys, values, softmax(keys @ q / len(q)) @ values


def _averaged_keys(q, k, v, keys, values):
    keys, values = np.vstack((keys, k)), np.vstack((values, v))
    return keys, values, softmax(keys @ q / math.sqrt(len(q))) @ keys


def _no_softmax(q, k, v, keys, values):
    keys, values = np.vstack((keys, k)), np.vstack((values, v))
    return keys, values, (keys @ q / math.sqrt(len(q))) @ values


def _not_normalised(q, k, v, keys, values):
    keys, values = np.vstack((keys, k)), np.vstack((values, v))
    return keys, values, np.exp(keys @ q / math.sqrt(len(q))) @ values


def _values_forgotten(q, k, v, keys, values):
    new_keys = attend(q, k, v, keys, values)[0]
    weights = softmax(new_keys @ q / math.sqrt(len(q)))
    return new_keys, values, weights[:-1] @ values


def _keys_for_values(q, k, v, keys, values):
    return attend(q, v, k, keys, values)


def _only_itself(q, k, v, keys, values):
    return np.vstack((keys, k)), np.vstack((values, v)), v.copy()


def _key_asks(q, k, v, keys, values):
    return attend(k, k, v, keys, values)


def _query_cached(q, k, v, keys, values):
    return attend(q, q, v, keys, values)


def _not_handed_on(q, k, v, keys, values):
    return keys, values, attend(q, k, v, keys, values)[2]


def _context_first(q, k, v, keys, values):
    keys, values, context = attend(q, k, v, keys, values)
    return context, keys, values


_TABLE, _PLACES = _random.normal(0, 1, (2, 9, 9))


def _step(ids, past):
    """A model whose logits depend on every token read and on how many there are; its cache is what it has read."""
    read = [*(past or ()), *ids]
    fading = 0.8 ** np.arange(len(read))[::-1]
    return fading @ _TABLE[read] + _PLACES[len(read) % 9], tuple(read)


def write(step, prompt, count):
    past, feed, new = None, prompt, []
    for _ in range(count):
        logits, past = step(feed, past)
        new.append(int(np.argmax(logits)))
        feed = [new[-1]]
    return new, past


def _everything_again(step, prompt, count):
    past, new = None, []
    for _ in range(count):
        logits, past = step([*prompt, *new], past)
        new.append(int(np.argmax(logits)))
    return new, past


def _cache_lost(step, prompt, count):
    feed, new = prompt, []
    for _ in range(count):
        logits, past = step(feed, None)
        new.append(int(np.argmax(logits)))
        feed = [new[-1]]
    return new, past


def _last_fed_too(step, prompt, count):
    new, past = write(step, prompt, count)
    return new, step(new[-1:], past)[1]


def _one_more(step, prompt, count):
    return write(step, prompt, count + 1)


def _first_missing(step, prompt, count):
    new, past = write(step, prompt, count + 1)
    return new[1:], past


def _last_of_prompt_twice(step, prompt, count):
    _, past = step(prompt, None)
    new, past = [], past
    feed = prompt[-1:]
    for _ in range(count):
        logits, past = step(feed, past)
        new.append(int(np.argmax(logits)))
        feed = [new[-1]]
    return new, past


def _no_prefill(step, prompt, count):
    return write(step, prompt[-1:], count)


def _all_new_again(step, prompt, count):
    logits, past = step(prompt, None)
    new = [int(np.argmax(logits))]
    for _ in range(count - 1):
        logits, past = step(new, past)
        new.append(int(np.argmax(logits)))
    return new, past


def _with_prompt(step, prompt, count):
    new, past = write(step, prompt, count)
    return [*prompt, *new], past


def _prompt_of_the_first(step, prompt, count):
    """The prefill's cache is handed to every step."""
    logits, first = step(prompt, None)
    new, past = [int(np.argmax(logits))], first
    for _ in range(count - 1):
        logits, past = step(new[-1:], first)
        new.append(int(np.argmax(logits)))
    return new, past


def _first_returned(step, prompt, count):
    """The prefill's cache is handed to every step, and returned."""
    return _prompt_of_the_first(step, prompt, count)[0], step(prompt, None)[1]


def positions_of(mask, T):
    return np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -T:]


_MASK = np.array([[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1, 1]])

EXERCISES = {
    "9.1": Exercise(
        name="attend",
        right=attend,
        cases=[_head(5, 4), _head(1, 6), _head(9, 3)],
        mistakes={
            "the new token does not see itself: append its key and value before the scores are computed": (
                _before_the_append
            ),
            "the new key and value come at the end of the cache, not at its front": _in_front,
            "the division by the root of K is missing": _unscaled,
            "you divide by the root of the number of keys; it is K, the width of the head": _scaled_by_length,
            "you divide by K where its square root is wanted": _scaled_without_root,
            "you average the keys: scores come from keys, the average is of the values": _averaged_keys,
            "the softmax is missing": _no_softmax,
            "the exponentials are not divided by their sum: the weights of an average sum to 1": _not_normalised,
            "the new value is not appended, only the new key": _values_forgotten,
            "the new key went to the values and the new value to the keys": _keys_for_values,
            "the context is the new value alone: the cached tokens are to be looked at too": _only_itself,
            "the scores are of the new key: it is the query that asks": _key_asks,
            "you put the query into the cache: it is the new key that is kept": _query_cached,
            "you return the cache as it was: without the new key and value in it the next step does not know them": (
                _not_handed_on
            ),
            "the order of what is returned is keys, values, context": _context_first,
        },
    ),
    "9.2": Exercise(
        name="write",
        right=write,
        cases=[(_step, [3, 1, 4, 1], 6), (_step, [2], 4), (_step, [8, 5, 7], 1)],
        mistakes={
            "you feed the whole text in every step, though the cache has it already: it stands there many times": (
                _everything_again
            ),
            "the cache that a step returns must go into the next one: yours begins anew each time": _cache_lost,
            "every step gets the cache of the prompt: each must get that of the step before it": _prompt_of_the_first,
            "you keep the cache of the prompt: what a step returns must take its place, and go into the next step": (
                _first_returned
            ),
            "the last new token has been fed too: nobody asks what comes after it, and the cache is one longer": (
                _last_fed_too
            ),
            "there is one new token too many: the first comes out of the prompt's own step": _one_more,
            "the first new token is missing: it comes out of the prompt's own step": _first_missing,
            "the last token of the prompt is fed twice": _last_of_prompt_twice,
            "only the last token of the prompt has been read: the first step reads all of it": _no_prefill,
            "a step gets all new ids: the cache has those before the last already": _all_new_again,
            "return the new ids only, without the prompt": _with_prompt,
        },
    ),
    "9.3": Exercise(
        name="positions_of",
        right=positions_of,
        cases=[(_MASK, 7), (_MASK, 2), (_MASK[:1], 5)],
        mistakes={
            "you count the padding: the first real token of each row has position 0": lambda mask, T: np.broadcast_to(
                np.arange(mask.shape[1]), mask.shape
            )[:, -T:],
            "positions begin at 0, not at 1": lambda mask, T: mask.cumsum(axis=1)[:, -T:],
            "padding has -1: let it have 0": lambda mask, T: (mask.cumsum(axis=1) - 1)[:, -T:],
            "padding has 1, as some programs do it: here 0 is wanted": lambda mask, T: np.where(
                mask == 0, 1, mask.cumsum(axis=1) - 1
            )[:, -T:],
            "these are the first T columns; wanted are the last": lambda mask, T: positions_of(mask, mask.shape[1])[
                :, :T
            ],
            "you count from the first of the last T columns: those before them count too": lambda mask, T: np.maximum(
                mask[:, -T:].cumsum(axis=1) - 1, 0
            ),
            "padding comes out negative: let it have 0": lambda mask, T: (
                mask.sum(axis=1, keepdims=True) - T + np.arange(T)
            ),
            "you count down the batch: a text runs along axis 1": lambda mask, T: np.maximum(
                mask.cumsum(axis=0) - 1, 0
            )[:, -T:],
            "all columns are there; wanted are the last T": lambda mask, T: positions_of(mask, mask.shape[1]),
            "that is the mask itself, or its last columns: count the ones in it": lambda mask, T: mask[:, -T:],
        },
    ),
    "9.4": Exercise(
        name="one_token",
        right=131_072,
        mistakes={
            "that is the keys alone: there are values too": 65_536,
            "you count the query heads: only the key/value heads are kept": 524_288,
            "that is one layer: there are 32": 4_096,
            "a number takes 2 bytes, and yours 4": 262_144,
            "those are numbers (or bytes of keys): each key and value number takes 2 bytes": 32_768,
            "that is one key/value head: there are 8": 16_384,
            "those are units of 1,024 bytes: bytes are wanted": 128,
        },
    ),
}
