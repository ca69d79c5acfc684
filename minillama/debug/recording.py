"""Recording what a model computes, whoever calls it: `with record(model) as trace: model(ids)`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minillama.arrays import Array, integers
from minillama.debug.names import Place, check_patterns, is_chosen, place
from minillama.debug.traces import EVERYTHING, Trace
from minillama.model.engine import NumpyEngine
from minillama.model.ops import Tap, no_tap


@contextmanager
def record(
    model: Any,
    *,
    names: Sequence[str] = EVERYTHING,
    layers: Collection[int] | None = None,
    steps: Collection[int] | None = None,
) -> Iterator[Trace]:
    """A trace that fills up while the model is called, directly or by generation, until the end of the `with` block.

    Call 0 is kept under the names of docs/notation.md, call n under `step.n.` and these. In generation a prompt is one
    call (a prompt beyond 512 tokens several), and so is each token after it, and logits are those of the last position.
    What is recorded is computed by the NumPy model, whatever the engine. names: patterns ("q_*", "mlp.*"). layers,
    steps: which of them; None for all. ValueError for a pattern that nothing matches.
    """
    check_patterns(names, model.config.num_hidden_layers)
    tensors: dict[str, Array] = {}
    trace = Trace(tensors, config=model.config, weights=_path(model), names=tuple(names), source="the trace")

    def begin(ids: Array) -> Tap:
        """Note a call; the tap that records it."""
        step = len(trace.input_ids)
        trace.input_ids.append(np.array(ids))
        if steps is not None and step not in steps:
            return no_tap

        def tap(name: str, array: Array) -> None:
            where = place(name if name.startswith("model.") or name == "logits" else f"model.{name}")
            if where is not None and is_chosen(where, names, layers):
                tensors[Place(step, where.layer, where.local).name] = array

        return tap

    kind = type(model)
    model.__class__ = _watched(kind, begin)
    try:
        yield trace
    finally:
        model.__class__ = kind


def _watched(kind: type[Any], begin: Any) -> type[Any]:
    """The class of a model, but that whoever calls it is watched."""

    def forward(self: Any, input_ids: Any = None, *args: Any, tap: Tap = no_tap, **named: Any) -> Any:
        if input_ids is None:
            raise ValueError("record() wants input_ids: inputs_embeds do not say what they stand for")
        recorded = begin(integers("input_ids", input_ids, 2))
        return kind.forward(self, input_ids, *args, tap=_both(tap, recorded), **named)

    def new_engine(self: Any) -> NumpyEngine:
        decoder = getattr(self.decoder, "numpy", self.decoder)  # of the compiled engine, which shows nothing
        return _WatchedEngine(decoder, self.weights, begin)

    return type(kind.__name__, (kind,), {"forward": forward, "__call__": forward, "new_engine": new_engine})


class _WatchedEngine(NumpyEngine):
    """The NumPy engine, every pass of which is recorded."""

    def __init__(self, decoder: Any, weights: Any, begin: Any):
        super().__init__(decoder, weights)
        self._begin = begin

    def _append(self, ids: Array, mask: Array) -> Array:
        self.tap = self._begin(ids)
        return super()._append(ids, mask)


def _both(first: Tap, second: Tap) -> Tap:
    if first is no_tap or second is no_tap:
        return second if first is no_tap else first

    def tap(name: str, array: Array) -> None:
        first(name, array)
        second(name, array)

    return tap


def _path(model: Any) -> str | None:
    """Where a model's weights were read from, if it says so."""
    return os.path.abspath(model.name_or_path) if model.name_or_path else None
