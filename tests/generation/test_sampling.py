import math

import numpy as np
import pytest
from hypothesis import given

from minillama.arrays import Array
from minillama.generation.sampling import (
    Sampling,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    penalize_repetition,
    seen_ids,
)
from tests.tiny import SEEDS, spiky

PROBS = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
LOGITS = np.log(PROBS) + 3  # adding the same to all changes nothing


def left(logits: Array) -> list[int]:
    return np.flatnonzero(logits > -np.inf).tolist()


def draws(sampling: Sampling, logits: Array, count: int, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    return np.array([sampling.choose(logits, (), rng) for _ in range(count)])


# -- the steps ----------------------------------------------------------------------------------------------------


def test_a_seen_id_becomes_less_likely_whatever_its_sign() -> None:
    logits = np.array([3.0, -2, 0, 1.5, -1])
    seen = seen_ids(np.array([0, 1, 2, 0]), 5)
    np.testing.assert_array_equal(penalize_repetition(logits, seen, 2.0), [1.5, -4, 0, 1.5, -1])
    np.testing.assert_array_equal(logits, [3, -2, 0, 1.5, -1])  # as before
    np.testing.assert_array_equal(penalize_repetition(logits, ~seen & seen, 2.0), logits)


@pytest.mark.parametrize(("k", "expected"), [(1, [1]), (2, [1, 3]), (4, [0, 1, 3, 4]), (5, [0, 1, 2, 3, 4])])
def test_top_k(k: int, expected: list[int]) -> None:
    assert left(keep_top_k(LOGITS, k)) == expected
    assert left(keep_top_k(LOGITS, 99)) == [0, 1, 2, 3, 4]


def test_ties_with_the_kth_stay() -> None:
    assert left(keep_top_k(np.array([1.0, 5, 1, 0, 1]), 2)) == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("p", "expected"),
    [(1e-9, [1]), (0.39, [1]), (0.41, [1, 3]), (0.64, [1, 3]), (0.66, [1, 3, 4]), (0.951, [0, 1, 2, 3, 4])],
)
def test_top_p_takes_the_fewest_that_reach_p(p: float, expected: list[int]) -> None:
    assert left(keep_top_p(LOGITS, p)) == expected


def test_of_equals_the_first_stay() -> None:
    equals = np.array([-9.0, 0, 0, 0, 0])
    assert left(keep_top_p(equals, 0.4)) == [1, 2]
    assert left(keep_top_p(np.zeros(4), 0.5)) == [0, 1]  # two reach a half
    assert left(keep_min_p(equals, 1, least=3)) == [1, 2, 3, 4]
    assert left(keep_min_p(np.array([0.0, 5, 0, 0]), 1, least=3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("min_p", "expected"), [(0.12, [0, 1, 2, 3, 4]), (0.13, [0, 1, 3, 4]), (0.6, [1, 3]), (1, [1])]
)
def test_min_p_is_relative_to_the_likeliest(min_p: float, expected: list[int]) -> None:
    assert left(keep_min_p(LOGITS, min_p)) == expected


# log p is -2.30, -0.92, -3.00, -1.39, -1.61 and the entropy 1.42: nearest to it are ids 3, 4, 1, 0, 2, in this order
@pytest.mark.parametrize(
    ("mass", "expected"), [(0.2, [3]), (0.26, [3, 4]), (0.46, [1, 3, 4]), (0.86, [0, 1, 3, 4]), (0.96, [0, 1, 2, 3, 4])]
)
def test_typical_takes_what_surprises_as_much_as_expected(mass: float, expected: list[int]) -> None:
    assert left(keep_typical(LOGITS, mass)) == expected


def test_the_least_that_stay() -> None:
    assert left(keep_top_p(LOGITS, 1e-9, least=3)) == [1, 3, 4]
    assert left(keep_min_p(LOGITS, 1, least=3)) == [1, 3, 4]
    assert left(keep_typical(LOGITS, 0.2, least=3)) == [1, 3, 4]


@given(SEEDS)
def test_rows_of_a_batch_are_cut_as_each_would_be_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = np.round(spiky(rng, 2, 3, 9), 1)  # with ties
    ids = rng.integers(0, 9, (2, 3, 4))
    together = [f(logits) for f in CUTS] + [penalize_repetition(logits, seen_ids(ids, 9), 1.3)]
    for place in np.ndindex(2, 3):
        row = logits[place]
        alone = [f(row) for f in CUTS] + [penalize_repetition(row, seen_ids(ids[place], 9), 1.3)]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one[place], other)


CUTS = (
    lambda x: keep_top_k(x, 3),
    lambda x: keep_top_p(x, 0.61, least=2),
    lambda x: keep_min_p(x, 0.23, least=2),
    lambda x: keep_typical(x, 0.57, least=2),
)


