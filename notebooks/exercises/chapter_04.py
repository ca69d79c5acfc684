"""The exercises of chapter 4, rotary positions."""

import numpy as np
from checks import Exercise

_random = np.random.default_rng(4)
_X = _random.normal(0.2, 1.5, (5, 6))
_POSITIONS = np.array([0, 1, 4, 9, 23])
_SPEEDS = np.array([1.0, 0.3, 0.05])
_LONG = _random.normal(0, 1, (3, 8))
_CASES = [(_X, _POSITIONS, _SPEEDS), (_LONG, np.array([2, 7, 40]), np.array([1.0, 0.5, 0.2, 0.01]))]


def frequencies(K, theta):
    return theta ** (-np.arange(0, K, 2) / K)


def rotate_halves(x, positions, speeds, sign=1.0):
    angles = positions[:, None] * speeds * sign
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), -1)


def _neighbours(x, positions, speeds):
    angles = positions[:, None] * speeds
    a, b = x[:, 0::2], x[:, 1::2]
    y = np.empty_like(x)
    y[:, 0::2], y[:, 1::2] = a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)
    return y


def _mixed(x, positions, speeds):
    angles = positions[:, None] * speeds
    a, b = np.split(x, 2, axis=-1)
    y = np.empty_like(x)
    y[:, 0::2], y[:, 1::2] = a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)
    return y


def _split_neighbours_join_halves(x, positions, speeds):
    angles = positions[:, None] * speeds
    a, b = x[:, 0::2], x[:, 1::2]
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), -1)


def _both_minus(x, positions, speeds):
    angles = positions[:, None] * speeds
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) - a * np.sin(angles)), -1)


def _both_plus(x, positions, speeds):
    angles = positions[:, None] * speeds
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * np.cos(angles) + b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)), -1)


def _used_again(x, positions, speeds):
    angles = positions[:, None] * speeds
    a, b = np.split(x, 2, axis=-1)
    a = a * np.cos(angles) - b * np.sin(angles)
    return np.concatenate((a, b * np.cos(angles) + a * np.sin(angles)), -1)


def _swapped(x, positions, speeds):
    angles = positions[:, None] * speeds
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate((a * np.sin(angles) - b * np.cos(angles), b * np.sin(angles) + a * np.cos(angles)), -1)


def _wrong_order(x, positions, speeds):
    turned = rotate_halves(x, positions, speeds)
    a, b = np.split(turned, 2, axis=-1)
    return np.concatenate((b, a), -1)


def halves_order(K):
    return np.concatenate((np.arange(0, K, 2), np.arange(1, K, 2)))


EXERCISES = {
    "4.1": Exercise(
        name="frequencies",
        right=frequencies,
        cases=[(8, 10000.0), (6, 500000.0)],
        mistakes={
            "the exponent is negative: pairs get slower": lambda K, theta: theta ** (np.arange(0, K, 2) / K),
            "the exponent counts components: it is 2j / K, not j / K": lambda K, theta: (
                theta ** (-np.arange(K // 2) / K)
            ),
            "the exponents go from 0 to nearly 1: 2j over K, not over K / 2": lambda K, theta: (
                theta ** (-np.arange(0, K, 2) / (K // 2))
            ),
            "there are K / 2 pairs, and you give a speed to each of K components": lambda K, theta: (
                theta ** (-np.arange(K) / K)
            ),
            "j begins at 0: the first pair turns by 1 radian a position": lambda K, theta: (
                theta ** (-np.arange(2, K + 2, 2) / K)
            ),
            "theta is the argument, not 10,000": lambda K, theta: frequencies(K, 10000.0),
            "np.linspace ends at 1, and the exponent 2j / K does not reach it": lambda K, theta: (
                theta ** -np.linspace(0, 1, K // 2)
            ),
            "the fastest pair comes first": lambda K, theta: frequencies(K, theta)[::-1],
            "each speed is there twice: duplicate them later, if at all": lambda K, theta: np.tile(
                frequencies(K, theta), 2
            ),
        },
    ),
    "4.2": Exercise(
        name="rotate_halves",
        right=rotate_halves,
        cases=_CASES,
        mistakes={
            "these are the interleaved pairs: j belongs to j + K/2 here": _neighbours,
            "you turn backwards: the sine has the wrong sign": lambda x, p, s: rotate_halves(x, p, s, -1),
            "the halves are turned right, and then interleaved: join them one after the other": _mixed,
            "you split x into neighbours and join the results as halves": _split_neighbours_join_halves,
            "one of the two signs is wrong: a cos - b sin, and b cos + a sin": _both_minus,
            "both signs are plus: the first half is a cos - b sin": _both_plus,
            "angles are in radians already: nothing is to be converted": lambda x, p, s: rotate_halves(
                x, p, np.radians(s)
            ),
            "the second half uses the a that is already turned: keep the old one": _used_again,
            "sine and cosine have changed places": _swapped,
            "the two halves of the result have changed places": _wrong_order,
            "positions begin at 0: the first row is turned by nothing": lambda x, p, s: rotate_halves(x, p + 1, s),
            "every row is turned by its own position, and you turn all by the first": lambda x, p, s: rotate_halves(
                x, np.full_like(p, p[1]), s
            ),
            "the speeds have to be multiplied with the positions, and all rows are turned alike": lambda x, p, s: (
                rotate_halves(x, np.ones_like(p), s)
            ),
            "use the positions you are given: they need not be 0, 1, 2 ...": lambda x, p, s: rotate_halves(
                x, np.arange(len(p)), s
            ),
        },
    ),
    "4.3": Exercise(
        name="halves_order",
        right=halves_order,
        cases=[(8,), (6,), (2,)],
        mistakes={
            "that is the way back, from halves to interleaved": lambda K: np.arange(K).reshape(2, K // 2).T.ravel(),
            "that leaves everything where it is": lambda K: np.arange(K),
            "even rows make the first half, odd ones the second": lambda K: np.concatenate(
                (np.arange(1, K, 2), np.arange(0, K, 2))
            ),
            "that swaps the halves": lambda K: np.roll(np.arange(K), K // 2),
            "only half of the rows are in it": lambda K: np.arange(0, K, 2),
            "these are numbers of pairs, each twice: every row comes once": lambda K: np.tile(np.arange(K // 2), 2),
        },
    ),
    "4.4": Exercise(
        name="angle",
        right=0.03,
        mistakes={
            "that is the first pair, which turns by 1 a position": 3,
            "that is where the query is turned to: the key is turned too": 0.07,
            "that is where the key is turned to: the query is turned too": 0.04,
            "the angles are subtracted, not added": 0.11,
            "it is the query against the key: 7 - 4 is positive": -0.03,
            "the second pair's speed is 0.01": 0.0003,
        },
    ),
}
