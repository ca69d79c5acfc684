"""The bounds that docs/numerics.md states for float64 hold, against the same formulas in 50 digits or in fractions."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from minillama.arrays import Array
from minillama.model.attention import grouped_context, grouped_scores
from minillama.model.mlp import silu
from minillama.model.norm import rms_norm
from minillama.model.ops import linear, softmax
from minillama.model.rope import Rotary, rotate
from tests.tiny import SEEDS, spiky, tiny_config

U = 2.0**-53
DIGITS = Context(prec=50)


@given(SEEDS)
def test_a_product_is_within_its_number_of_terms(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = spiky(rng, 3, 257), spiky(rng, 5, 257) * 10.0 ** rng.integers(-8, 8, (5, 257))
    for row, given_row in zip(linear(x, w), x, strict=True):
        for got, weights in zip(row, w, strict=True):
            terms = products(given_row, weights)
            assert abs(Fraction(float(got)) - sum(terms)) <= 257 * Fraction(U) * sum(map(abs, terms))


@pytest.mark.parametrize("size", [1e-3, 1, 1e6])
def test_a_norm_is_within_half_its_width(size: float) -> None:
    rng = np.random.default_rng(7)
    x, w, eps = spiky(rng, 300) * size, 1 + spiky(rng, 300) / 5, 1e-6
    with localcontext(DIGITS):
        mean = sum(Decimal(v) ** 2 for v in x.tolist()) / len(x)
        root = (mean + Decimal(eps)).sqrt()
        for got, v, weight in zip(rms_norm(x, w, eps).tolist(), x.tolist(), w.tolist(), strict=True):
            exact = Decimal(v) / root * Decimal(weight)
            assert abs(Decimal(got) - exact) <= Decimal((300 / 2 + 4) * U) * abs(exact)


@given(SEEDS)
def test_probabilities_are_within_the_number_and_the_range_of_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = spiky(rng, 40) * 30  # some probabilities are 1e-100
    bound = (len(scores) + 4 + 2 * np.ptp(scores)) * U
    with localcontext(DIGITS):
        exact = [Decimal(s).exp() for s in scores.tolist()]
        for got, e in zip(softmax(scores).tolist(), exact, strict=True):
            assert abs(Decimal(got) * sum(exact) - e) <= Decimal(bound) * e


@pytest.mark.parametrize("position", [1, 1000, 99_999])
def test_angles_are_within_three_roundings(position: int) -> None:
    """Of the angle itself; the frequency is a power of theta, its exponent a quotient."""
    config = tiny_config(head_dim=64, rope_theta=500_000.0)
    frequencies = Rotary(config).inv_freq(np.array([[position]]), position + 1)
    with localcontext(DIGITS):
        for j, got in enumerate((position * frequencies).reshape(-1).tolist()):
            exact = position * Decimal(500_000) ** (Decimal(-2 * j) / 64)
            assert abs(Decimal(got) - exact) <= Decimal(3 * U) * exact


@given(SEEDS)
def test_turned_pairs_are_within_two_roundings_of_their_length(seed: int) -> None:
    """By the very cos and sin that are given; those are rounded too, which makes it three."""
    rng = np.random.default_rng(seed)
    x, theta = spiky(rng, 1, 1, 3, 8), rng.uniform(0, 1e5, (1, 3, 4))
    cos, sin = np.cos(theta), np.sin(theta)
    turned = rotate(x, cos, sin)
    for t in range(3):
        for j in range(4):
            a, b, c, s = (Fraction(float(v)) for v in (x[0, 0, t, j], x[0, 0, t, j + 4], cos[0, t, j], sin[0, t, j]))
            length = Fraction(float(np.hypot(float(a), float(b)) * (1 + 1e-15)))
            for got, exact in ((turned[0, 0, t, j], a * c - b * s), (turned[0, 0, t, j + 4], b * c + a * s)):
                assert abs(Fraction(float(got)) - exact) <= 2 * Fraction(U) * length


@given(SEEDS)
def test_gated_numbers_are_within_four_roundings_of_what_is_gated(seed: int) -> None:
    """Of gate times up, not of the result: the sigmoid goes through tanh, near -1 for what passes hardly at all."""
    rng = np.random.default_rng(seed)
    gate, up = spiky(rng, 50) * 20, spiky(rng, 50)
    with localcontext(DIGITS):
        for got, g, u in zip((silu(gate) * up).tolist(), gate.tolist(), up.tolist(), strict=True):
            exact = Decimal(g) / (1 + (-Decimal(g)).exp()) * Decimal(u)
            assert abs(Decimal(got) - exact) <= Decimal(4 * U) * abs(Decimal(g) * Decimal(u))


@pytest.mark.parametrize("seed", [0, 1])
def test_attention_is_within_its_number_of_terms(seed: int) -> None:
    """Scores of 64 components, before they are scaled, and contexts over 33 keys of probabilities as they are."""
    rng = np.random.default_rng(seed)
    q, k, v = spiky(rng, 1, 4, 1, 64), spiky(rng, 1, 2, 33, 64), spiky(rng, 1, 2, 33, 64)
    probs = rng.random((1, 4, 1, 33))
    scores, context = grouped_scores(q, k), grouped_context(probs, v)
    for head in range(4):
        of_keys = [products(q[0, head, 0], key) for key in k[0, head // 2]]
        of_values = [products(probs[0, head, 0], column) for column in v[0, head // 2].T]
        for row, all_terms, count in ((scores, of_keys, 64), (context, of_values, 33)):
            for got, terms in zip(row[0, head, 0].tolist(), all_terms, strict=True):
                assert abs(Fraction(got) - sum(terms)) <= count * Fraction(U) * sum(map(abs, terms))


def products(a: Array, b: Array) -> list[Fraction]:
    return [Fraction(x) * Fraction(y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
