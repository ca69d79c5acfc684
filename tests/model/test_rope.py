from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.model.rope import Rotary, Rotations, rotate
from tests.tiny import ROPES, SEEDS, assert_close, spiky, tiny_config

FIXED = [kind for kind in ROPES if kind not in ("dynamic", "longrope")]  # frequencies that no length changes


# -- turning ------------------------------------------------------------------------------------------------------


def test_every_pair_turns_by_its_own_angle() -> None:
    x = spiky(np.random.default_rng(2), 2, 3, 4, 6)  # (B, heads, T, K)
    theta = np.random.default_rng(3).uniform(-9, 9, (2, 4, 3))  # (B, T, K/2)
    expected = np.empty_like(x)
    for b, h, t, j in np.ndindex(2, 3, 4, 3):
        turned = complex(x[b, h, t, j], x[b, h, t, j + 3]) * np.exp(1j * theta[b, t, j])
        expected[b, h, t, j], expected[b, h, t, j + 3] = turned.real, turned.imag
    assert_close(rotate(x, np.cos(theta), np.sin(theta)), expected)


def test_position_zero_turns_nothing() -> None:
    x = spiky(np.random.default_rng(4), 1, 2, 1, 6)
    rotary = Rotary(tiny_config())
    position = np.zeros((1, 1), int)
    cos, sin = rotary.angles(position, rotary.inv_freq(position, 1), np.float64)
    np.testing.assert_array_equal(rotate(x, cos, sin), x)


@pytest.mark.parametrize("kind", FIXED)
@given(SEEDS, st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000))
def test_scores_depend_on_the_distance_only(kind: str, seed: int, m: int, n: int, shift: int) -> None:
    rng, rotary = np.random.default_rng(seed), Rotary(tiny_config(**ROPES[kind]))
    q, k = spiky(rng, 1, 1, 1, 6), spiky(rng, 1, 1, 1, 6)

    def score(query_position: int, key_position: int) -> float:
        turned = []
        for x, position in ((q, query_position), (k, key_position)):
            positions = np.array([[position]])
            turned.append(rotate(x, *rotary.angles(positions, rotary.inv_freq(positions, 1), np.float64)))
        return float((turned[0] * turned[1]).sum())

    # Angles reach 1e4 radians, where float64 is spaced 2e-12; the score changes by that times |q| |k|
    size = float(np.linalg.norm(q) * np.linalg.norm(k)) * rotary.scale**2
    assert abs(score(m, n) - score(m + shift, n + shift)) < 1e-10 * size


def test_float32_angles_are_exact_far_out() -> None:
    positions, inv_freq = np.array([[100_000]]), np.array([0.7, 0.1, 0.013])
    cos, sin = Rotary(tiny_config()).angles(positions, inv_freq, np.float32)
    assert cos.dtype == sin.dtype == np.float32
    np.testing.assert_array_equal(cos[0, 0], np.cos(100_000 * inv_freq).astype(np.float32))


# -- runs of columns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FIXED)
def test_queries_and_new_keys_have_the_same_angles(kind: str) -> None:
    rotary, positions = Rotary(tiny_config(**ROPES[kind])), np.arange(5, 20)[None]
    rotations = Rotations(rotary, positions, np.arange(20)[None], np.float64)
    assert not rotations.by_length
    cos, sin = rotary.angles(positions, rotary.inv_freq(positions, 20), np.float64)
    np.testing.assert_array_equal(rotations.angles, [cos, sin])


@pytest.mark.parametrize(("kind", "edges"), [("dynamic", [0, 8, 9, 10, 11, 12]), ("longrope", [0, 8, 12])])
def test_a_run_for_every_set_of_frequencies(kind: str, edges: list[int]) -> None:
    positions = np.arange(12)[None]
    rotations = Rotations(Rotary(tiny_config(**ROPES[kind])), positions, positions, np.float64)
    assert rotations.by_length
    runs = list(rotations.runs())
    assert [(columns.start, columns.stop) for columns, _, _ in runs] == list(pairwise(edges))
    for columns, query, keys in runs:  # the keys a query looks at are turned with the query's own frequencies
        assert keys[0].shape == keys[1].shape == (1, 12, 3)
        np.testing.assert_array_equal(keys[0][:, columns], query[0])
        np.testing.assert_array_equal(keys[1][:, columns], query[1])
