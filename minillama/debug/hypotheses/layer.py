"""Whole layers: one has another's weights, is left out or is run again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.names import EMBED_TOKENS, LAYER, NORM, Place
from minillama.debug.steps import STEPS, How, Recomputation, Scene
from minillama.model.norm import rms_norm

WEIGHTED = [
    local for local in LAYER if local.endswith(("_norm", "_proj")) or local in ("mlp.gate", "mlp.up", "mlp.down")
]


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    layers, layer = case.config.num_hidden_layers, case.target.layer
    if layer is not None:
        by_text = sorted(range(layers), key=str)[layer]
        for other in sorted(set(range(layers)) - {layer}):
            how = ": layers are in the order of text, not of numbers" if other == by_text else ""
            yield Hypothesis(
                "layer.other",
                f"the weights of layer {other} stand in the place of those of layer {layer}{how}",
                {local: _with_weights_of(other) for local in WEIGHTED},
            )
    last = layers - 1 if layer is None else layer
    for skipped in range(last + 1):
        yield Hypothesis("layer.skipped", f"layer {skipped} is skipped", {"output": _skipped(skipped)})
    if case.target.local == "output" and case.target.step == 0:
        yield Hypothesis("layer.twice", f"layer {last} is run twice", {"output": _again})
    if case.target.local in ("input_norm", NORM) and case.target.step == 0:
        for again in {max(last if layer is None else last - 1, 0), last}:
            yield Hypothesis("layer.twice", f"layer {again} is run twice", {case.target.local: _after(again)})


def _with_weights_of(layer: int) -> How:
    """A step as it is, but for its weights."""

    def step(s: Scene) -> Array:
        return STEPS[s.local](s.with_weights_of(layer))

    return step


def _skipped(layer: int) -> How:
    return lambda s: s.x if s.layer == layer else STEPS["output"](s)


def _again(s: Scene) -> Array:
    return _through(s, s.layer, STEPS["output"](s))


def _through(s: Scene, layer: int, x: Array) -> Array:
    """What a layer makes of a stream (B, T, D)."""
    before = Place(0, layer - 1, "output") if layer else Place(0, None, EMBED_TOKENS)
    out = Place(0, layer, "output")
    return Recomputation(s.weights, s.config, [s.ids], {before.name: x}, out).value(out)


def _after(layer: int) -> How:
    """A norm of the stream, when it has been through that layer once more."""

    def step(s: Scene) -> Array:
        weight = s.weights.norm if s.local == NORM else s.w.input_norm
        return np.asarray(rms_norm(_through(s, layer, s.x), weight, s.config.rms_norm_eps))

    return step
