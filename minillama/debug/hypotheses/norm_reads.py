"""What a norm reads: the weight of another, or another tensor than the stream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.hypotheses.norm import NORMS
from minillama.debug.names import EMBED_TOKENS, NORM, Place, place
from minillama.debug.steps import How, Scene
from minillama.model.norm import rms_norm


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    own = case.config.rms_norm_eps
    yield Hypothesis(
        "norm.other_weight",
        "the two norms of a layer have each other's weight",
        {
            "input_norm": lambda s: rms_norm(s.x, s.w.post_attention_norm, own),
            "post_attention_norm": lambda s: rms_norm(s["residual"], s.w.input_norm, own),
        },
    )
    yield Hypothesis(
        "norm.before_residual",
        "the second norm reads what attention adds, or the stream before it",
        {"post_attention_norm": lambda s: rms_norm(s["self_attn.o_proj"], s.w.post_attention_norm, own)},
    )
    yield Hypothesis(
        "norm.before_residual",
        "the second norm reads the stream before attention",
        {"post_attention_norm": lambda s: rms_norm(s.x, s.w.post_attention_norm, own)},
    )
    for away in (-1, 1):
        said = f"the norm has the weight of the layer {'before' if away < 0 else 'after'}"
        yield Hypothesis("norm.other_layer", said, {name: _of_layer(name, away) for name in NORMS[:2]})
    if case.target.local in NORMS:
        yield from _other_weights(case)
        yield from _other_inputs(case)


def _of_layer(name: str, away: int) -> How:
    def norm(s: Scene) -> Array:
        other = s.weights.layers[(s.layer + away) % s.config.num_hidden_layers]
        return rms_norm(_stream(s), getattr(other, name), s.config.rms_norm_eps)

    return norm


def _other_weights(case: Case) -> Iterator[Hypothesis]:
    """Any norm's, but for those above."""
    _, own, local = case.target
    layers = range(case.config.num_hidden_layers)
    for layer, name in [*((n, name) for n in layers for name in NORMS[:2]), (None, NORM)]:
        near = own is not None and layer in {(own + away) % len(layers) for away in (-1, 0, 1)}
        if not (near if name == local else layer == own):

            def norm(s: Scene, layer: int | None = layer, name: str = name) -> Array:
                weight = s.weights.norm if layer is None else getattr(s.weights.layers[layer], name)
                return np.asarray(rms_norm(_stream(s), weight, s.config.rms_norm_eps))

            said = "the last norm" if layer is None else f"{name} of layer {layer}"
            yield Hypothesis("norm.other_weight", f"the norm has the weight of {said}", {local: norm})


def _other_inputs(case: Case) -> Iterator[Hypothesis]:
    """What the port has of its own layer, of the one before, and behind any other."""
    step, own, local = case.target
    last = case.config.num_hidden_layers if own is None else own
    right = case.target._replace(local="residual") if local == NORMS[1] else _behind(step, last - 1)
    if right.name not in case.known:
        return  # what is behind another layer may as well be there because one is skipped
    for name, array in case.known.items():
        where = place(name)
        if where is None or where in (case.target, right) or where.step != step:
            continue
        near = where.layer in (own, last - 1) and (where.layer != own or local == NORMS[1])
        if array.shape == case.theirs.shape and (where == _behind(step, where.layer) or near):

            def norm(s: Scene, x: Array = array) -> Array:
                weight = s.weights.norm if s.local == NORM else getattr(s.w, s.local)
                return np.asarray(rms_norm(np.asarray(x, np.float64), weight, s.config.rms_norm_eps))

            yield Hypothesis("norm.input", f"the norm reads {name}, and not {right.name}", {local: norm})


def _behind(step: int, layer: int | None) -> Place:
    """The stream behind a layer, or before the first."""
    return Place(step, None, EMBED_TOKENS) if layer is None or layer < 0 else Place(step, layer, "output")


def _stream(s: Scene) -> Array:
    """What the norm of a scene reads."""
    return s["residual"] if s.local == NORMS[1] else s.x
