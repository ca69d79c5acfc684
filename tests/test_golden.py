"""The model against numbers that transformers computed (tests/golden/make.py says how)."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.generation import Continuation, Sampling, generate
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from tests.golden.cases import (
    CASES,
    FLOAT64_ONLY,
    HF4_CASE,
    NEW,
    PREFILL,
    TALE,
    TALE_PROMPT,
    config_of,
    inputs_of,
    weights_of,
)

GOLDEN = Path(__file__).parent / "golden"
# Relative to the largest number of the array. float64 rounds at 1e-16 and the longest chain of sums here has some
# thousand terms; 1e-9 leaves room for ill-conditioned attention. float32 rounds at 6e-8, so the same chains reach 1e-5.
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
DTYPES = tuple(TOLERANCE)
RUNS = [(case, dtype) for case in CASES for dtype in DTYPES if dtype == "float64" or case not in FLOAT64_ONLY]


@cache
def golden(dtype: str) -> dict[str, Array]:
    with np.load(GOLDEN / f"{dtype}.npz") as file:
        return dict(file)


def assert_close(name: str, ours: Array, dtype: str) -> None:
    theirs = golden(dtype)[name]
    assert ours.dtype == theirs.dtype == dtype
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error < TOLERANCE[dtype], f"{name} differs by {error:.1e} of its scale"


def model_of(case: str, dtype: str) -> LlamaForCausalLM:
    return LlamaForCausalLM(config_of(case), weights_of(case), dtype=dtype, compat=CASES[case][1])


def decode_one_by_one(model: LlamaForCausalLM, ids: Array, positions: Array) -> Array:
    out = model(ids[:, :PREFILL], position_ids=positions[:, :PREFILL])
    logits = [out.logits]
    for t in range(PREFILL, ids.shape[1]):
        here, past = slice(t, t + 1), out.past_key_values
        out = model(ids[:, here], position_ids=positions[:, here], past_key_values=past)
        logits.append(out.logits)
    return np.concatenate(logits, axis=1)


def greedy(model: LlamaForCausalLM, ids: Array, positions: Array, count: int) -> Array:
    past, chosen = None, []
    for _ in range(count):
        out = model(ids, position_ids=positions, past_key_values=past)
        past, ids, positions = out.past_key_values, out.logits[:, -1:].argmax(-1), positions[:, -1:] + 1
        chosen.append(ids[:, 0])
    return np.stack(chosen, axis=1)


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_a_forward_pass_with_padding(case: str, dtype: str) -> None:
    ids, mask, positions = inputs_of(case)
    out = model_of(case, dtype)(ids, attention_mask=mask, position_ids=positions, output_hidden_states=True)
    for i, hidden in enumerate(out.hidden_states):
        assert_close(f"{case}/hidden_{i}", hidden, dtype)
    assert_close(f"{case}/logits", out.logits, dtype)


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_cached_decoding(case: str, dtype: str) -> None:
    ids, _, positions = inputs_of(case)
    assert_close(f"{case}/cached_logits", decode_one_by_one(model_of(case, dtype), ids, positions), dtype)


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_greedy_ids(case: str, dtype: str) -> None:
    ids, _, positions = inputs_of(case)
    ours = greedy(model_of(case, dtype), ids[:, :PREFILL], positions[:, :PREFILL], NEW)
    np.testing.assert_array_equal(ours, golden(dtype)[f"{case}/greedy"])


def test_dynamic_scaling_as_in_transformers_4() -> None:
    with np.load(GOLDEN / "hf4.npz") as file:
        theirs = dict(file)
    ids, mask, positions = inputs_of(HF4_CASE)
    model = LlamaForCausalLM(config_of(HF4_CASE), weights_of(HF4_CASE), dtype="float64", compat="hf4")
    cached = decode_one_by_one(model, ids, positions)
    full = model(ids, attention_mask=mask, position_ids=positions).logits
    for ours, name in ((cached, "cached_logits"), (full, "logits")):
        assert np.abs(ours - theirs[name]).max() < TOLERANCE["float64"] * np.abs(theirs[name]).max()


@pytest.mark.parametrize("case", sorted(FLOAT64_ONLY))
def test_float32_is_nearer_to_float64_than_torch_is(case: str) -> None:
    ids, mask, positions = inputs_of(case)
    ours = model_of(case, "float32")(ids, attention_mask=mask, position_ids=positions).logits
    truth, torchs = golden("float64")[f"{case}/logits"], golden("float32")[f"{case}/logits"]
    assert np.abs(ours - truth).max() < np.abs(torchs - truth).max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tale_model(dtype: str) -> None:
    model = LlamaForCausalLM.from_pretrained(tale_model(), dtype=dtype)
    prompt = load_tokenizer(tale_model()).encode(TALE_PROMPT)
    out = model([prompt], output_hidden_states=True)
    for i, hidden in enumerate(out.hidden_states):
        assert_close(f"{TALE}/hidden_{i}", hidden, dtype)
    assert_close(f"{TALE}/logits", out.logits[:, -2:], dtype)

    results: list[Continuation] = []
    for _ in generate(model.new_engine(), [prompt], Sampling(), max_new_tokens=200, results=results):
        pass
    assert results[0].ids == golden(dtype)[f"{TALE}/greedy"][0].tolist()
