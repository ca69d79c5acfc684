"""python -m minillama.benchmarks.errors measures what it says."""

from __future__ import annotations

import numpy as np
import pytest

from minillama import LlamaForCausalLM, tale_model
from minillama.arrays import Array
from minillama.benchmarks.errors import (
    EMBEDDING,
    LOGITS,
    READS,
    Outputs,
    error,
    fast_model,
    inputs_of,
    of_kernels,
    of_numpy,
    table,
)

IDS = np.array([1, 300, 7, 42, 1000, 5, 99])


@pytest.fixture(scope="module")
def columns() -> dict[str, tuple[Outputs, Outputs]]:
    oracle = LlamaForCausalLM.from_pretrained(tale_model(), dtype="float64")
    inputs = inputs_of(oracle, IDS)
    exact = of_numpy(oracle, IDS, inputs, np.float64)
    fast = LlamaForCausalLM.from_pretrained(tale_model(), engine="numba", dtype="float32")
    kernels = of_kernels(fast_model(fast), IDS, inputs)
    return {"numpy": (of_numpy(oracle, IDS, inputs, np.float32), exact), "kernels": (kernels, exact)}


@pytest.mark.parametrize("name", [*READS, LOGITS])
@pytest.mark.parametrize("column", ["numpy", "kernels"])
def test_every_component_computes_in_float32(
    columns: dict[str, tuple[Outputs, Outputs]], column: str, name: str
) -> None:
    """Not exactly, and by no more than some dozen roundings of 6e-8."""
    rms, worst = error(name, *columns[column])
    assert 1e-9 < rms < 2e-6
    assert 1e-9 < worst < 5e-6


def test_the_oracle_reads_what_the_model_gives(columns: dict[str, tuple[Outputs, Outputs]]) -> None:
    """Each component by itself is what the model has at that place."""
    seen: dict[str, Array] = {}
    oracle = LlamaForCausalLM.from_pretrained(tale_model(), dtype="float64")
    oracle(IDS[None], tap=seen.__setitem__)
    exact = columns["numpy"][1]
    for name, place in {
        "norm": "post_attention_norm", "linear": "mlp.gate", "context": "self_attn.context",
        "attention": "self_attn.o_proj", "mlp": "mlp.down", "layer": "output",
    }.items():  # fmt: skip
        for layer in range(oracle.config.num_hidden_layers):
            there = seen[f"model.layers.{layer}.{place}"][0]
            # The inputs were rounded to float32
            assert np.abs(exact[name, layer] - there).max() < 1e-6 * np.abs(there).max()


def test_embeddings_are_looked_up(columns: dict[str, tuple[Outputs, Outputs]]) -> None:
    assert [error(EMBEDDING, *column) for column in columns.values()] == [(0, 0), (0, 0)]


def test_errors_by_hand() -> None:
    exact = {("norm", 0): np.array([[3.0, -4]]), ("norm", 1): np.array([[10.0, 0]]), ("mlp", 0): np.array([[1.0]])}
    outputs = {("norm", 0): np.array([[3.0, -4.5]]), ("norm", 1): np.array([[10.0, 1]]), ("mlp", 0): np.array([[7.0]])}
    assert error("norm", outputs, exact) == pytest.approx((np.sqrt(1.25 / 125), 0.125))


def test_the_table(columns: dict[str, tuple[Outputs, Outputs]]) -> None:
    lines = table(columns, IDS).splitlines()
    assert len(lines) == 2 + len(READS) + 4
    assert {line.count("|") for line in lines} == {4}
    assert lines[-1].endswith("| 0 | 0 |")


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is no wider than double here")
def test_the_oracle_is_nearly_exact() -> None:
    """Six layers of sums of up to 704 terms, rounded at 1e-16 each, in float64 and at 5e-20 in long double. They give
    some 1e-15; hundred times that is still a million times below what a slip costs."""
    oracle = LlamaForCausalLM.from_pretrained(tale_model(), dtype="float64")
    exact = of_numpy(oracle, IDS, {}, np.longdouble)
    assert error(LOGITS, of_numpy(oracle, IDS, {}, np.float64), exact)[1] < 1e-13
