"""The exercises of chapter 13, the bug hunt."""

import math

import numpy as np
from bughunt import error, first_difference
from checks import Exercise

_random = np.random.default_rng(13)
_RIGHT = _random.normal(0.5, 3, (2, 3, 4))
_RIGHT[1, 0, 2] = -31.5  # the largest number is negative
_OFF = _RIGHT * (1 + _random.normal(0, 1e-3, _RIGHT.shape))
_OFF[0, 1, 1] -= 0.75  # and so is the largest difference
_CASES = [(_OFF, _RIGHT), (np.array([40.0, -2, 3]), np.array([50.0, -2, 8])), (_RIGHT, _RIGHT)]


def _of_each(x, right):
    return float(np.max(np.abs(x - right) / np.abs(right)))


def _signed(x, right):
    return float((x - right).max() / np.abs(right).max())


def _by_largest(x, right):
    return float(np.abs(x - right).max() / right.max())


# Three runs of one model, the names in the order in which they are computed, which is no alphabet's
_REFERENCE = {
    "norm": np.array([[0.5, -2.0], [1.5, 4.0]]),
    "gate": np.array([[300.0, -120.0], [10.0, 45.0]]),
    "act": np.array([[8.0, -1.0], [2.0, 6.5]]),
    "down": np.array([[0.01, -0.02], [0.03, 0.005]]),
    "logits": np.array([[1.0, 2.0, -9.0], [3.0, 0.5, 7.0]]),
}


def _with(**changed):
    return _REFERENCE | changed


# Of gate, only the last digits: 0.002 of 300. From act on it is wrong, worst in the logits
_ROUNDED = _with(gate=_REFERENCE["gate"] + 0.002, act=_REFERENCE["act"] + 0.1, logits=-_REFERENCE["logits"])
_SMALL = _with(down=_REFERENCE["down"] + 0.00001, logits=_REFERENCE["logits"] + 0.01)  # 0.00001 is much of 0.03
_NAN = _with(act=np.array([[8.0, np.nan], [2.0, 6.5]]), logits=_REFERENCE["logits"] + 3)
_ABSENT = {name: array for name, array in _REFERENCE.items() if name != "act"} | {"logits": _REFERENCE["logits"] + 1}
_SHAPED = _with(down=_REFERENCE["down"].ravel(), logits=_REFERENCE["logits"] + 2)
# One element that is off, negative as it is, and others that agree
_ONE = _with(norm=np.array([[0.5, -2.0], [1.5, 3.0]]), gate=_REFERENCE["gate"] * 1.5)
_TWO = _with(gate=_REFERENCE["gate"] * 1.5, act=_REFERENCE["act"] * 1.5)
_RUNS = [(run, _REFERENCE, 1e-4) for run in (_ROUNDED, _SMALL, _NAN, _ABSENT, _SHAPED, _ONE, _TWO, dict(_REFERENCE))]


def _differing(seen, reference, tolerance, far=error):
    return [name for name in reference if far(seen.get(name), reference[name]) > tolerance]


def _first(names):
    return names[0] if names else None


def _absolute(x, right):
    if x is None or x.shape != right.shape or np.isnan(x).any():
        return math.inf
    return float(np.abs(x - right).max())


def _nan_passes(x, right):
    return math.inf if x is None or x.shape != right.shape else float(np.abs(x - right).max() / np.abs(right).max())


def _absent_passes(x, right):
    return 0.0 if x is None else error(x, right)


def _signed_error(x, right):
    return error(x, right) if not np.isfinite(error(x, right)) else _signed(x, right)


def _last(seen, reference, tolerance):
    return _first(_differing(seen, reference, tolerance)[::-1])


def _worst(seen, reference, tolerance):
    far = {name: error(seen.get(name), reference[name]) for name in reference}
    name = max(far, key=far.__getitem__)
    return name if far[name] > tolerance else None


def _worst_there(seen, reference, tolerance):
    far = {name: error(seen[name], reference[name]) for name in reference if name in seen}
    name = max(far, key=far.__getitem__)
    return name if far[name] > tolerance else None


