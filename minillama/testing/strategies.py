"""Hypothesis strategies for what a LLaMA is given. Shapes and settings are drawn one by one and shrink towards small
ones; the numbers of an array follow from a drawn seed, so that they are asymmetric at every size.

    from hypothesis import given
    from minillama.testing.strategies import configs

    @given(configs())
    def test_mine(config): ...
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.weights import names

SEEDS = st.integers(0, 2**32 - 1)
THETAS = st.sampled_from([10000.0, 500000.0, 100.0])  # of Llama 2, of Llama 3, and one that turns all pairs fast


def spiky(seed: int, *shape: int) -> Array:
    """Normal numbers, about one in twenty of them five times as large: no two rows or columns are alike."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * np.where(rng.random(shape) < 0.05, 5, 1)


def spiky_arrays(*shape: int, scale: float = 1.0) -> SearchStrategy[Array]:
    """float64 arrays of a shape, spiky; the seed shrinks."""
    return SEEDS.map(lambda seed: spiky(seed, *shape) * scale)


def masks(B: int, T: int, S: int, *, blind: bool = False) -> SearchStrategy[Array]:
    """Which of S keys each of T queries may see, bool (B, 1, T, S), True for may: any pattern, another for each row.
    blind: whether some queries see none; else every query sees one at least. Shrinks towards seeing all."""

    def mask(drawn: tuple[int, float]) -> Array:
        rng = np.random.default_rng(drawn[0])
        seen = rng.random((B, 1, T, S)) >= drawn[1]
        np.put_along_axis(seen, rng.integers(0, S, (B, 1, T, 1)), True, axis=3)
        return seen & (rng.random((B, 1, T, 1)) < 0.6) if blind else seen

    return st.tuples(SEEDS, st.sampled_from([0.0, 0.3, 0.7])).map(mask)


@st.composite
def ragged_batches(draw: st.DrawFn, vocab_size: int, *, rows: int = 3, tokens: int = 6) -> tuple[Array, Array]:
    """ids and mask, both (B, T): rows of different lengths, padded on the left or on the right with ids that are as
    good as any; mask is 1 for a token and 0 for padding. The longest row fills T."""
    lengths = draw(st.lists(st.integers(1, tokens), min_size=1, max_size=rows))
    left, T = draw(st.booleans()), max(lengths)
    ids = np.random.default_rng(draw(SEEDS)).integers(0, vocab_size, (len(lengths), T))
    places = np.arange(T)[::-1] if left else np.arange(T)
    return ids, (places < np.array(lengths)[:, None]).astype(np.int64)


def rotary_settings(K: int, kinds: tuple[str, ...] = ("default",)) -> SearchStrategy[dict[str, Any]]:
    """theta and scaling, as LlamaConfig takes them for rope_theta and rope_scaling, for heads of K numbers. kinds:
    "default", "linear", "llama3", "yarn". Trained lengths are short, so that scaling shows within a few tokens."""
    factor = st.sampled_from([4.0, 2.5, 8.0])
    scalings: dict[str, SearchStrategy[Any]] = {
        "default": st.none(),
        "linear": st.fixed_dictionaries({"rope_type": st.just("linear"), "factor": factor}),
        "llama3": st.fixed_dictionaries(
            {
                "rope_type": st.just("llama3"),
                "factor": factor,
                "low_freq_factor": st.sampled_from([1.0, 0.5]),
                "high_freq_factor": st.sampled_from([4.0, 3.0]),
                "original_max_position_embeddings": st.sampled_from([16, 64]),
            }
        ),
        "yarn": st.fixed_dictionaries(
            {
                "rope_type": st.just("yarn"),
                "factor": factor,
                "original_max_position_embeddings": st.sampled_from([16, 64]),
            }
        ),
    }
    return st.fixed_dictionaries({"theta": THETAS, "scaling": st.one_of(*(scalings[kind] for kind in kinds))})


@st.composite
def configs(draw: st.DrawFn, /, *, multiple: int = 2, features: tuple[str, ...] = (), **fixed: Any) -> LlamaConfig:
    """Tiny models, of sizes that differ from each other.

    multiple: of which all widths are; 32 suits formats that quantize groups of 32. features: what is drawn beside
    sizes, eps and theta: "grouped" (fewer key/value heads), "head_dim" (not hidden_size / heads), "tied", "biases",
    "linear", "llama3", "yarn". fixed: fields that are given.
    """
    groups = draw(st.integers(1, 2))
    repeats = draw(st.integers(2, 3)) if "grouped" in features else 1
    heads = groups * repeats
    K = draw(st.sampled_from([4, 6, 8])) if multiple == 2 else multiple
    D = heads * K + (multiple * draw(st.integers(1, 2)) if "head_dim" in features else 0)
    kinds = tuple(kind for kind in ("linear", "llama3", "yarn") if kind in features) or ("default",)
    rotary = draw(rotary_settings(K, kinds))
    settings: dict[str, Any] = {
        "vocab_size": draw(st.integers(5, 11)),
        "hidden_size": D,
        "intermediate_size": D + multiple * draw(st.integers(1, 3)),
        "num_hidden_layers": draw(st.integers(1, 2)),
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": K,
        "rms_norm_eps": draw(st.sampled_from([1e-5, 1e-6])),
        "rope_theta": rotary["theta"],
        "rope_scaling": rotary["scaling"],
        "max_position_embeddings": 64,
        "tie_word_embeddings": "tied" in features,
        "attention_bias": "biases" in features,
        "mlp_bias": "biases" in features,
    }
    return LlamaConfig(**settings | fixed)


def weights_of(config: LlamaConfig, seed: int, embedding: float = 1.0) -> dict[str, Array]:
    """float32 tensors under their Hugging Face names, none of them trained; a tied head is left out.

    embedding: size of the embeddings; small ones, near the root of rms_norm_eps, make eps show in the logits.
    """
    tensors = {}
    for number, (name, shape) in enumerate(names.expected_shapes(config).items()):
        if name == names.LM_HEAD and config.tie_word_embeddings:
            continue
        w = spiky(seed + number, *shape) * (1.2 / np.sqrt(shape[-1]) if len(shape) == 2 else 0.5)
        if name == names.EMBED_TOKENS:
            w *= embedding * np.sqrt(shape[-1])
        tensors[name] = (w + (1 if name.endswith("norm.weight") else 0)).astype(np.float32)
    return tensors
