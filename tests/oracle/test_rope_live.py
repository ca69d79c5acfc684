"""Rotary frequencies against all of transformers' ROPE_INIT_FUNCTIONS, over a grid of settings and lengths."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.config import ROPE_TYPES, LlamaConfig
from minillama.model.rope_compat import UpstreamRotary
from minillama.model.rope_scaling import attention_factor, inverse_frequencies
from tests.oracle.rope_grid import BY_LENGTH, ask, calls, grid, lengths

pytest.importorskip("transformers.modeling_rope_utils", reason="needs the oracle extra")
pytestmark = pytest.mark.oracle

# A power, a logarithm and some products in float64 differ by a few times 2^-53 between two ways of writing them, and
# llama3's blend, where it takes one nearly equal number from another, by ten times that
RELATIVE = 1e-13
Answer = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def answers() -> tuple[list[str], list[Answer]]:
    names, lines = ask()
    return names, list(zip(grid(), lines, strict=True))


def config_of(settings: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(hidden_size=2 * settings["head_dim"], num_attention_heads=2, **settings)


def assert_close(ours: Array, theirs: list[float], settings: dict[str, Any]) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=RELATIVE, atol=0, err_msg=str(settings))


def test_no_function_is_left_out(answers: tuple[list[str], list[Answer]]) -> None:
    names, grid_of = answers
    assert set(names) == set(ROPE_TYPES) - {"default"}
    assert {settings["rope_parameters"]["rope_type"] for settings, _ in grid_of} == {"default", *names}


def test_of_two_scalings_the_same_one_counts() -> None:
    """docs/differences.md has the theta, which transformers loses then."""
    from transformers import LlamaConfig as Theirs

    newer = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0}
    for older in ({"rope_type": "linear", "factor": 4.0, "rope_theta": 7.0}, {}, None):
        both = {"rope_parameters": newer, "rope_scaling": older}
        theirs = Theirs(**copy.deepcopy(both))  # which writes into what it is given
        assert LlamaConfig(**both).rope_parameters == theirs.rope_parameters
    lost = Theirs(rope_parameters=dict(newer), rope_scaling={"rope_type": "linear", "factor": 4.0})
    assert lost.rope_parameters["rope_theta"] == 10_000


@pytest.mark.parametrize("kind", ROPE_TYPES)
def test_frequencies_and_factors(kind: str, answers: tuple[list[str], list[Answer]]) -> None:
    seen = 0
    for settings, theirs in answers[1]:
        if settings["rope_parameters"]["rope_type"] == kind:
            config = config_of(settings)
            for length, expected in zip(lengths(settings), theirs["inv_freq"], strict=True):
                assert_close(inverse_frequencies(config, np.asarray(length)), expected, settings)
                seen += 1
            assert attention_factor(config) == pytest.approx(theirs["factor"], rel=RELATIVE)
    assert seen >= 24


@pytest.mark.parametrize("kind", BY_LENGTH)
def test_one_call_after_the_other(kind: str, answers: tuple[list[str], list[Answer]]) -> None:
    for settings, theirs in answers[1]:
        if settings["rope_parameters"]["rope_type"] == kind:
            rotary = UpstreamRotary(config_of(settings), "positions")
            for length, expected in zip(calls(settings), theirs["calls"], strict=True):
                assert_close(rotary.inv_freq(np.array([[length - 1]]), length), expected, settings)
