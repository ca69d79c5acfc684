import numpy as np
import pytest

from minillama.arrays import Array
from minillama.weights import parameters
from minillama.weights.names import EMBED_TOKENS, LM_HEAD, match_tensors
from minillama.weights.parameters import Parameters
from minillama.weights.safetensors import ArrayTensor
from tests.tiny import random_weights, tiny_config


def tiny_parameters(dtype: str = "float64", **overrides: object) -> tuple[Parameters, dict[str, Array]]:
    config = tiny_config(**overrides)
    arrays = random_weights(config)
    tensors = match_tensors(config, {name: ArrayTensor(array) for name, array in arrays.items()}, {}, "here")
    return Parameters(tensors, config, dtype), arrays


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_attributes_are_the_tensors_widened(dtype: str) -> None:
    w, arrays = tiny_parameters(dtype)
    pairs = {
        "model.norm.weight": w.norm,
        "lm_head.weight": w.lm_head,
        "model.layers.1.input_layernorm.weight": w.layers[1].input_norm,
        "model.layers.1.self_attn.q_proj.weight": w.layers[1].q_proj,
        "model.layers.0.mlp.down_proj.weight": w.layers[0].down_proj,
    }
    for name, array in pairs.items():
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, arrays[name])


def test_a_bias_the_config_has_not_is_none() -> None:
    w, arrays = tiny_parameters(attention_bias=True)
    np.testing.assert_array_equal(w.layers[0].o_bias, arrays["model.layers.0.self_attn.o_proj.bias"])
    assert w.layers[0].gate_bias is None
    with pytest.raises(AttributeError, match="qproj"):
        w.layers[0].qproj  # noqa: B018


def test_the_table_widens_the_rows_it_is_asked_for() -> None:
    w, arrays = tiny_parameters()
    ids = np.array([[5, 0], [36, 5]])
    rows = w.embed_tokens[ids]
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, arrays[EMBED_TOKENS][ids])


def test_a_small_model_is_widened_once() -> None:
    w, _ = tiny_parameters()
    told: list[int] = []
    w.on_read = told.append
    assert w.layers[0].q_proj is w.layers[0].q_proj
    assert told == [24 * 16 * 8]


def test_a_large_model_is_widened_at_every_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "KEEP_BELOW", 1000)
    w, _ = tiny_parameters()
    told: list[int] = []
    w.on_read = told.append
    assert w.norm is not w.norm
    assert told == [16 * 8] * 2
    assert w.working_size == 2 * 37 * 16 * 8  # the two largest at a time: the table and the head


def test_sizes_in_memory() -> None:
    w, arrays = tiny_parameters("float32")
    assert w.widened_size == w.working_size == sum(array.nbytes for array in arrays.values())
    tied, arrays = tiny_parameters("float32", tie_word_embeddings=True)
    assert LM_HEAD not in arrays
    assert tied.widened_size == sum(array.nbytes for array in arrays.values())  # the tied table counts once
