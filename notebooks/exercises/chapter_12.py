"""The exercises of chapter 12, speed and quantization."""

import numpy as np
from checks import Exercise

_random = np.random.default_rng(12)
_FLOATS = np.concatenate((_random.normal(0, 3, 9), [1.0, -2.5, 1e-3, 40000.0, -0.75])).astype(np.float32)
_STORED = (_FLOATS.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
_WEIGHTS = _random.normal(0, 1, 96) * np.repeat([0.01, 1, 30], 32)
_WEIGHTS[40] = -9.0  # the largest of its group is negative
_WITH_ZEROS = np.concatenate((np.zeros(32), _WEIGHTS[:32]))


def widen_bfloat16(stored):
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


def quantize_groups(weights):
    groups = weights.reshape(-1, 32)
    scales = np.abs(groups).max(axis=1) / 127
    return np.round(groups / np.where(scales == 0, 1, scales)[:, None]), scales


def _with(peak_of=lambda groups: np.abs(groups).max(axis=1), levels=127, whole=np.round):
    """quantize_groups with one thing changed."""

    def run(weights):
        groups = weights.reshape(-1, 32)
        scales = np.broadcast_to(peak_of(groups) / levels, len(groups)).copy()
        return whole(groups / np.where(scales == 0, 1, scales)[:, None]), scales

    return run


def _nan(weights):
    groups = weights.reshape(-1, 32)
    scales = np.abs(groups).max(axis=1) / 127
    return np.round(groups / scales[:, None]), scales


def _restored(weights):
    numbers, scales = quantize_groups(weights)
    return numbers * scales[:, None], scales


def _added(weights):
    groups = weights.reshape(-1, 32)
    scales = np.abs(groups).max(axis=1) / 127
    return np.round(groups / (scales[:, None] + 1e-6)), scales


def _columns(weights):
    groups = weights.reshape(32, -1).T
    scales = np.abs(groups).max(axis=1) / 127
    return np.round(groups / np.where(scales == 0, 1, scales)[:, None]), scales


EXERCISES = {
    "12.1": Exercise(
        name="widen_bfloat16",
        right=widen_bfloat16,
        cases=[(_STORED,), (_STORED[:8].reshape(2, 4),)],
        mistakes={
            "that converts the whole numbers: look at their bits as float32 with .view": lambda s: s.astype(np.float32),
            "shifted right, and then converted: .view keeps the bits, .astype the value": lambda s: (
                s.astype(np.uint32) << np.uint32(16)
            ).astype(np.float32),
            "the bits belong into the upper half: shift left by 16": lambda s: s.astype(np.uint32).view(np.float32),
            "the 16 bits are lost: make 32 of them first, with .astype(np.uint32), then shift": lambda s: np.zeros_like(
                s
            ).view(np.float32),
            "the 16 bits are lost if you shift them before they are 32": lambda s: (
                (s << np.uint16(15) << np.uint16(1)).astype(np.uint32).view(np.float32)
            ),
            "that is float16, which has 5 bits of exponent": lambda s: s.view(np.float16).astype(np.float32),
            "it is 16 bits, not 8": lambda s: (s.astype(np.uint32) << np.uint32(8)).view(np.float32),
        },
    ),
    "12.2": Exercise(
        name="most_tokens",
        right=lambda parameters, bits, rate: rate * 1e9 / (parameters * bits / 8),
        cases=[(7e9, 16, 50), (1.1e9, 4.5, 35.5), (13e9, 8.5, 80)],
        mistakes={
            "a byte has 8 bits: divide the bits": lambda n, bits, rate: rate * 1e9 / (n * bits),
            "that is seconds a token: turn it over": lambda n, bits, rate: n * bits / 8 / (rate * 1e9),
            "a GB has 10^9 bytes": lambda n, bits, rate: rate / (n * bits / 8),
            "a GB is 10^9 bytes here, not 2^30": lambda n, bits, rate: rate * 2**30 / (n * bits / 8),
            "do not round: the answer has a fraction": lambda n, bits, rate: int(rate * 1e9 / (n * bits / 8)),
            "the size of a number counts": lambda n, bits, rate: rate * 1e9 / n,
            "each weight is read once a token, though it takes part in two operations": lambda n, bits, rate: (
                rate * 1e9 / (2 * n * bits / 8)
            ),
        },
    ),
    "12.3": Exercise(
        name="quantize_groups",
        right=quantize_groups,
        cases=[(_WEIGHTS,), (_WITH_ZEROS,)],
        mistakes={
            "each group has its own scale, and you use one for all": _with(lambda groups: np.abs(groups).max()),
            "the largest by size: a negative weight can be it": _with(lambda groups: np.maximum(groups.max(axis=1), 0)),
            "the numbers go up to 127, not 128": _with(levels=128),
            "that is the scale for numbers from 0 to 255": _with(levels=255),
            "round to the nearest: what is cut off is twice the error": _with(whole=np.trunc),
            "round to the nearest, not down": _with(whole=np.floor),
            "the numbers are not whole: round them": _with(whole=lambda x: x),
            "that is the distance from the smallest to the largest: the scale is the largest size / 127": _with(
                lambda groups: groups.max(axis=1) - groups.min(axis=1)
            ),
            "a group of zeros divides 0 by 0": _nan,
            "numbers and scales are wanted, not the weights they stand for": _restored,
            "a small number added to the scale moves every number of the group: ask whether the scale is 0 instead": (
                _added
            ),
            "a group is 32 neighbours: reshape to (-1, 32)": _columns,
        },
    ),
    "12.4": Exercise(
        name="gigabytes",
        right=3.79,
        rtol=2e-3,
        mistakes={
            "the scales take room too: half a bit for each weight": 3.37,
            "a scale for 32 weights, not for each": 16.85,
            "that is 8 bits": 7.16,
            "that is gigabits: a byte has 8": 30.33,
            "that is 16 bits": 13.48,
            "a GB is 10^9 bytes here, not 2^30": 3.531,
        },
    ),
}
