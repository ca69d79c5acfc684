from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.weights.guess import KNOWN, Known, guess_config
from minillama.weights.names import EMBED_TOKENS, LM_HEAD, expected_shapes
from tests.tiny import tiny_config

HERE = Path("weights.safetensors")


class Shape:
    """A tensor of which only the shape is known, or a stored inv_freq."""

    def __init__(self, *shape: int, values: Array | None = None):
        self.dtype, self.shape, self._values = "F32", shape, values

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        assert self._values is not None, "a weight was read, and guessing needs its shape only"
        return self._values.astype(dtype)


def shapes_of(config: LlamaConfig) -> dict[str, Any]:
    return {name: Shape(*shape) for name, shape in expected_shapes(config).items()}


def inv_freq(theta: float, head_dim: int) -> dict[str, Any]:
    values = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    return {"model.layers.0.self_attn.rotary_emb.inv_freq": Shape(head_dim // 2, values=values.astype(np.float32))}


@pytest.mark.parametrize(("sizes", "known"), KNOWN.items(), ids=[known.name for known in KNOWN.values()])
def test_published_models_are_known_by_their_shapes(sizes: tuple[int, ...], known: Known) -> None:
    V, D, F, layers, kv_rows = sizes
    true = LlamaConfig(
        V, D, F, layers, D // known.head_dim, kv_rows // known.head_dim,
        rope_theta=known.rope_theta, rms_norm_eps=known.rms_norm_eps, rope_scaling=known.rope_scaling,
        max_position_embeddings=known.max_position_embeddings, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    guessed, assumptions = guess_config(shapes_of(true), HERE)
    assert guessed == true
    assert known.name in " ".join(assumptions)


def test_unknown_shapes_get_heads_of_128() -> None:
    true = tiny_config(num_attention_heads=3, num_key_value_heads=1, head_dim=128)
    guessed, assumptions = guess_config(shapes_of(true), HERE)
    assert (guessed.num_attention_heads, guessed.num_key_value_heads, guessed.head_dim) == (3, 1, 128)
    assert (guessed.vocab_size, guessed.hidden_size, guessed.intermediate_size) == (37, 16, 20)
    assert (guessed.num_hidden_layers, guessed.rope_theta, guessed.rms_norm_eps) == (2, 1e4, 1e-5)
    for assumed in ("head_dim", "rope_theta", "rms_norm_eps", "max_position_embeddings"):
        assert sum(f"{assumed} is taken as" in line for line in assumptions) == 1


@pytest.mark.parametrize("theta", [1e4, 5e5, 130000.0])
def test_a_stored_inv_freq_tells_head_dim_and_theta(theta: float) -> None:
    true = tiny_config(head_dim=6, rope_theta=theta)
    guessed, assumptions = guess_config(shapes_of(true) | inv_freq(theta, 6), HERE)
    assert (guessed.head_dim, guessed.num_attention_heads, guessed.num_key_value_heads) == (6, 4, 2)
    assert guessed.rope_theta == theta
    assert "read off the stored inv_freq" in assumptions[0]


def test_a_stored_inv_freq_that_was_scaled_tells_head_dim_only() -> None:
    stored = inv_freq(5e5, 6)
    (name,) = stored
    stored[name] = Shape(3, values=np.array([1.0, 0.3, 1e-6]))  # no geometric series
    guessed, _ = guess_config(shapes_of(tiny_config()) | stored, HERE)
    assert (guessed.head_dim, guessed.rope_theta) == (6, 1e4)


@pytest.mark.parametrize("absent", [EMBED_TOKENS, LM_HEAD])
def test_one_table_for_both_ends_is_tied(absent: str) -> None:
    tensors = shapes_of(tiny_config(head_dim=128))
    assert guess_config(tensors, HERE)[0].tie_word_embeddings is False
    del tensors[absent]
    guessed, _ = guess_config(tensors, HERE)
    assert guessed.tie_word_embeddings is True
    assert guessed.vocab_size == 37


def test_biases_are_seen() -> None:
    guessed, _ = guess_config(shapes_of(tiny_config(head_dim=128, attention_bias=True)), HERE)
    assert (guessed.attention_bias, guessed.mlp_bias) == (True, False)
    guessed, _ = guess_config(shapes_of(tiny_config(head_dim=128, mlp_bias=True)), HERE)
    assert (guessed.attention_bias, guessed.mlp_bias) == (False, True)


def test_what_cannot_be_guessed_is_said() -> None:
    tensors = shapes_of(tiny_config(head_dim=128))
    del tensors["model.layers.0.self_attn.k_proj.weight"]
    with pytest.raises(ValueError, match=r"weights.safetensors .* lacks model.layers.0.self_attn.k_proj.weight"):
        guess_config(tensors, HERE)
    with pytest.raises(ValueError, match="24 query and 12 key rows are not multiples of the head_dim 128"):
        guess_config(shapes_of(tiny_config()), HERE)
