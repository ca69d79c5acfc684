"""Every hypothesis, planted in a random model, is found again: none is out of reach, and none is taken for another."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import pytest

from minillama.debug import Trace, record
from minillama.debug.comparison import compare
from minillama.debug.diagnosis import diagnose
from minillama.debug.hypotheses import Case, Hypothesis, hypotheses
from minillama.debug.names import in_order
from minillama.llama import LlamaForCausalLM
from minillama.weights.parameters import Parameters
from tests.tiny import ROPES, random_weights, tiny_config

IDS = [[1, 30, 17, 4, 12, 36, 5, 22]]
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "llama3, with biases": {"attention_bias": True, "mlp_bias": True} | ROPES["llama3"],
    "yarn, one group": {"num_key_value_heads": 1} | ROPES["yarn"],
    "tied, square": {"tie_word_embeddings": True, "head_dim": 4},
    "linear": ROPES["linear"],
}


Planted: TypeAlias = tuple[Hypothesis, Trace, Trace, Parameters]


@functools.cache
def planted(kind: str) -> dict[tuple[str, str, str], Planted]:
    """Each hypothesis about a tensor of layer 1, or of no layer, with the run of a model that does as it says; by its
    key, its words and the tensor."""
    config = tiny_config(**CONFIGS[kind])
    model = LlamaForCausalLM(config, random_weights(config, seed=3), dtype="float64")
    with record(model) as ours:
        model(IDS)
    weights = Parameters(model.weights.tensors, config, np.float64)
    found: dict[tuple[str, str, str], Planted] = {}
    for where in in_order(config.num_hidden_layers, [0]):
        if where.layer == 0:
            continue
        case = Case(config, weights, ours.input_ids, ours.tensors, where, ours[where.name])
        for hypothesis in hypotheses(case):
            if where.local in hypothesis.steps:
                try:
                    with np.errstate(all="ignore"):
                        theirs = case.recomputed({where.local: hypothesis.steps[where.local]}).value(where)
                except (ValueError, IndexError):
                    continue  # it cannot be so with these sizes
                trace = Trace({**ours.tensors, where.name: theirs}, ours.input_ids)
                found[hypothesis.key, hypothesis.cause, where.local] = hypothesis, ours, trace, weights
    return found


def first_in(kind: str) -> list[Planted]:
    """Those that no configuration before this one has."""
    before = {name for other in list(CONFIGS)[: list(CONFIGS).index(kind)] for name in planted(other)}
    return [what for name, what in planted(kind).items() if name not in before]


def tried_and_lost(plantings: Iterable[Planted]) -> tuple[set[str], list[Any]]:
    """The keys of those that make a difference, and those that are not found again."""
    lost, tried = [], set()
    for hypothesis, ours, theirs, weights in plantings:
        assert ours.config is not None
        result = compare(ours, theirs)
        if result.first is None:
            continue  # it makes no difference here
        tried.add(hypothesis.key)
        keys = [finding.key for finding in diagnose(result, weights, ours.config)]
        if hypothesis.key not in keys:
            lost.append((hypothesis.key, hypothesis.cause, result.first.name, keys))
    return tried, lost


def test_all_are_found() -> None:
    """Each in the first configuration that has it."""
    tried, lost = tried_and_lost(what for kind in CONFIGS for what in first_in(kind))
    assert len(tried) > 100
    assert not lost


@pytest.mark.long
@pytest.mark.parametrize("kind", CONFIGS)
def test_all_are_found_in_every_configuration(kind: str) -> None:
    tried, lost = tried_and_lost(planted(kind).values())
    assert len(tried) > 100
    assert not lost
