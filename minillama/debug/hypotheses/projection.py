"""The seven matrices of a layer: which one is read, how, and of what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.names import LAYER
from minillama.debug.steps import How, Scene
from minillama.model.attention import merge_heads, split_heads
from minillama.model.ops import linear
from minillama.weights.names import halves_to_interleaved, interleaved_to_halves


class Matrix(NamedTuple):
    """weight, bias: what the layer calls them. reads: the intermediate it is applied to."""

    weight: str
    bias: str
    reads: str


MATRICES = {
    "self_attn.q_proj": Matrix("q_proj", "q_bias", "input_norm"),
    "self_attn.k_proj": Matrix("k_proj", "k_bias", "input_norm"),
    "self_attn.v_proj": Matrix("v_proj", "v_bias", "input_norm"),
    "self_attn.o_proj": Matrix("o_proj", "o_bias", "self_attn.context"),
    "mlp.gate": Matrix("gate_proj", "gate_bias", "post_attention_norm"),
    "mlp.up": Matrix("up_proj", "up_bias", "post_attention_norm"),
    "mlp.down": Matrix("down_proj", "down_bias", "mlp.act"),
}
HEADED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
Change: TypeAlias = Callable[[Array], Array]


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    c = case.config
    for local, m in MATRICES.items():
        yield Hypothesis("weight.transposed", f"{m.weight} is transposed", {local: product(local, _transposed)})
        yield Hypothesis(
            "weight.reshaped",
            f"{m.weight} is read as (in, out) and not transposed",
            {local: product(local, lambda w: w.reshape(w.shape[::-1]).T)},
        )
        yield Hypothesis("weight.bias", f"the bias of {m.weight} is left out", {local: product(local, bias=False)})
        for away in (-1, 1):
            said = "before" if away < 0 else "after"
            yield Hypothesis(
                "weight.other_layer", f"{m.weight} is that of the layer {said}", {local: product(local, away=away)}
            )
        yield Hypothesis(
            "weight.rows", f"the rows of {m.weight} are in reverse order", {local: product(local, _upside_down)}
        )
        yield Hypothesis("weight.signs", f"{m.weight} has the opposite sign", {local: product(local, np.negative)})
        for other, n in MATRICES.items():
            if other != local:
                yield Hypothesis(
                    "weight.other",
                    f"{n.weight} stands in the place of {m.weight}",
                    {local: product(local, other=other)},
                )
    for local, heads in (("self_attn.q_proj", c.num_attention_heads), ("self_attn.k_proj", c.num_key_value_heads)):
        name = MATRICES[local].weight
        yield Hypothesis(
            "weight.transposed",
            f"{name} is transposed, its rows being in Meta's order",
            {local: product(local, _transposed_in_metas_order(heads))},
        )
        yield Hypothesis(
            "weight.permuted",
            f"the rows of {name} are in Meta's order, pairs side by side, and not in halves",
            {local: product(local, _ordered(halves_to_interleaved, heads))},
        )
        yield Hypothesis(
            "weight.permuted",
            f"the rows of {name} were taken out of Meta's order though they were not in it",
            {local: product(local, _ordered(interleaved_to_halves, heads))},
        )
    for local in HEADED:
        name = MATRICES[local].weight
        yield Hypothesis(
            "projection.split",
            f"what {name} gives is split as (K, heads) and not (heads, K)",
            {local: _split_other(local)},
        )
        yield Hypothesis(
            "projection.heads",
            f"what {name} gives is reshaped to (heads, T, K) without a transposition",
            {local: _not_transposed(local)},
        )
    for local in MATRICES:
        for source, said in (("x", "the layer's input before its norm"), ("residual", "the stream before its norm")):
            if (source == "x") == (local in HEADED) and local not in ("self_attn.o_proj", "mlp.down"):
                yield Hypothesis(
                    "projection.input", f"{MATRICES[local].weight} reads {said}", {local: product(local, reads=source)}
                )
    yield from _other_inputs(case)


def _other_inputs(case: Case) -> Iterator[Hypothesis]:
    """Another buffer of the layer is read, or so much of it as is needed."""
    local = case.target.local
    if local not in MATRICES:
        return
    m = MATRICES[local]
    for other in LAYER:
        if other not in (local, m.reads, "residual") and case.beside(other) is not None:

            def step(s: Scene, other: str = other) -> Array:
                x = merge_heads(s[other]) if s[other].ndim == 4 else s[other]
                weight = getattr(s.w, m.weight)
                y = linear(x[..., : weight.shape[1]], weight, getattr(s.w, m.bias))
                return split_heads(y, s.config.head_dim) if local in HEADED else y

            yield Hypothesis("projection.input", f"{m.weight} reads {other}, and not {m.reads}", {local: step})


def product(
    local: str,
    change: Change | None = None,
    *,
    away: int = 0,
    other: str | None = None,
    reads: str | None = None,
    bias: bool = True,
) -> How:
    """A projection with a changed weight, that of another layer or another matrix, or of another input. Shapes that do
    not fit are an error, which says that it cannot have been so."""

    def step(s: Scene) -> Array:
        m = MATRICES[local]
        layer = s.weights.layers[(s.layer + away) % s.config.num_hidden_layers]
        weight = getattr(layer, MATRICES[other or local].weight)
        weight = weight if change is None else change(weight)
        if weight.shape != getattr(s.w, m.weight).shape:
            raise ValueError("it would have another shape")
        x = s.x if reads == "x" else s[reads or m.reads]
        y = linear(x, weight, getattr(layer, m.bias) if bias else None)
        return split_heads(y, s.config.head_dim) if local in HEADED else y

    return step


def _transposed(weight: Array) -> Array:
    return weight.T


def _transposed_in_metas_order(heads: int) -> Change:
    return lambda weight: interleaved_to_halves(halves_to_interleaved(weight, heads).T, heads)


def _upside_down(weight: Array) -> Array:
    return weight[::-1]


def _ordered(order: Callable[[Array, int], Array], heads: int) -> Change:
    return lambda weight: order(weight, heads)


def _split_other(local: str) -> How:
    def step(s: Scene) -> Array:
        y = merge_heads(product(local)(s))  # (B, T, heads K)
        B, T, _ = y.shape
        return y.reshape(B, T, s.config.head_dim, -1).transpose(0, 3, 1, 2)

    return step


def _not_transposed(local: str) -> How:
    def step(s: Scene) -> Array:
        y = merge_heads(product(local)(s))
        B, T, width = y.shape
        return y.reshape(B, width // s.config.head_dim, T, s.config.head_dim)

    return step
