"""The exercises of chapter 10, long context."""

import math

import numpy as np
from checks import Exercise


def dynamic_base(theta, factor, length, trained, K):
    stretch = factor * max(length, trained) / trained - (factor - 1)
    return theta * stretch ** (K / (K - 2))


def _base(stretch_of):
    """A dynamic_base with another stretch of the same things."""

    def mistaken(theta, factor, length, trained, K):
        return theta * stretch_of(factor, length, trained) ** (K / (K - 2))

    return mistaken


def _stretch(factor, length, trained):
    return factor * max(length, trained) / trained - (factor - 1)


def llama3(speeds, factor, low, high, trained):
    turns = trained * speeds / (2 * np.pi)
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return keep * speeds + (1 - keep) * speeds / factor


def _without_two_pi(speeds, factor, low, high, trained):
    return llama3(speeds, factor, low, high, 2 * np.pi * trained)


def _swapped(speeds, factor, low, high, trained):
    keep = np.clip((trained * speeds / (2 * np.pi) - low) / (high - low), 0, 1)
    return keep * speeds / factor + (1 - keep) * speeds


def _unclipped(speeds, factor, low, high, trained):
    keep = (trained * speeds / (2 * np.pi) - low) / (high - low)
    return keep * speeds + (1 - keep) * speeds / factor


def _multiplied(speeds, factor, low, high, trained):
    keep = np.clip((trained * speeds / (2 * np.pi) - low) / (high - low), 0, 1)
    return keep * speeds + (1 - keep) * speeds * factor


def _times_pi(speeds, factor, low, high, trained):
    return llama3(speeds, factor, low, high, np.pi**2 * trained)


def _kept_part(speeds, factor, low, high, trained):
    return np.clip((trained * speeds / (2 * np.pi) - low) / (high - low), 0, 1) * speeds


def _no_blend(border):
    def mistaken(speeds, factor, low, high, trained):
        turns = trained * speeds / (2 * np.pi)
        return np.where(turns < (low if border == "low" else high), speeds / factor, speeds)

    return mistaken


def _wavelengths(speeds, factor, low, high, trained):
    """The blend runs along the length of a turn in tokens."""
    keep = np.clip((trained / low - 2 * np.pi / speeds) / (trained / low - trained / high), 0, 1)
    return keep * speeds + (1 - keep) * speeds / factor


def _tokens_of_a_turn(speeds, factor, low, high, trained):
    keep = np.clip((2 * np.pi / speeds - low) / (high - low), 0, 1)
    return keep * speeds + (1 - keep) * speeds / factor


def _divided_share(speeds, factor, low, high, trained):
    keep = np.clip((trained * speeds / (2 * np.pi) - low) / high, 0, 1)
    return keep * speeds + (1 - keep) * speeds / factor


def _divisors_blended(speeds, factor, low, high, trained):
    keep = np.clip((trained * speeds / (2 * np.pi) - low) / (high - low), 0, 1)
    return speeds / (keep + (1 - keep) * factor)


def pair_turning(n, K, theta, trained):
    return K / 2 * math.log(trained / (2 * math.pi * n)) / math.log(theta)


_SPEEDS = 10_000.0 ** (-np.arange(0, 32, 2) / 32)
_OTHERS = 500_000.0 ** (-np.arange(0, 48, 2) / 48)

