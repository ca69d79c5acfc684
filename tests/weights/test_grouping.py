"""Key/value heads averaged in groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from minillama.weights.formats import narrow, widen
from minillama.weights.grouping import mean_pooled
from minillama.weights.names import expected_shapes, match_tensors
from minillama.weights.safetensors import ArrayTensor, Tensor, open_safetensors
from tests.tiny import assert_close, random_ids, random_weights, tiny_config, write_safetensors

HEADS = {"num_attention_heads": 12, "num_key_value_heads": 12}
K = 6
BIASED = tiny_config(**HEADS, attention_bias=True)
WEIGHTS = random_weights(BIASED, 80)


def by_a_loop(array: Array, heads: int, kv_heads: int) -> Array:
    """Each row of the result from the rows that go into it, one by one."""
    group, pooled = heads // kv_heads, []
    for g in range(kv_heads):
        for i in range(K):
            rows = [array[(g * group + h) * K + i].astype(np.float64) for h in range(group)]
            pooled.append(sum(rows) / group)
    return np.array(pooled)


def tensors_of(folder: Path, form: str) -> dict[str, Tensor]:
    write_safetensors(folder / "a.safetensors", {name: narrow(array, form) for name, array in WEIGHTS.items()})
    return {**open_safetensors(folder / "a.safetensors")[0]}


@pytest.mark.parametrize("form", ["F32", "F16", "BF16", "F64"])
@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_beside_a_plain_loop(form: str, kv_heads: int, tmp_path: Path) -> None:
    tensors = tensors_of(tmp_path, form)
    pooled, config = mean_pooled(tensors, BIASED, kv_heads)
    assert config.num_key_value_heads == kv_heads
    assert BIASED.num_key_value_heads == 12
    assert {name: tensor.shape for name, tensor in pooled.items()} == expected_shapes(config)
    assert match_tensors(config, pooled, {}, "here").keys() == pooled.keys()
    # Rounding to the format itself, half a unit in its last place, and in float32 the sum of up to 12 numbers before
    error = {"F64": 1e-15, "F32": 12 * 2**-24, "F16": 2**-11 + 1e-6, "BF16": 2**-8 + 1e-6}[form]
    for name, tensor in pooled.items():
        stored = widen(tensors[name].stored(), form, np.float64)
        if not any(part in name for part in ("k_proj", "v_proj")):
            assert tensor is tensors[name]
            continue
        expected = by_a_loop(stored, 12, kv_heads)
        size = by_a_loop(np.abs(stored), 12, kv_heads)  # what is summed may cancel
        assert tensor.dtype == form
        read = tensor.read(np.float64)
        assert (np.abs(read - expected) <= error * size).all()
        np.testing.assert_array_equal(widen(tensor.stored(), form, np.float64), read)
        rows = np.array([[tensor.shape[0] - 1, 0], [2, 2]])
        np.testing.assert_array_equal(tensor.read(np.float64, rows), read[rows])


def test_heads_that_are_alike_give_the_same_model() -> None:
    """A multi-head model whose heads come in equal groups is the grouped-query model of their means."""
    one = tiny_config(**HEADS | {"num_key_value_heads": 3})
    weights = random_weights(one, 81)
    repeated = {
        name: np.repeat(array.reshape(3, K, -1), 4, axis=0).reshape(-1, array.shape[1])
        if "k_proj" in name or "v_proj" in name
        else array
        for name, array in weights.items()
    }
    many = tiny_config(**HEADS)
    pooled, config = mean_pooled({name: ArrayTensor(array) for name, array in repeated.items()}, many, 3)
    assert config == one
    ours = LlamaForCausalLM(config, {name: tensor.stored() for name, tensor in pooled.items()}, dtype="float64")
    ids = random_ids(61, 1, 5)
    # Four equal float32 numbers have their own mean, exactly
    assert_close(ours(ids).logits, LlamaForCausalLM(many, repeated, dtype="float64")(ids).logits)


def test_as_many_as_there_are() -> None:
    tensors: dict[str, Tensor] = {name: ArrayTensor(array) for name, array in WEIGHTS.items()}
    assert mean_pooled(tensors, BIASED, 12) == (tensors, BIASED)


@pytest.mark.parametrize("kv_heads", [0, -1, 5, 24, 2.0, True, "2"])
def test_numbers_that_do_not_divide(kv_heads: Any) -> None:
    with pytest.raises(ValueError, match=r"12 key/value heads cannot be pooled to .*: use one of 1, 2, 3, 4, 6, 12$"):
        mean_pooled({}, BIASED, kv_heads)


class Quantized:
    dtype, shape = "Q8_0", (72, 16)

    def stored(self, rows: Array | None = None) -> Array:
        raise AssertionError

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        raise AssertionError


def test_quantized_weights() -> None:
    with pytest.raises(ValueError, match="is quantized and cannot be averaged"):
        mean_pooled({"model.layers.0.self_attn.k_proj.weight": Quantized()}, BIASED, 3)
