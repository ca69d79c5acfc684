"""What must hold of model(config, weights) and the function of ids that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.layout import GROUP
from minillama.model.decoder import Decoder
from minillama.model.heads import lm_logits
from minillama.model.ops import Tap, no_tap
from minillama.testing.base import Case, Implementation, Mismatch, Properties, Variants, agree, as_floats
from minillama.testing.levels import Level
from minillama.testing.strategies import SEEDS, configs, ragged_batches, weights_of
from minillama.weights import Parameters, names
from minillama.weights.safetensors import ArrayTensor

model = Properties("model")
RUNS, TIMES = 3, 6
MULTIPLIED = ("norm", "context", "act")  # with weights
BIASES = {
    "all biases are": "",
    "the bias of o is": "o_proj",
    "biases of attention are": "attn",
    "biases of the mlp are": "mlp",
}


def cases(*features: str, rows: int = 1, ragged: bool = False) -> Callable[[Level], st.SearchStrategy[Case]]:
    """features: of the config, see strategies.configs; rows: of the batch, at least; ragged: with padding."""

    @st.composite
    def draw_case(draw: st.DrawFn, level: Level) -> Case:
        config = draw(configs(multiple=GROUP if level.step else 2, features=features))
        tensors = weights_of(config, draw(SEEDS), draw(st.sampled_from([1.0, 2.0**-10])))
        weights = {name: level.weight(w) for name, w in tensors.items()}
        if ragged:
            ids, mask = draw(ragged_batches(config.vocab_size, rows=rows + 1))
        else:
            shape = draw(st.integers(rows, 2)), draw(st.integers(1, 6))
            ids, mask = np.random.default_rng(draw(SEEDS)).integers(0, config.vocab_size, shape), None
        return {"config": config, "weights": weights, "ids": ids, "mask": mask}

    return draw_case


def expected(case: Case, mask: Array | None = None, tap: Tap = no_tap) -> Array:
    """The logits (B, T, V) of minillama.model in float64."""
    config, arrays = case["config"], case["weights"]
    tensors = names.match_tensors(config, {name: ArrayTensor(array) for name, array in arrays.items()}, {}, "weights")
    weights = Parameters(tensors, config, np.float64)
    decoder = Decoder(config, weights)
    return lm_logits(decoder(decoder.embed(case["ids"]), decoder.new_cache(), mask, tap=tap), weights.lm_head)


def new_model(fn: Implementation, case: Case) -> Any:
    return fn["model"](case["config"], case["weights"])


def call(run: Any, case: Case) -> Array:
    B, T = case["ids"].shape
    given = run(case["ids"].copy()) if case["mask"] is None else run(case["ids"].copy(), case["mask"].copy())
    return as_floats(given, (B, T, case["config"].vocab_size), "the logits")


def allowed(case: Case, level: Level) -> Array:
    """How far rounding carries through all layers, found by trying (Monte Carlo arithmetic, Parker 1997): the model is
    run again with every intermediate off by chance, and the logits (B, T, 1) may be off by TIMES what the worst is.
    Steps count twice, for those of the weights. TIMES is found by trying as well: transformers' models in float32 and
    bfloat16 are off by up to 1.5 times the worst, our kernels in q8_0 by 4.2."""
    rng, wanted = np.random.default_rng(0), expected(case, case["mask"])

    def off_by_chance(name: str, array: Array) -> None:
        most = np.abs(np.where(np.isfinite(array), array, 0)).max(axis=-1, keepdims=True)
        steps = level.stepped(array) if name.endswith(MULTIPLIED) else 0
        array += rng.uniform(-1, 1, array.shape) * (level.allowed(most, roundings=1, terms=2) + 2 * steps)

    runs = [expected(case, case["mask"], off_by_chance) for _ in range(RUNS)]
    carried = np.max([np.abs(run - wanted).max(axis=-1, keepdims=True) for run in runs], axis=0)
    largest = np.abs(wanted).max(axis=-1, keepdims=True)
    return np.asarray(TIMES * carried + level.allowed(largest, roundings=1, terms=4))


def mistakes(case: Case) -> Variants:
    config, weights = case["config"], case["weights"]
    H, G = config.num_attention_heads, config.num_key_value_heads

    def with_fields(**fields: Any) -> Array:
        return with_weights({}, **fields)

    def with_weights(changed: Mapping[str, Array], **fields: Any) -> Array:
        other = LlamaConfig(**config.to_dict() | fields)
        return expected(case | {"config": other, "weights": weights | changed}, case["mask"])

    def of(*projections: str) -> dict[str, Array]:
        return {
            name: w for name, w in weights.items() if any(f".{projection}_proj." in name for projection in projections)
        }

    def tiled(w: Array) -> Array:
        by_head = w.reshape(G, -1, *w.shape[1:])
        return np.concatenate((by_head,) * (H // G)).reshape(-1, *w.shape[1:])

    def without(part: str) -> dict[str, Array]:
        return {name: 0 * w for name, w in weights.items() if part in name and name.endswith("bias")}

    interleaved = {name: names.interleaved_to_halves(w, H) for name, w in of("q").items()}
    interleaved |= {name: names.interleaved_to_halves(w, G) for name, w in of("k").items()}
    tiles = {name: tiled(w) for name, w in of("k", "v").items()}
    variants: dict[str, Callable[[], Array]] = {
        "the rotary layout is interleaved": partial(with_weights, interleaved),
        "query head h reads key/value head h % G, and not h // (H/G)": partial(
            with_weights, tiles, num_key_value_heads=H
        ),
        "rope scaling is left out": partial(with_fields, rope_scaling=None),
        **{f"{told} left out": partial(with_weights, without(names_of)) for told, names_of in BIASES.items()},
    }
    if case["mask"] is not None:
        variants["the mask is left out"] = partial(expected, case)
    variants |= {
        f"the activation is {act}": partial(with_fields, hidden_act=act) for act in ("gelu", "gelu_new", "relu")
    }
    variants |= {f"eps is {eps:g}": partial(with_fields, rms_norm_eps=eps) for eps in (1e-12, 1e-8, 1e-6, 1e-5)}
    variants |= {f"theta is {theta:g}": partial(with_fields, rope_theta=theta) for theta in (10000.0, 500000.0)}
    return variants


def as_it_must(fn: Implementation, case: Case, level: Level) -> None:
    wanted = expected(case, case["mask"])
    if case["mask"] is not None:
        wanted = np.where(case["mask"][..., None] != 0, wanted, np.nan)
    agree(call(new_model(fn, case), case), wanted, allowed(case, level), "logits", mistakes(case))


@model("logits are those of a LLaMA: multi-head attention, no biases, a head of its own", cases(), examples=40)
def exact(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@model("fewer key/value heads serve groups of query heads", cases("grouped"), examples=30)
def grouped(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@model("head_dim need not be hidden_size / num_attention_heads", cases("head_dim"), examples=30)
def head_dim(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@model("without lm_head.weight, the embedding is the head too", cases("tied"), examples=30)
def tied(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@model("attention_bias gives q, k, v and o a bias, mlp_bias gate, up and down", cases("biases"), examples=30)
def biases(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@model("rope_scaling linear is followed", cases("linear"), examples=30)
def linear(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@model("rope_scaling llama3 is followed", cases("llama3"), examples=30)
def llama3(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@model("rope_scaling yarn is followed", cases("yarn"), examples=30)
def yarn(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@model("no logits depend on later ids", cases(), examples=20)
def causal(fn: Implementation, case: Case, level: Level) -> None:
    run = new_model(fn, case)
    wanted = call(run, case)
    slack = allowed(case, level)
    case["ids"][:, -1] = (case["ids"][:, -1] + 1) % case["config"].vocab_size
    wanted[:, -1] = np.nan
    agree(call(run, case), wanted, 2 * slack, "with another last id, logits")


@model("rows of a batch do not see each other", cases(rows=2), examples=20)
def rows(fn: Implementation, case: Case, level: Level) -> None:
    run = new_model(fn, case)
    wanted, slack = call(run, case), 2 * allowed(case, level)
    for b in range(len(wanted)):
        alone = case | {"ids": case["ids"][b : b + 1]}
        agree(call(run, alone), wanted[b : b + 1], slack[b : b + 1], f"row {b} alone: logits")


@model("padding on either side, masked with 0, changes no logits of tokens", cases(rows=2, ragged=True), examples=30)
def padding(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@model("ids in pieces, with what a cache holds, get the logits they get all at once", cases("grouped"), examples=30)
def cached(fn: Implementation, case: Case, level: Level) -> None:
    run = new_model(fn, case)
    if not hasattr(run, "cached"):
        raise NotImplementedError("the model has no method cached(ids, past)")
    T = case["ids"].shape[1]
    wanted, slack, past, start = expected(case), allowed(case, level), None, 0
    for stop in sorted({max(T // 2, 1), *range(T // 2 + 1, T + 1)}):  # the first half at once, then id by id
        got = run.cached(case["ids"][:, start:stop].copy(), past)
        if not isinstance(got, tuple) or len(got) != 2:
            raise Mismatch("cached(ids, past) must return logits and the new past")
        given, past = got
        agree(given, wanted[:, start:stop], slack[:, start:stop], f"of ids {start} .. {stop - 1}, logits")
        start = stop
