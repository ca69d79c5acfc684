"""record(): what is kept of calls and of generation, and that nobody else notices."""

from __future__ import annotations

import numpy as np
import pytest

from minillama.debug import record
from minillama.debug.names import in_order, shape, sizes
from minillama.llama import LlamaForCausalLM, LlamaModel
from minillama.shipped import tale_model

IDS = [[1, 300, 17, 4000, 12]]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tale_model(), engine="numpy")


def test_a_call_is_recorded_as_it_taps(model: LlamaForCausalLM) -> None:
    tapped: dict[str, np.ndarray] = {}
    plain = model(IDS, tap=tapped.__setitem__)
    with record(model) as trace:
        out = model(IDS)
    assert list(trace.tensors) == list(tapped)
    assert all(np.array_equal(trace[name], tapped[name]) for name in tapped)
    assert np.array_equal(out.logits, plain.logits)
    assert [ids.tolist() for ids in trace.input_ids] == [IDS]
    assert trace.weights == str(tale_model())


def test_names_and_shapes_are_those_that_are_planned(model: LlamaForCausalLM) -> None:
    with record(model) as trace:
        model(IDS)
    known = sizes(model.config) | {"B": 1, "T": 5, "S": 5}
    planned = {where.name: shape(where.local, known) for where in in_order(model.config.num_hidden_layers, [0])}
    assert {name: array.shape for name, array in trace.tensors.items()} == planned


def test_nothing_is_recorded_after_the_block_and_errors_end_it(model: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="outside the vocabulary"), record(model) as trace:
        model([[4096]])
    model(IDS)
    assert (type(model), len(trace)) == (LlamaForCausalLM, 0)


def test_a_tap_of_the_caller_is_served_too(model: LlamaForCausalLM) -> None:
    seen: list[str] = []
    with record(model, names=["logits"]) as trace:
        model(IDS, tap=lambda name, array: seen.append(name))
    assert (list(trace.tensors), len(seen)) == (["logits"], 105)


def test_generation_is_a_call_a_token_and_chooses_the_same(model: LlamaForCausalLM) -> None:
    plain = model.generate(IDS, max_new_tokens=4, do_sample=False)
    with record(model, names=["q_*", "logits"], layers=[3], steps=[0, 2]) as trace:
        recorded = model.generate(IDS, max_new_tokens=4, do_sample=False)
    assert np.array_equal(plain, recorded)
    layer = "model.layers.3.self_attn"
    names = [f"{layer}.q_proj", f"{layer}.q_rope", "logits"]
    assert list(trace.tensors) == [*names, *(f"step.2.{name}" for name in names)]
    assert [trace[name].shape for name in names[::2]] == [(1, 4, 5, 64), (1, 1, 4096)]
    assert [ids.shape for ids in trace.input_ids] == [(1, 5), (1, 1), (1, 1), (1, 1)]
    assert trace.past(2) == 6
    whole = model([recorded[0][:7]], tap=(full := {}).__setitem__)  # type: ignore[var-annotated]
    # One token against a cache and the whole text at once: BLAS adds up in another order, a few 1e-7 of the scale
    np.testing.assert_allclose(trace["step.2.logits"][:, 0], whole.logits[:, 6], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(trace[f"step.2.{names[1]}"], full[names[1]][:, :, 6:], rtol=1e-4, atol=1e-5)


def test_the_compiled_engine_is_recorded_by_the_numpy_model() -> None:
    fast = LlamaForCausalLM.from_pretrained(tale_model(), engine="numba", dtype="f32")
    slow = LlamaForCausalLM.from_pretrained(tale_model(), engine="numpy")
    with record(fast, names=["mlp.act"]) as ours, record(slow, names=["mlp.act"]) as theirs:
        slow(IDS)
        fast.generate(IDS, max_new_tokens=1, do_sample=False)
    assert list(ours.tensors) == list(theirs.tensors) != []
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours.tensors)


def test_a_decoder_by_itself_has_the_same_names() -> None:
    decoder = LlamaModel.from_pretrained(tale_model())
    with record(decoder, layers=[0], names=["output", "norm"]) as trace:
        decoder(IDS)
    assert list(trace.tensors) == ["model.layers.0.output", "model.norm"]


def test_what_cannot_be_recorded_is_said(model: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="no intermediate is called 'query'"), record(model, names=["query"]):
        pass
    with record(model), pytest.raises(ValueError, match="record"):
        model(inputs_embeds=np.zeros((1, 2, 256)))
