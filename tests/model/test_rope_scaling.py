import math

import numpy as np
import pytest

from minillama.model.rope import Rotary
from minillama.model.rope_scaling import attention_factor, inverse_frequencies
from tests.tiny import ROPES, assert_close, frequencies, tiny_config

EXPONENTS = np.array([0, 2, 4]) / 6  # of the tiny model's three pairs


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


def test_proportional_turns_the_first_pairs_only() -> None:
    assert_close(frequencies("proportional"), np.array([1, 0, 0]))
    config = tiny_config(rope_scaling={"rope_type": "proportional", "partial_rotary_factor": 0.7, "factor": 2.0})
    assert_close(inverse_frequencies(config, np.asarray(1)), np.array([1, 10000 ** (-2 / 6), 0]) / 2)


def test_yarn_takes_its_factor_from_the_lengths_where_none_is_given() -> None:
    scaling = {"rope_type": "yarn", "original_max_position_embeddings": 8}
    assert_close(
        inverse_frequencies(tiny_config(rope_scaling=scaling), np.asarray(1)),
        inverse_frequencies(tiny_config(rope_scaling=scaling | {"factor": 4.0}), np.asarray(1)),  # 32 / 8
    )


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "proportional", "partial_rotary_factor": 1.5}, "partial_rotary_factor must be between 0 and 1"),
        ({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}, "a LLaMA turns whole heads"),
    ],
)
def test_parts_of_heads(scaling: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(rope_scaling=scaling)


def test_yarn_of_a_very_short_trained_context_is_as_in_transformers() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8} | {
        "beta_fast": 2.5, "beta_slow": 2.49, "truncate": False,
    }  # fmt: skip
    config = tiny_config(head_dim=4, rope_theta=100.0, rope_scaling=scaling)
    # The blend ends before it begins, and is left so: no pair is divided by the factor
    assert_close(inverse_frequencies(config, np.asarray(1)), np.array([1, 0.1]))