EXERCISES = {
    "10.1": Exercise(
        name="dynamic_base",
        right=dynamic_base,
        cases=[(10_000.0, 4.0, 3000, 1024, 64), (500_000.0, 2.0, 100, 700, 16), (20_000.0, 3.0, 701, 700, 8)],
        mistakes={
            "a text shorter than the trained length shrinks the base: it is to stay, take the larger of both lengths": (
                _base(lambda factor, length, trained: factor * length / trained - (factor - 1))
            ),
            "the exponent K / (K - 2) is missing": lambda theta, factor, length, trained, K: (
                theta * _stretch(factor, length, trained)
            ),
            "the exponent is upside down: K / (K - 2)": lambda theta, factor, length, trained, K: (
                theta * _stretch(factor, length, trained) ** ((K - 2) / K)
            ),
            "mind the parentheses: minus (f - 1) is minus f plus 1": _base(
                lambda factor, length, trained: factor * max(length, trained) / trained - factor - 1
            ),
            "the - (f - 1) is missing, so that short texts are stretched by f": _base(
                lambda factor, length, trained: factor * max(length, trained) / trained
            ),
            "you stretch by f whatever the length: that is NTK, but not dynamic": _base(
                lambda factor, length, trained: factor
            ),
            "you stretch by l / l0 alone: the factor is not in it": _base(
                lambda factor, length, trained: max(length, trained) / trained
            ),
            "that is the stretch s, or its power, without theta": lambda theta, factor, length, trained, K: (
                _stretch(factor, length, trained) ** (K / (K - 2))
            ),
            "the base does not follow the length: beyond the trained one it is stretched by f at once": (
                _base(lambda factor, length, trained: factor if length > trained else 1)
            ),
            "those are the frequencies; the base alone is wanted": lambda theta, factor, length, trained, K: (
                dynamic_base(theta, factor, length, trained, K) ** (-np.arange(0, K, 2) / K)
            ),
            "the base grows with a longer text; yours gets smaller": lambda theta, factor, length, trained, K: (
                theta / _stretch(factor, length, trained) ** (K / (K - 2))
            ),
            "theta belongs outside the power: only s is raised to K / (K - 2)": (
                lambda theta, factor, length, trained, K: (theta * _stretch(factor, length, trained)) ** (K / (K - 2))
            ),
        },
    ),
    "10.2": Exercise(
        name="llama3",
        right=llama3,
        cases=[(_SPEEDS, 4.0, 1.0, 4.0, 1024), (_OTHERS, 8.0, 1.5, 6.0, 8192)],
        mistakes={
            "turns are trained length times speed divided by 2 pi: the 2 pi is missing": _without_two_pi,
            "the wrong way round: slow pairs, of few turns, are the ones to be divided": _swapped,
            "the share must stay between 0 and 1: outside the borders nothing is blended": _unclipped,
            "slow pairs become slower: divide by the factor, do not multiply": _multiplied,
            "x / 2 * pi multiplies by pi: write x / (2 * pi)": _times_pi,
            "the divided part of the blend is missing: the two shares sum to 1": _kept_part,
            "between the borders the two are blended; yours jumps at the low one": _no_blend("low"),
            "between the borders the two are blended; yours jumps at the high one": _no_blend("high"),
            "the share grows with the turns of a pair, not with the tokens of a turn": _wavelengths,
            "those are the tokens of a turn, 2 pi / speed: wanted are the turns in the trained length": (
                _tokens_of_a_turn
            ),
            "the share is (turns - low) / (high - low), so that it reaches 1 at the high border": _divided_share,
            "blend the two speeds; you blend what they are divided by": _divisors_blended,
            "all pairs are divided: that is linear": lambda speeds, factor, low, high, trained: speeds / factor,
        },
    ),
    "10.3": Exercise(
        name="pair_turning",
        right=pair_turning,
        cases=[(1, 64, 10_000.0, 1024), (32, 128, 500_000.0, 8192), (3, 48, 20_000.0, 4096)],
        mistakes={
            "the 2 pi is missing: a turn is 2 pi radians": lambda n, K, theta, trained: (
                K / 2 * math.log(trained / n) / math.log(theta)
            ),
            "K / 2 pairs: the half is missing": lambda n, K, theta, trained: 2 * pair_turning(n, K, theta, trained),
            "n belongs below the line: more turns are made by faster pairs, of smaller index": (
                lambda n, K, theta, trained: K / 2 * math.log(trained * n / (2 * math.pi)) / math.log(theta)
            ),
            "the logarithm of theta is missing": lambda n, K, theta, trained: (
                K / 2 * math.log(trained / (2 * math.pi * n))
            ),
            "x / 2 * pi multiplies by pi: write x / (2 * pi)": lambda n, K, theta, trained: (
                K / 2 * math.log(trained / 2 * math.pi * n) / math.log(theta)
            ),
            "the number inside the logarithm is right; take its logarithm": lambda n, K, theta, trained: (
                trained / (2 * math.pi * n)
            ),
            "the sign is wrong: theta has a negative exponent": lambda n, K, theta, trained: (
                -pair_turning(n, K, theta, trained)
            ),
            "an index with its fraction is wanted: rounding comes later": lambda n, K, theta, trained: math.floor(
                pair_turning(n, K, theta, trained)
            ),
            "the two logarithms are of different bases: both of them natural ones": lambda n, K, theta, trained: (
                pair_turning(n, K, theta, trained) / math.log(10)
            ),
            "the logarithms are divided, not subtracted: ln(a) / ln(theta), not ln(a / theta)": (
                lambda n, K, theta, trained: K / 2 * math.log(trained / (2 * math.pi * n) / theta)
            ),
        },
    ),
}
