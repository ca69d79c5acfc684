"""Copies and pickles of models, caches and what models return."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.generation import GenerationConfig
from minillama.llama import LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
from minillama.runtime.cache import RowCache
from tests.tiny import ROPES, odd_model, random_weights, tiny_config
from tests.weights.test_lora import write_adapter

IDS = np.array([[1, 5, 9, 30], [7, 2, 30, 11]])
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}
both = pytest.mark.parametrize("engine", ["numpy", "numba"])
all_ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
deep_ways = pytest.mark.parametrize("way", [WAYS["deepcopy"], WAYS["pickle"]], ids=["deepcopy", "pickle"])


def arrays_model(engine: str = "numpy", **settings: Any) -> LlamaForCausalLM:
    config = tiny_config(**settings)
    return LlamaForCausalLM(config, random_weights(config), engine=engine, dtype="f32", threads=2)


def assert_alike(ours: Any, theirs: Any) -> None:
    """The same bits, and the same settings."""
    np.testing.assert_array_equal(ours(IDS).logits, theirs(IDS).logits)
    for name in ("engine", "form", "compat", "seed", "threads", "name_or_path"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.config.to_dict() == theirs.config.to_dict()


@all_ways
@both
def test_a_model_of_files(way: Callable[[Any], Any], engine: str, tmp_path: Path) -> None:
    odd_model(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path, engine=engine, dtype="f32", threads=3, seed=5)
    model.config.pad_token_id = 3  # what is set later travels too
    model.generation_config = GenerationConfig(max_new_tokens=4, temperature=0.5)
    model.note = "mine"  # type: ignore[attr-defined]
    twin = way(model)
    assert_alike(twin, model)
    assert (twin.generation_config.temperature, twin.note) == (0.5, "mine")
    np.testing.assert_array_equal(twin.generate(IDS), model.generate(IDS))
    np.testing.assert_array_equal(way(model.model)(IDS)[0], model.model(IDS)[0])


def test_a_pickle_holds_a_path_and_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    model = LlamaForCausalLM.from_pretrained("model", config="model/config.json", dtype="float64")
    data = pickle.dumps(model)
    assert len(data) < 5000 < (tmp_path / "model" / "model.safetensors").stat().st_size
    monkeypatch.chdir(tmp_path / "model")  # as another process may be elsewhere
    assert_alike(pickle.loads(data), model)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model"):
        pickle.loads(data)


@deep_ways
def test_adapters_and_overrides_travel(way: Callable[[Any], Any], tmp_path: Path) -> None:
    name = "base_model.model.model.layers.1.self_attn.o_proj"  # (64, 4 * 24)
    rng = np.random.default_rng(6)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 96), (64, 3)))
    odd_model(tmp_path / "base")
    adapter = write_adapter(
        tmp_path / "lora", {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}, r=3, lora_alpha=6
    )
    model = LlamaForSequenceClassification.from_pretrained(
        tmp_path / "base", lora=adapter, num_labels=3, seed=8, pad_token_id=0
    )
    plain = LlamaForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3, seed=8, pad_token_id=0)
    assert (model(IDS).logits != plain(IDS).logits).any()
    assert_alike(way(model), model)


@deep_ways
@both
def test_a_model_of_arrays_takes_them_along(way: Callable[[Any], Any], engine: str) -> None:
    model = arrays_model(engine)
    wanted = model(IDS).logits
    twin = way(model)
    assert_alike(twin, model)
    twin.weights.tensors["model.norm.weight"].array[:] = 0  # an array of its own
    np.testing.assert_array_equal(way(model)(IDS).logits, wanted)


@deep_ways
def test_a_drawn_model_is_drawn_again(way: Callable[[Any], Any]) -> None:
    model = LlamaModel(tiny_config(vocab_size=5000), seed=4)
    assert len(pickle.dumps(model)) < 10_000
    np.testing.assert_array_equal(way(model)(IDS)[0], model(IDS)[0])


@deep_ways
@pytest.mark.parametrize("source", ["files", "arrays", "nothing"])
def test_a_resized_vocabulary(way: Callable[[Any], Any], source: str, tmp_path: Path) -> None:
    """There and back: the rows that are new depend on the way."""
    model: LlamaForCausalLM = arrays_model() if source == "arrays" else LlamaForCausalLM(tiny_config(), seed=2)
    if source == "files":
        odd_model(tmp_path)
        model = LlamaForCausalLM.from_pretrained(tmp_path, dtype="f32")
    for rows in (34, 50):
        model.resize_token_embeddings(rows)
    twin = way(model)
    assert_alike(twin, model)
    twin.resize_token_embeddings(60)
    assert model.config.vocab_size == 50
    assert model(IDS).logits.shape[2] == 50
    assert_alike(way(way(model)), model)


@deep_ways
@pytest.mark.parametrize("form", ["q8_0", "bf16z"])
def test_packed_weights_are_packed_again(
    way: Callable[[Any], Any], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd_model(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path, engine="numba", dtype=form)
    twin = way(model)
    name = "model.layers.1.mlp.up_proj.weight"
    ours, theirs = twin.weights.tensors[name], model.weights.tensors[name]
    assert (twin.form, ours.dtype) == (form, form.upper())
    np.testing.assert_array_equal(ours.numbers, theirs.numbers)


@all_ways
@both
@pytest.mark.parametrize("rope", ["default", "dynamic"])
def test_a_cache(way: Callable[[Any], Any], engine: str, rope: str) -> None:
    """Two texts go on from one beginning, as they would alone."""
    model = arrays_model(engine, **ROPES[rope])
    out = model(IDS, use_cache=True)
    wanted = [model(np.array([[3, 8], [2, 2]]), past_key_values=out.past_key_values.fork()).logits]
    wanted.append(model(np.array([[9, 1], [1, 4]]), past_key_values=out.past_key_values.fork()).logits)
    twin = way(out).past_key_values if way is not copy.copy else copy.copy(out.past_key_values)
    for cache, ids, logits in zip(
        (out.past_key_values, twin), ([[3, 8], [2, 2]], [[9, 1], [1, 4]]), wanted, strict=True
    ):
        assert cache.length == 4
        np.testing.assert_array_equal(model(np.array(ids), past_key_values=cache).logits, logits)


@pytest.mark.parametrize("form", ["f16", "bf16", "f32"])
def test_a_pickled_row_keeps_every_bit(form: str) -> None:
    """In memory of its own, whose addresses the kernels are given."""
    row, rng = RowCache(2, 3, 6, form), np.random.default_rng(7)
    for layer in range(2):
        row.put(layer, 0, *rng.standard_normal((2, 3, 21, 6)).astype(np.float32), np.arange(5, 26))
    row.length = 21
    for way in WAYS.values():
        twin = way(row)
        np.testing.assert_array_equal(twin.pairs(), row.pairs())
        np.testing.assert_array_equal(twin.positions[:21], np.arange(5, 26))
        assert twin.addresses == (twin.keys.ctypes.data, twin.values.ctypes.data)
        assert not {*twin.addresses} & {*row.addresses}


def test_a_pickled_cache_can_be_read_and_goes_to_models_of_its_kind() -> None:
    model = arrays_model("numba")
    cache = model(IDS, use_cache=True).past_key_values
    data, ids = pickle.dumps(cache), IDS[:, :1]
    wanted = model(ids, past_key_values=cache.fork()).logits
    twin = pickle.loads(data)
    assert (len(twin), twin.length) == (2, 4)
    np.testing.assert_array_equal(np.array(list(twin)), np.array(list(cache)))
    np.testing.assert_array_equal(arrays_model("numba")(ids, past_key_values=twin).logits, wanted)
    assert twin.length == 5
    by_numpy = arrays_model("numpy")(ids, past_key_values=pickle.loads(data)).logits
    assert np.abs(by_numpy - wanted).max() < 1e-5 * np.abs(wanted).max()  # float32 rounds at 6e-8: some dozen sums
    with pytest.raises(ValueError, match="past_key_values must be"):
        arrays_model("numba", num_hidden_layers=3)(ids, past_key_values=pickle.loads(data))


@both
def test_a_model_and_its_cache_are_copied_together(engine: str) -> None:
    model = arrays_model(engine)
    cache = model(IDS, use_cache=True).past_key_values
    wanted = model(IDS[:, :1], past_key_values=cache.fork()).logits
    twin, past = copy.deepcopy((model, cache))
    np.testing.assert_array_equal(twin(IDS[:, :1], past_key_values=past).logits, wanted)
    assert (past.length, cache.length) == (5, 4)


@both
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
def test_an_engine_goes_on_twice(way: Callable[[Any], Any], engine: str) -> None:
    first = arrays_model(engine).new_engine()
    first.prefill([[1, 5, 9], [7, 2]])
    second = way(first)
    for each in (first, second):
        other = arrays_model(engine).new_engine()
        other.prefill([[1, 5, 9], [7, 2]])
        ids = np.array([3, 4] if each is first else [30, 20])
        np.testing.assert_array_equal(each.decode(ids), other.decode(ids))


def test_what_has_no_pickle_says_what_has() -> None:
    with pytest.raises(TypeError, match="pickle the model, and make engines and caches from that"):
        pickle.dumps(arrays_model("numba").new_engine())


@all_ways
def test_a_state_dict_is_a_dictionary_then(way: Callable[[Any], Any], tmp_path: Path) -> None:
    odd_model(tmp_path)
    state = LlamaForCausalLM.from_pretrained(tmp_path).state_dict()
    twin = way(state)
    assert (type(twin), list(twin)) == (dict, list(state))
    for name, array in twin.items():
        np.testing.assert_array_equal(array, state[name])
    if way is not copy.copy:
        twin["model.norm.weight"][:] = 0  # its own
        assert state["model.norm.weight"].all()


def test_a_spawned_process_opens_it_again(tmp_path: Path) -> None:
    odd_model(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype="f32")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(model.generate, (IDS,), {"max_new_tokens": 3})
        out = pool.apply(model.forward, (IDS,), {"use_cache": True})
    np.testing.assert_array_equal(there, model.generate(IDS, max_new_tokens=3))
    np.testing.assert_array_equal(out.logits, model(IDS).logits)
    assert out.past_key_values.length == 4


@all_ways
def test_the_tables_of_a_model(way: Callable[[Any], Any]) -> None:
    model = arrays_model()
    table, head = way(model.get_input_embeddings()), way(model.get_output_embeddings())
    assert table(IDS).shape == (2, 4, 16)
    np.testing.assert_array_equal(head(table(IDS)), model.get_output_embeddings()(table(IDS)))
