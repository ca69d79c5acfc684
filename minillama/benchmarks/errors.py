"""How far each component is from the float64 oracle, on the tale model's own activations:

    python -m minillama.benchmarks.errors

Every component gets what the oracle gives it, rounded to float32, so that each is measured by itself; the whole model
is measured from ids to logits. The oracle is compared with the same NumPy code in long double, where that is wider.
Prints the table of docs/numerics.md: the root mean square error as a part of that of the exact numbers, and in brackets
the largest error as a part of the largest exact number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.kernels.decoder import (
    DOWN_PROJ,
    GATE_PROJ,
    O_PROJ,
    add_row,
    arrange_step,
    attention_step,
    cache_key,
    cache_value,
    gated_pass,
    norm_step,
    product,
    qkv_pass,
    rope_step,
)
from minillama.kernels.linear import block_rows
from minillama.layout import QUANTIZED
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.model.attention import (
    grouped_context,
    grouped_scores,
    merge_heads,
    self_attention,
    split_heads,
    visible_keys,
)
from minillama.model.decoder import Decoder, decoder_layer
from minillama.model.heads import causal_lm_loss, lm_logits
from minillama.model.mlp import mlp
from minillama.model.norm import rms_norm
from minillama.model.ops import linear, softmax
from minillama.model.rope import Rotations, rotate
from minillama.runtime.batch import Append
from minillama.runtime.engine import NumbaEngine
from minillama.runtime.model import FastModel
from minillama.shipped import sample_text, tale_model
from minillama.weights.parameters import Parameters

TOKENS = 256
# The intermediates that each component reads (see docs/notation.md), side by side
READS = {
    "norm": ["residual"],
    "rope": ["self_attn.q_proj"],
    "linear": ["post_attention_norm"],
    "context": ["self_attn.q_rope", "self_attn.k_rope", "self_attn.v_proj"],
    "attention": ["input_norm"],
    "mlp": ["post_attention_norm"],
    "layer": ["input"],  # what the layer before gave
}
EMBEDDING, LOGITS = "embedding", "logits"  # of the whole model
CACHES = {"f32": "f32", "bf16": "f16", "q8_0": "f16", "q4_0": "f16"}  # those that large models get

Inputs = dict[tuple[str, int], Array]  # of a component and layer: (T, ...)
Outputs = dict[tuple[str, int], Array]


def of_numpy(model: LlamaForCausalLM, ids: Array, inputs: Inputs, dtype: DTypeLike) -> Outputs:
    """What the NumPy model gives in some dtype."""
    c, weights = model.config, Parameters(model.weights.tensors, model.config, dtype)
    decoder, T = Decoder(c, weights), len(ids)
    hidden = decoder(decoder.embed(ids[None]), decoder.new_cache())
    outputs = {(EMBEDDING, 0): decoder.embed(ids), (LOGITS, 0): lm_logits(hidden[0], weights.lm_head)}
    positions = np.arange(T)[None]
    rotations, visible = Rotations(decoder.rotary, positions, positions, dtype), visible_keys(T, T)
    for (name, layer), given in inputs.items():
        x, w = given[None].astype(dtype), weights.layers[layer]
        match name:
            case "norm":
                out = rms_norm(x, w.post_attention_norm, c.rms_norm_eps)
            case "rope":
                out = merge_heads(rotate(split_heads(x, c.head_dim), *rotations.angles))
            case "linear":
                out = linear(x, w.gate_proj)
            case "context":
                H, G = c.num_attention_heads, c.num_key_value_heads
                q, k, v = np.split(split_heads(x, c.head_dim), (H, H + G), axis=1)
                scores = grouped_scores(q, k) / math.sqrt(c.head_dim)
                out = merge_heads(grouped_context(softmax(np.where(visible, scores, -math.inf)), v))
            case "attention":
                out = self_attention(x, w, c.head_dim, rotations, visible, decoder.new_cache(), layer)
            case "mlp":
                out = mlp(x, w, decoder.act)
            case _:
                out = decoder_layer(x, w, c, decoder.act, rotations, visible, decoder.new_cache(), layer)
        outputs[name, layer] = out[0]
    return outputs


def inputs_of(oracle: LlamaForCausalLM, ids: Array) -> Inputs:
    """What every component reads in each layer of a forward pass, in float32."""
    seen: dict[str, Array] = {}
    oracle(ids[None], tap=seen.__setitem__)
    inputs, before = {}, seen["model.embed_tokens"]
    for layer in range(oracle.config.num_hidden_layers):
        here = f"model.layers.{layer}."
        seen[here + "input"], before = before, seen[here + "output"]
        for name, reads in READS.items():
            parts = [seen[here + read] for read in reads]
            flat = [(merge_heads(x) if x.ndim == 4 else x)[0] for x in parts]
            inputs[name, layer] = np.concatenate(flat, axis=-1).astype(np.float32)
    return inputs


# -- the kernels: the steps of kernels/decoder.py, those of a component by themselves -------------------------------


@njit
def _norm(n: int, rows: int, layer: int, m: Any, w: Any, batch: Any, room: Any) -> None:
    norm_step(0, 1, n, rows, m, w, room, 2 * layer + 1, False, -1)


@njit
def _rope(n: int, rows: int, layer: int, m: Any, w: Any, batch: Any, room: Any) -> None:
    rope_step(0, 0, m.heads, n, 0, layer, m, batch, room)


@njit
def _linear(n: int, rows: int, layer: int, m: Any, w: Any, batch: Any, room: Any) -> None:
    arrange_step(0, 1, n, rows, w.likes, room.normed, m.hidden_width, m.hidden_width, room)
    x, gate_proj = room.arranged, w.table[layer, GATE_PROJ]
    product(0, room.logits, m.inner_width, x, w, gate_proj, m.inner, m.hidden_width, n, room, 0)


@njit
def _context(n: int, rows: int, layer: int, m: Any, w: Any, batch: Any, room: Any) -> None:
    for row in range(n):
        for g in range(m.kv_heads):
            i = row * m.qkv_width + m.q_width + g * m.head_dim
            cache_key(room.qkv, i, row, layer, g, m, batch)
            cache_value(room.qkv, i + m.kv_width, row, layer, g, m, batch)
    attention_step(0, layer, 1, m, batch, room)


@njit
def _attention(n: int, rows: int, layer: int, m: Any, w: Any, batch: Any, room: Any) -> None:
    arrange_step(0, 1, n, rows, w.likes, room.normed, m.hidden_width, m.hidden_width, room)
    qkv_pass(0, n, layer, 0, m, w, batch, room)
    attention_step(0, layer, 1, m, batch, room)
    arrange_step(0, 1, n, rows, w.likes, room.qkv, m.qkv_width, m.q_width, room)
    x, o_proj = room.arranged, w.table[layer, O_PROJ]
    product(0, room.change, m.hidden_width, x, w, o_proj, m.hidden, m.q_width, n, room, 2)


@njit
def _mlp(n: int, rows: int, layer: int, m: Any, w: Any, batch: Any, room: Any) -> None:
    arrange_step(0, 1, n, rows, w.likes, room.normed, m.hidden_width, m.hidden_width, room)
    gated_pass(0, n, rows, layer, 3, m, w, room)
    x, down_proj = room.joined, w.table[layer, DOWN_PROJ]
    product(0, room.change, m.hidden_width, x, w, down_proj, m.hidden, m.inner_width, n, room, 4)


@njit
def _layer(n: int, rows: int, layer: int, m: Any, w: Any, batch: Any, room: Any) -> None:
    norm_step(0, 1, n, rows, m, w, room, 2 * layer, False, -1)
    _attention(n, rows, layer, m, w, batch, room)
    norm_step(0, 1, n, rows, m, w, room, 2 * layer + 1, True, -1)
    _mlp(n, rows, layer, m, w, batch, room)
    add_row(room.x, 0, room.change, 0, n * m.hidden_width)


# The room that each reads, and the room it leaves its result in
STEPS = {
    "norm": (_norm, "x", "normed"),
    "rope": (_rope, "qkv", "qkv"),
    "linear": (_linear, "normed", "logits"),
    "context": (_context, "qkv", "qkv"),
    "attention": (_attention, "normed", "change"),
    "mlp": (_mlp, "normed", "change"),
    "layer": (_layer, "x", "x"),
}


def fast_model(model: LlamaForCausalLM) -> FastModel:
    """What runs in the kernels of a model opened with engine="numba"."""
    engine = model.new_engine()
    assert isinstance(engine, NumbaEngine)
    return engine.model


def of_kernels(model: FastModel, ids: Array, inputs: Inputs) -> Outputs:
    """What the kernels give, in the format of the model."""
    n, m = len(ids), model.sizes
    widths = {"x": m.hidden_width, "normed": m.hidden_width, "change": m.hidden_width}
    sizes = {"x": m.hidden, "normed": m.hidden, "change": m.hidden, "qkv": m.heads * m.head_dim, "logits": m.inner}
    widths |= {"qkv": m.qkv_width, "logits": m.inner_width}

    def rows_of(place: str) -> Array:
        room: Array = getattr(model.room, place)
        return room[: n * widths[place]].reshape(n, -1)

    whole = Append(model.new_cache(), model.embed(ids), np.arange(n), range(n))
    outputs = {(EMBEDDING, 0): whole.x, (LOGITS, 0): model.run([whole]).logits}  # and there is room for n rows now
    again = Append(model.new_cache(), whole.x, whole.positions)
    batch = model._described([again])
    for (name, layer), x in inputs.items():
        steps, source, target = STEPS[name]
        given = rows_of(source)
        given[:, : x.shape[1]], given[:, x.shape[1] :] = x, 0
        model.room.work[:] = 0
        steps(n, block_rows(model.form in QUANTIZED, n), layer, m, model.weights, batch, model.room)
        outputs[name, layer] = rows_of(target)[:, : sizes[target]].copy()
    return outputs


# -- the table ----------------------------------------------------------------------------------------------------


def error(name: str, outputs: Outputs, exact: Outputs) -> tuple[float, float]:
    """Of a component, in all layers: root mean square error over that of the exact numbers, and in the layer where it
    is worst, the largest error over the largest exact number."""
    pairs = [(outputs[key].astype(np.longdouble), exact[key]) for key in exact if key[0] == name]
    squares = sum(np.square(got - right).sum() for got, right in pairs)
    worst = max(np.abs(got - right).max() / np.abs(right).max() for got, right in pairs)
    return float(np.sqrt(squares / sum(np.square(right).sum() for _, right in pairs))), float(worst)


def table(columns: dict[str, tuple[Outputs, Outputs]], ids: Array) -> str:
    """A row a component; of every column its outputs and the exact ones."""
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    for name in (EMBEDDING, *READS, LOGITS):
        errors = [error(name, *pair) for pair in columns.values()]
        lines.append([name, *(f"{rms:.1e} ({worst:.0e})" if worst else "0" for rms, worst in errors)])
    losses = [causal_lm_loss(got[LOGITS, 0][None], ids[None]) for got, _ in columns.values()]
    lines.append(["loss, nats", *(f"{loss:.6f}" for loss in losses)])
    others = [np.sum(got[LOGITS, 0].argmax(-1) != exact[LOGITS, 0].argmax(-1)) for got, exact in columns.values()]
    lines.append([f"other likeliest tokens of {len(ids)}", *map(str, others)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    text = sample_text().read_text(encoding="utf-8").split("<|story|>")[1].strip()
    ids = np.array(load_tokenizer(tale_model()).encode(text)[:TOKENS])
    oracle = LlamaForCausalLM.from_pretrained(tale_model(), dtype="float64")
    inputs = inputs_of(oracle, ids)
    exact = of_numpy(oracle, ids, inputs, np.float64)
    columns = {}
    if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps:
        columns["NumPy f64"] = (exact, of_numpy(oracle, ids, inputs, np.longdouble))
    columns["NumPy f32"] = (of_numpy(oracle, ids, inputs, np.float32), exact)
    for form, cache in CACHES.items():
        model = LlamaForCausalLM.from_pretrained(tale_model(), engine="numba", dtype=form, cache_dtype=cache)
        columns[f"kernels {form}"] = (of_kernels(fast_model(model), ids, inputs), exact)
    print(table(columns, ids))


if __name__ == "__main__":
    main()