@given(SEEDS)
def test_what_stays_is_unchanged_and_the_likeliest_among_it(seed: int) -> None:
    logits = spiky(np.random.default_rng(seed), 9)
    for cut in (keep_top_k(logits, 3), keep_top_p(logits, 0.5), keep_min_p(logits, 0.2)):
        kept = left(cut)
        np.testing.assert_array_equal(cut[kept], logits[kept])
        assert int(logits.argmax()) in kept
        assert logits[kept].min() >= np.delete(logits, kept).max(initial=-np.inf)


# -- the choice ---------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_temperature_zero_takes_the_largest(seed: int) -> None:
    logits = spiky(np.random.default_rng(seed), 9).astype(np.float32)
    assert set(draws(Sampling(top_k=5, top_p=0.9), logits, 3)) == {int(logits.argmax())}


def test_of_equals_temperature_zero_takes_the_first() -> None:
    assert draws(Sampling(), np.array([1.0, 4, 4, 2]), 1).tolist() == [1]


def test_temperature_one_draws_with_the_models_probabilities() -> None:
    counts = np.bincount(draws(Sampling(temperature=1), LOGITS, 4000), minlength=5)
    # A count has the standard deviation sqrt(n p (1 - p)), 31 at most; four of them hold 99.99 % of honest seeds
    assert (np.abs(counts - 4000 * PROBS) < 4 * np.sqrt(4000 * PROBS * (1 - PROBS))).all()


def test_temperature_sharpens_or_flattens() -> None:
    for temperature in (0.5, 2.0):
        probs = PROBS ** (1 / temperature) / (PROBS ** (1 / temperature)).sum()
        counts = np.bincount(draws(Sampling(temperature=temperature), LOGITS, 4000), minlength=5)
        assert (np.abs(counts - 4000 * probs) < 4 * np.sqrt(4000 * probs * (1 - probs))).all()  # as above


def test_the_smallest_temperature_does_not_overflow() -> None:
    assert set(draws(Sampling(temperature=5e-324), np.array([1.0, 2, 1.5], np.float32), 5)) == {1}


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        # 0.4 / 0.25 at temperature 0.5 becomes 2.56, so that 0.6 of the likeliest leaves it alone
        (Sampling(temperature=0.5, min_p=0.6), {1}),
        (Sampling(temperature=1, min_p=0.6), {1, 3}),
        # Of the two that top_k leaves, the first has 0.4 / 0.65 = 0.62 and reaches p; of all, it has 0.4
        (Sampling(temperature=1, top_k=2, top_p=0.6), {1}),
        (Sampling(temperature=1, top_p=0.6), {1, 3}),
    ],
)
def test_the_steps_run_in_the_order_of_the_fields(sampling: Sampling, expected: set[int]) -> None:
    assert set(draws(sampling, LOGITS, 200)) == expected


def test_the_penalty_comes_before_the_choice() -> None:
    logits = np.array([1.0, 3, 2])
    assert Sampling(repetition_penalty=1.6).choose(logits, [1], np.random.default_rng(0)) == 2
    assert Sampling(repetition_penalty=1.6).choose(logits, [], np.random.default_rng(0)) == 1


def test_ids_that_are_seen_but_cannot_be_chosen() -> None:
    assert Sampling(repetition_penalty=2).choose(np.array([1.0, 3, 2]), [1, 7], np.random.default_rng(0)) == 2


def test_the_largest_penalty_makes_no_nan() -> None:
    logits, seen = np.array([0, -3, 2, 1], np.float32), np.array([True, True, True, False])
    np.testing.assert_array_equal(penalize_repetition(logits, seen, 1e308), np.float32([0, -np.inf, 0, 1]))
    np.testing.assert_array_equal(penalize_repetition(logits.astype(float), seen, 1e308), [0, -np.inf, 2e-308, 1])


def test_the_same_seed_draws_the_same() -> None:
    sampling = Sampling(temperature=1)
    first, again, other = (draws(sampling, LOGITS, 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


class Extreme:
    """A generator that only ever draws one number."""

    def __init__(self, number: float):
        self.random = lambda: number


def test_minus_infinity_is_never_drawn() -> None:
    logits = np.array([-np.inf, 0, -np.inf, -1, -np.inf])
    sampling = Sampling(temperature=3)
    assert set(draws(sampling, logits, 200)) == {1, 3}
    assert [sampling.choose(logits, (), Extreme(number)) for number in (0.0, 1 - 2**-53)] == [1, 3]


@pytest.mark.parametrize("logits", [[0, math.nan], [0, math.inf], [-math.inf, -math.inf]])
def test_logits_that_leave_no_choice(logits: list[float]) -> None:
    with pytest.raises(ValueError, match=r"not finite|no token left"):
        Sampling(temperature=1).choose(np.array(logits), (), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("repetition_penalty", [0, -1.0, math.inf]),
        ("temperature", [-1, math.nan, math.inf]),
        ("top_k", [-1, 1.5]),
        ("top_p", [0, 1.1, math.nan]),
        ("min_p", [-0.1, 2, math.nan]),
    ],
)
def test_settings_out_of_range_are_named(name: str, values: list[float]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} must be .*, not {value}$"):
            Sampling(**{name: value})
