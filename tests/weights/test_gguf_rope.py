"""Rotary scaling from what llama.cpp's converter writes: names, or a factor for every pair."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from minillama.config import LlamaConfig
from minillama.model.rope_scaling import attention_factor, inverse_frequencies
from minillama.weights.gguf_rope import llama3_factors, scaling_of

LLAMA_3_1 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def factors_of(scaling: dict[str, Any], theta: float = 5e5, head_dim: int = 128) -> Any:
    """As float32 in the file, from the model's own frequencies."""
    one = np.asarray(1)
    plain = inverse_frequencies(LlamaConfig(head_dim=head_dim, rope_theta=theta), one)
    scaled = LlamaConfig(head_dim=head_dim, rope_theta=theta, rope_scaling={"rope_type": "llama3", **scaling})
    return (plain / inverse_frequencies(scaled, one)).astype(np.float32)


@pytest.mark.parametrize("change", [{}, {"factor": 32.0}, {"factor": 4.0, "original_max_position_embeddings": 2048},
                                    {"high_freq_factor": 8.0}, {"original_max_position_embeddings": 5000},
                                    {"factor": 16.5, "high_freq_factor": 2.5}])  # fmt: skip
@pytest.mark.parametrize(("theta", "head_dim"), [(5e5, 128), (5e5, 64), (1e4, 128)])
def test_the_scaling_of_llama_3_is_found_by_its_factors(change: dict[str, Any], theta: float, head_dim: int) -> None:
    wanted = LLAMA_3_1 | change
    found = scaling_of({}, factors_of(wanted, theta, head_dim).astype(np.float64), theta, head_dim)
    assert found == {"rope_type": "llama3", **wanted}


def test_only_ratios_of_its_settings_matter() -> None:
    doubled = {
        "factor": 8.0,
        "low_freq_factor": 2.0,
        "high_freq_factor": 8.0,
        "original_max_position_embeddings": 16384,
    }
    assert scaling_of({}, factors_of(doubled).astype(np.float64), 5e5, 128) == {"rope_type": "llama3", **LLAMA_3_1}


@pytest.mark.parametrize("original", [16, 64, 1024, 8192])
def test_few_pairs_give_a_scaling_of_the_same_factors(original: int) -> None:
    factors = factors_of(LLAMA_3_1 | {"original_max_position_embeddings": original}, 1e4, 6).astype(np.float64)
    found = scaling_of({}, factors, 1e4, 6)
    assert found is not None
    inv_freq = 1e4 ** -(np.arange(0, 6, 2) / 6)
    assert found["rope_type"] == "llama3"
    np.testing.assert_allclose(llama3_factors(inv_freq, found), factors, rtol=1e-6)  # they are float32


def test_factors_of_no_known_scaling_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    factors = np.linspace(1, 3, 8) ** 2
    with caplog.at_level(logging.WARNING):
        found = scaling_of({}, factors, 1e4, 16)
    assert "not those of Llama 3's scaling: they are kept" in caplog.text
    config = LlamaConfig(head_dim=16, rope_scaling=found)
    for length in (1, 10**6):
        np.testing.assert_allclose(
            inverse_frequencies(config, np.asarray(length)), 1e4 ** -(np.arange(0, 16, 2) / 16) / factors, rtol=1e-12
        )


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, None),
        ({"type": "none"}, None),
        ({"type": "linear", "factor": 1.0}, None),
        ({"type": "linear", "factor": 2.5}, {"rope_type": "linear", "factor": 2.5}),
        ({"type": "linear", "factor": 0.0}, None),
        ({"type": "none", "factor": 2.5}, None),
        ({"factor": 2.5}, {"rope_type": "linear", "factor": 2.5}),
        ({"factor": 2.5, "attn_factor": 1.0}, {"rope_type": "linear", "factor": 2.5}),
        ({"type": "yarn", "factor": 4.0, "original_context_length": 4096},
         {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}),
    ],
)  # fmt: skip
def test_scaling_by_name(metadata: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert (
        scaling_of({f"llama.rope.scaling.{key}": value for key, value in metadata.items()}, None, 1e4, 64) == expected
    )


def test_an_older_name_of_linear_scaling() -> None:
    older = {"llama.rope.scale_linear": 4.0}
    assert scaling_of(older, None, 1e4, 64) == {"rope_type": "linear", "factor": 4.0}
    assert scaling_of(older | {"llama.rope.scaling.type": "none"}, None, 1e4, 64) is None
    newer = {"llama.rope.scaling.factor": 2.0}
    assert scaling_of(older | newer, None, 1e4, 64) == {"rope_type": "linear", "factor": 2.0}
    assert scaling_of({}, np.ones(32), 1e4, 64) is None  # factors that change nothing


@pytest.mark.parametrize(
    ("metadata", "factors", "expected", "attention"),
    [
        ({"attn_factor": 1.5}, None, 1, 1.5),
        ({"type": "none", "factor": 3.0, "attn_factor": 1.5}, None, 1, 1.5),
        ({"factor": 4.0, "attn_factor": 0.5}, None, 4, 0.5),
        ({"type": "linear", "factor": 0.5}, None, 0.5, 1),
        ({"type": "linear", "factor": 2.0}, np.array([1.0, 8.0]), [2, 16], 1),
        ({"attn_factor": 2.0}, np.array([1.0, 8.0]), [1, 8], 2),
    ],
)
def test_what_has_no_name_of_its_own(metadata: dict[str, Any], factors: Any, expected: Any, attention: float) -> None:
    """As llama.cpp takes each; a config says it with longrope, whose two lists are the same."""
    found = scaling_of({f"llama.rope.scaling.{key}": value for key, value in metadata.items()}, factors, 1e4, 4)
    config = LlamaConfig(head_dim=4, rope_scaling=found)
    for length in (1, 10**6):
        frequencies = inverse_frequencies(config, np.asarray(length))
        np.testing.assert_allclose(frequencies, np.array([1, 0.01]) / expected, rtol=1e-12)  # float64
    assert attention_factor(config) == attention


@pytest.mark.parametrize(
    ("metadata", "factors", "words"),
    [
        ({"type": "longrope"}, None, "rotary scaling is 'longrope'"),
        ({"type": 3}, None, "must be of type str"),
        ({"type": "linear", "factor": "2"}, None, "must be of type float"),
        ({"type": "yarn", "factor": 2.0}, np.array([1.0, 8.0]), "scaled twice, by yarn and by a tensor"),
        ({"factor": -2.0}, None, "scaling.factor is -2.0, which must be above 0 and finite"),
        ({"factor": float("nan")}, None, "scaling.factor is nan, which must be above 0"),
        ({"attn_factor": 0.0}, None, "scaling.attn_factor is 0.0, which must be above 0"),
        ({"factor": 2.0}, np.array([1.0, np.nan]), "not above 0 and finite"),
        ({}, np.array([1.0, np.nan]), "not above 0 and finite"),
        ({}, np.array([1.0, np.inf]), "not above 0 and finite"),
        ({}, np.array([0.0, 8.0]), "not above 0 and finite"),
        ({}, np.array([-1.0, 8.0]), "not above 0 and finite"),
    ],
)
def test_what_is_no_scaling(metadata: dict[str, Any], factors: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scaling_of({f"llama.rope.scaling.{key}": value for key, value in metadata.items()}, factors, 1e4, 4)
