import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.model.rope import Rotary, attention_factor, inverse_frequencies, rotate, turns
from tests.tiny import ROPES, SEEDS, assert_close, spiky, tiny_config

FIXED = [kind for kind in ROPES if kind not in ("dynamic", "longrope")]  # frequencies that no length changes
EXPONENTS = np.array([0, 2, 4]) / 6  # of the tiny model's three pairs


def frequencies(kind: str, length: int = 1) -> Array:
    return inverse_frequencies(tiny_config(**ROPES[kind]), np.asarray(length))


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


# -- frequencies --------------------------------------------------------------------------------------------------


def test_default_frequencies_are_a_geometric_series() -> None:
    assert_close(frequencies("default"), 10000.0**-EXPONENTS)
    config = tiny_config(head_dim=4, rope_theta=100.0)
    assert_close(inverse_frequencies(config, np.asarray(1)), np.array([1, 0.1]))


def test_linear_divides_all() -> None:
    assert_close(frequencies("linear"), 10000.0**-EXPONENTS / 4)


def test_dynamic_raises_the_base_beyond_the_trained_length() -> None:
    assert_close(frequencies("dynamic", 8), 10000.0**-EXPONENTS)  # trained on 8
    base = 10000 * (4 * 12 / 8 - 3) ** (6 / 4)
    assert_close(frequencies("dynamic", 12), base**-EXPONENTS)


def test_llama3_keeps_fast_pairs_divides_slow_ones_and_blends_between() -> None:
    config = tiny_config(**ROPES["llama3"], rope_theta=8.0)
    plain = 8.0**-EXPONENTS  # 1, 1/2, 1/4: they turn 2.55, 1.27 and 0.64 times in 16 positions
    smooth = (16 * plain / (2 * math.pi) - 1) / (4 - 1)
    expected = [(1 - s) * f / 8 + s * f for s, f in zip(smooth[:2], plain[:2], strict=True)] + [plain[2] / 8]
    assert_close(inverse_frequencies(config, np.asarray(1)), np.array(expected))
    fast = tiny_config(rope_scaling=ROPES["llama3"]["rope_scaling"] | {"original_max_position_embeddings": 1000})
    assert inverse_frequencies(fast, np.asarray(1))[0] == 1.0


def test_yarn_keeps_the_first_pairs_and_divides_the_last() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
    config = tiny_config(head_dim=64, rope_scaling=scaling)
    plain = 10000.0 ** -(np.arange(32) / 32)
    got = inverse_frequencies(config, np.asarray(1))
    # Pair 10 turns 32 times in 4096 positions (10.47 rounded down) and pair 23 once (22.51 rounded up)
    assert_close(got[:11], plain[:11])
    assert_close(got[23:], plain[23:] / 4)
    assert_close(got[16:17], plain[16:17] * (7 / 13 + 6 / 13 / 4))


@pytest.mark.parametrize(
    ("compat", "used"),
    # Lengths of four calls of a model trained on 8. transformers 4 goes by the keys and never goes back to a shorter
    # text; 5 goes by the last position, and goes back only for a text shorter than those of training
    [("hf4", [12, 20, 20, 20]), ("hf5", [11, 19, 19, 8])],
)
def test_compat_modes_use_one_length_for_a_whole_call(compat: str, used: list[int]) -> None:
    rotary = Rotary(tiny_config(**ROPES["dynamic"]), compat)
    assert not rotary.depends_on_length
    for key_length, length in zip([12, 20, 9, 6], used, strict=True):
        got = rotary.inv_freq(np.arange(key_length - 1)[None], key_length)
        assert_close(got, frequencies("dynamic", length))


def test_longrope_changes_its_factors_after_the_trained_length() -> None:
    assert_close(frequencies("longrope", 8), 10000.0**-EXPONENTS / [1.0, 1.2, 1.7])
    assert_close(frequencies("longrope", 9), 10000.0**-EXPONENTS / [1.0, 2.5, 6.0])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (ROPES["default"], 1.0),
        (ROPES["linear"], 1.0),
        (ROPES["yarn"], 0.1 * math.log(4) + 1),
        ({"rope_scaling": ROPES["yarn"]["rope_scaling"] | {"attention_factor": 0.7}}, 0.7),
        (
            {"rope_scaling": ROPES["yarn"]["rope_scaling"] | {"mscale": 2.0, "mscale_all_dim": 0.5}},
            (0.2 * math.log(4) + 1) / (0.05 * math.log(4) + 1),
        ),
        (ROPES["longrope"], math.sqrt(1 + math.log(32 / 8) / math.log(8))),
        ({"rope_scaling": ROPES["longrope"]["rope_scaling"], "max_position_embeddings": 8}, 1.0),
    ],
)
def test_what_cos_and_sin_are_multiplied_by(overrides: dict[str, object], expected: float) -> None:
    config = tiny_config(**overrides)
    assert attention_factor(config) == pytest.approx(expected, rel=1e-15)  # a handful of float64 roundings
    cos, sin = Rotary(config).angles(np.array([[5]]), np.array([0.3, 0.2, 0.1]), np.float64)
    assert_close(np.hypot(cos, sin), np.full((1, 1, 3), expected))


def test_float32_angles_are_exact_far_out() -> None:
    positions, inv_freq = np.array([[100_000]]), np.array([0.7, 0.1, 0.013])
    cos, sin = Rotary(tiny_config()).angles(positions, inv_freq, np.float32)
    assert cos.dtype == sin.dtype == np.float32
    np.testing.assert_array_equal(cos[0, 0], np.cos(100_000 * inv_freq).astype(np.float32))


# -- runs of columns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FIXED)
def test_one_run_and_keys_turned_before_they_are_cached(kind: str) -> None:
    positions = np.arange(20)[None]
    (run,) = turns(Rotary(tiny_config(**ROPES[kind])), positions, positions, np.float64)
    assert run.columns == slice(None)
    assert run.keys is None


@pytest.mark.parametrize(("kind", "edges"), [("dynamic", [0, 8, 9, 10, 11, 12]), ("longrope", [0, 8, 12])])
def test_a_run_for_every_set_of_frequencies(kind: str, edges: list[int]) -> None:
    positions = np.arange(12)[None]
    runs = turns(Rotary(tiny_config(**ROPES[kind])), positions, positions, np.float64)
    assert [(run.columns.start, run.columns.stop) for run in runs] == list(pairwise(edges))
    for run in runs:  # the keys a query looks at are turned with the query's own frequencies
        assert run.keys is not None
        assert run.keys[0].shape == (1, 12, 3)
        np.testing.assert_array_equal(run.keys[0][:, run.columns], run.query[0])
