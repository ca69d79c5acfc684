"""The public classes beside transformers' on drawn configs, inputs and masks: every number of every field.

Runs with transformers 5 and with 4.34, each against its own compat mode, and, where no mode makes a difference, against
the default too, in float32 on both engines. A failure shrinks to a small case and prints it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import minillama
from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.kernels import ACTIVATIONS
from minillama.weights.names import LM_HEAD, SCORE, expected_shapes
from tests.tiny import spiky

pytest.importorskip("torch", reason="needs the oracle extra")
pytest.importorskip("transformers", reason="needs the oracle extra")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

from tests.oracle.judge import Judge  # noqa: E402

# Of the largest number of an array. float64 rounds at 1e-16 and tiny models add up some hundred of such errors; the
# rest is room for a softmax that passes the rounding of large scores on. float32 rounds at 6e-8: a billion times more,
# of which torch has its share: angles and norms of its own order.
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}
EXAMPLES = {"float64": 250, "float32": 100}
HEADS = {"LlamaModel": None, "LlamaForCausalLM": LM_HEAD, "LlamaForSequenceClassification": SCORE}
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 2.5},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 8},
    "longrope": {"factor": 4.0, "original_max_position_embeddings": 8},
}
LONG = ("dynamic", "longrope")  # frequencies depend on the length of the text
OF_TRANSFORMERS_4 = ("default", "linear", "dynamic")


@dataclass
class Case:
    """One model and the calls made of it, one after the other on one cache."""

    model: str
    rope: str
    config: dict[str, Any]
    calls: list[dict[str, Any]]
    seed: int
    tuples: bool  # hand the cache on as plain pairs
    blind: bool  # some query sees no key

    def weights(self) -> dict[str, Array]:
        rng = np.random.default_rng([self.seed, 1])
        weights = {}
        for name, shape in expected_shapes(LlamaConfig(**self.config), HEADS[self.model]).items():
            w = spiky(rng, *shape) * (1.2 / np.sqrt(shape[-1]) if len(shape) == 2 else 0.2)
            if not (self.config["tie_word_embeddings"] and name == LM_HEAD):
                weights[name] = (w + name.endswith("norm.weight")).astype(np.float32)
        bare = self.model == "LlamaModel"
        return {name.removeprefix("model.") if bare else name: w for name, w in weights.items()}


@st.composite
def cases(draw: st.DrawFn, dtype: str, major: int) -> Case:
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    G, group, K = draw(st.integers(1, 3)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 4))
    rope = draw(st.sampled_from([name for name in ROPES if major > 4 or name in OF_TRANSFORMERS_4]))
    if rope == "dynamic" and K == 2:
        K = 4
    model = draw(st.sampled_from(list(HEADS)))
    parts = draw(st.sampled_from([1, 1, 2]))
    config: dict[str, Any] = {
        "vocab_size": draw(st.sampled_from([10, 28])),
        "hidden_size": G * group * K,
        "intermediate_size": 2 * draw(st.integers(1, 8)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": G * group,
        "num_key_value_heads": G,
        "hidden_act": draw(st.sampled_from(["silu", "silu", "gelu", "gelu_pytorch_tanh", "relu", "quick_gelu"])),
        "max_position_embeddings": 8 if rope == "dynamic" else 32,
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5, 0.1])),
        "rope_theta": draw(st.sampled_from([1e4, 5e5, 30.0])),
        "tie_word_embeddings": model == "LlamaForCausalLM" and draw(st.booleans()),
        # transformers 4 loses the biases where it slices
        "attention_bias": draw(st.booleans()) and not (major == 4 and parts > 1),
        "pretraining_tp": parts,
        "pad_token_id": draw(st.sampled_from([0, 5])),
        "num_labels": draw(st.integers(1, 4)),
    }
    if major > 4:
        config["mlp_bias"] = draw(st.booleans())
        if draw(st.booleans()):
            config["head_dim"] = K = K + 2
    if parts > 1 and (G * K) % parts:
        config["pretraining_tp"] = 1
    if rope != "default":
        config["rope_scaling"] = {"rope_type" if major > 4 else "type": rope} | ROPES[rope]
    if rope == "longrope":
        for name in ("short_factor", "long_factor"):
            config["rope_scaling"][name] = [float(x) for x in rng.uniform(1, 5, K // 2)]

    B = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    S = sum(lengths)
    mask = draw_mask(draw, rng, B, S)
    counted = draw(st.booleans())  # positions as generation counts them, not the default
    positions = np.maximum((np.ones((B, S), int) if mask is None else mask).cumsum(axis=1) - 1, 0)
    ids = rng.integers(0, config["vocab_size"], (B, S))
    embeds = draw(st.booleans())
    problem = None  # of a classifier: said in the config, or to be inferred from labels that can mean nothing else
    if model == "LlamaForSequenceClassification":
        one = config["num_labels"] == 1
        several = ["single_label_classification", "multi_label_classification"]
        stated = draw(st.booleans())
        problem = draw(st.sampled_from(["regression"] if one else several + ["regression"] * stated))
        config |= {"problem_type": problem} if stated else {}
    calls, start = [], 0
    for length in lengths:
        here, start = slice(start, start + length), start + length
        call: dict[str, Any] = {"inputs_embeds": spiky(rng, B, length, config["hidden_size"])} if embeds else {}
        if not embeds:
            call["input_ids"] = ids[:, here]
        if mask is not None:
            call["attention_mask"] = mask[:, :start]
        if counted:
            call["position_ids"] = positions[:, here]
        call["output_attentions"], call["output_hidden_states"] = draw(st.booleans()), draw(st.booleans())
        if draw(st.booleans()) and model != "LlamaModel":
            call["labels"] = draw_labels(draw, rng, problem, config, B, length)
        elif model == "LlamaForCausalLM" and major > 4:
            keep = st.one_of(st.integers(0, length), st.lists(st.integers(0, length - 1), min_size=1).map(np.array))
            call["logits_to_keep"] = draw(keep)
        calls.append(call)

    blind = mask is not None and bool((mask.cumsum(axis=1) == 0).any())
    return Case(model, rope, config, calls, seed, draw(st.booleans()), blind)


def draw_mask(draw: st.DrawFn, rng: np.random.Generator, B: int, S: int) -> Array | None:
    kind = draw(st.sampled_from(["none", "ones", "left", "right", "ragged", "holes"]))
    event(f"mask: {kind}")
    pads = rng.integers(0, S, (B, 1))
    real = {
        "ones": np.ones((B, S), bool),
        "left": np.arange(S) >= pads,
        "right": np.arange(S) < S - pads,
        "ragged": (np.arange(S) >= pads // 2) & (np.arange(S) < S - pads // 2),
        "holes": rng.random((B, S)) < 0.7,
    }
    return real[kind].astype(int) if kind in real else None


def draw_labels(
    draw: st.DrawFn, rng: np.random.Generator, problem: str | None, config: dict[str, Any], B: int, T: int
) -> Array:
    if problem is None:
        ignored = rng.random((B, T)) < draw(st.sampled_from([0, 0.3, 1]))
        return np.where(ignored, -100, rng.integers(0, config["vocab_size"], (B, T)))
    N = config["num_labels"]
    kinds = {
        "regression": rng.standard_normal((B,) if N == 1 else (B, N)),
        "single_label_classification": rng.integers(0, N, B),
        "multi_label_classification": (rng.random((B, N)) < 0.5).astype(float),
    }
    return kinds[problem]


@pytest.fixture(scope="module", params=list(TOLERANCE))
def judge(request: pytest.FixtureRequest) -> Iterator[tuple[Judge, str]]:
    judge = Judge(request.param)
    yield judge, request.param
    judge.close()


def test_every_field_of_every_class(judge: tuple[Judge, str]) -> None:
    asked, dtype = judge
    major = int(asked.version.split(".")[0])

    @settings(max_examples=EXAMPLES[dtype], deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases(dtype, major))
    def agree(case: Case) -> None:
        theirs = asked.ask({"class": case.model, "config": case.config, "weights": case.weights(), "calls": case.calls})
        modes: list[tuple[str | None, str]] = [(f"hf{major}", "numpy")]
        # hf4 pools before the first padding token, which may stand anywhere in a text
        if case.rope not in LONG and not case.blind and not (major == 4 and case.model.endswith("Classification")):
            modes.append((None, "numpy"))
            if dtype == "float32" and case.config["hidden_act"] in ACTIVATIONS:
                modes.append((None, "numba"))
        for mode, engine in modes:
            event(f"compat {mode}, engine {engine}")
            try:
                assert_equal(case, mode, engine, dtype, theirs, TOLERANCE[dtype])
            except AssertionError:
                if dtype == "float64":
                    raise
                event("passes roundings on")
                assert_equal(case, mode, engine, dtype, theirs, 4 * passed_on(case, mode))

    agree()


def passed_on(case: Case, mode: str | None) -> float:
    """How far the outputs of a case move, as parts of their largest, when its weights move by one rounding of float32.

    Some drawn models of spiky weights pass that on a hundredfold. Two computations that round in other places, each
    many times, are then as far apart as several of such moves.
    """
    rng, runs = np.random.default_rng(0), []
    for size in (0, 2.0**-24, 2.0**-24, 2.0**-24, 2.0**-24):
        weights = {name: w * (1 + size * rng.uniform(-1, 1, w.shape)) for name, w in case.weights().items()}
        model = getattr(minillama, case.model)(LlamaConfig(**case.config), weights, dtype="float64", compat=mode)
        past, outputs = None, []
        for call in case.calls:
            out = model(**call, past_key_values=past, use_cache=True)
            past = out.past_key_values
            outputs.append(np.nan_to_num(out["last_hidden_state" if "last_hidden_state" in out else "logits"]))
        runs.append(outputs)
    exact, *moved = runs
    return max(
        float(np.abs(x - y).max() / np.abs(y).max(initial=1))
        for outputs in moved
        for x, y in zip(outputs, exact, strict=True)
    )


def assert_equal(
    case: Case, mode: str | None, engine: str, dtype: str, theirs: list[dict[str, Any]], tolerance: float
) -> None:
    kind = getattr(minillama, case.model)
    model = kind(LlamaConfig(**case.config), case.weights(), engine=engine, dtype=dtype, compat=mode)
    past = None
    for number, (call, expected) in enumerate(zip(case.calls, theirs, strict=True)):
        out = model(**call, past_key_values=tuple(past) if past and case.tuples else past, use_cache=True)
        past = out.past_key_values
        where = f"call {number}, compat {mode}, engine {engine}, {dtype}: "
        for name in ("last_hidden_state", "logits", "loss"):
            if name in expected:
                assert_near(where + name, np.asarray(out[name]), expected[name], tolerance)
        for name in ("hidden_states", "attentions"):
            assert (name in out) == (name in expected), where + name
            for i, array in enumerate(expected.get(name, ())):
                assert_near(f"{where}{name}[{i}]", out[name][i], array, tolerance)
        for i, pair in enumerate(expected["past_key_values"]):
            for ours, array, part in zip(past[i], pair, "kv", strict=True):
                assert_near(f"{where}past_key_values[{i}] {part}", ours, array, tolerance)
        assert model.config.problem_type == expected["problem_type"]


def assert_near(what: str, ours: Array, theirs: Array, tolerance: float) -> None:
    assert ours.shape == theirs.shape, what
    numbers = ~np.isnan(theirs)  # the mean loss of no label is not one
    np.testing.assert_array_equal(~np.isnan(ours), numbers, err_msg=what)
    error = np.abs(ours - theirs)[numbers].max(initial=0)
    # What is added up here is of the order of 1, and so is its rounding, however near to 0 the sum may come
    assert error <= tolerance * np.abs(theirs)[numbers].max(initial=1), f"{what} is off by {error:.2e}"