def _worst_of_one_shape(seen, reference, tolerance):
    return _worst_there(
        {name: array for name, array in seen.items() if array.shape == reference[name].shape}, reference, tolerance
    )


def _alphabetical(seen, reference, tolerance):
    return _first(sorted(_differing(seen, reference, tolerance)))


def _last_right(seen, reference, tolerance):
    name, names = first_difference(seen, reference, tolerance), list(reference)
    return None if name is None else _first(names[: names.index(name)][-1:])


def _firsts(keys="k_rope", mask="probs", second="output", norm="input_norm"):
    return keys, mask, second, norm


EXERCISES = {
    "13.1": Exercise(
        name="relative_error",
        right=error,
        cases=_CASES,
        mistakes={
            "each difference is divided by its own number, so that one small number makes it large": _of_each,
            "differences have signs: take the largest of their sizes": _signed,
            "the largest number may be negative: divide by the largest size": _by_largest,
            "that is the difference itself: divide it by the largest size in right": lambda x, right: float(
                np.abs(x - right).max()
            ),
            "that is the mean of the differences, in which one wrong number drowns": lambda x, right: float(
                np.abs(x - right).mean() / np.abs(right).max()
            ),
            "it is in parts of the largest of x: right is the measure": lambda x, right: float(
                np.abs(x - right).max() / np.abs(x).max()
            ),
            "you divide lengths, in which one wrong number drowns: the largest difference is wanted": lambda x, right: (
                float(np.linalg.norm(x - right) / np.linalg.norm(right))
            ),
            "it is in parts of the mean size: the largest is the measure": lambda x, right: float(
                np.abs(x - right).max() / np.abs(right).mean()
            ),
        },
    ),
    "13.2": Exercise(
        name="first_wrong",
        right=first_difference,
        cases=_RUNS,
        mistakes={
            "that is the last one that differs: the first is wanted": _last,
            "that is the one with the largest error: an error grows on its way, the first is wanted": _worst,
            "that is the one with the largest error of those that are there: the first is wanted": _worst_there,
            "that is the one with the largest error of those that have the right shape: the first is wanted": (
                _worst_of_one_shape
            ),
            "that is the first by the alphabet: go through reference in its own order": _alphabetical,
            "that is the last one that agrees: wanted is the one after it": _last_right,
            "the differences are not divided by the largest number, which differs from array to array": (
                lambda seen, reference, tolerance: _first(_differing(seen, reference, tolerance, _absolute))
            ),
            "NaN passes: no comparison with NaN is true, so ask whether the error is not within the tolerance": (
                lambda seen, reference, tolerance: _first(_differing(seen, reference, tolerance, _nan_passes))
            ),
            "a name that seen does not have passes: it differs as much as anything can": (
                lambda seen, reference, tolerance: _first(_differing(seen, reference, tolerance, _absent_passes))
            ),
            "differences have signs: an error below zero passes": (
                lambda seen, reference, tolerance: _first(_differing(seen, reference, tolerance, _signed_error))
            ),
            "where nothing differs it must return None": lambda seen, reference, tolerance: (
                first_difference(seen, reference, tolerance) or ""
            ),
        },
    ),
    "13.3": Exercise(
        name="firsts",
        right=_firsts(),
        mistakes={
            "keys are turned after they are projected: k_proj agrees still": _firsts(keys="k_proj"),
            "before the scores differ, the keys do": _firsts(keys="scores"),
            "queries are turned as they should be": _firsts(keys="q_rope"),
            "the tap `scores` comes before the mask": _firsts(mask="scores"),
            "`residual` is the stream after attention; the second residual is where the MLP is added": _firsts(
                second="residual"
            ),
            "what the MLP adds is right; it is the sum that is not": _firsts(second="down"),
            "there is a norm before that one: each layer begins with it": _firsts(norm="post_attention_norm"),
            "all norms are wrong, and the first comes long before the last": _firsts(norm="norm"),
        },
    ),
}
