"""Traces side by side: which names there are, and in what order."""

from __future__ import annotations

import numpy as np

from minillama.debug.comparison import ordered
from minillama.debug.names import in_order
from minillama.debug.traces import Trace

NOTHING = np.zeros(())


def test_the_order_is_that_of_the_computation() -> None:
    everything = [where.name for where in in_order(12, [0, 3])]
    shuffled = np.random.default_rng(0).permutation(everything).tolist()
    assert [where.name for where in ordered(Trace(dict.fromkeys(shuffled, NOTHING)))] == everything


def test_numbers_of_layers_and_steps_may_be_any() -> None:
    """As those of a program that counts its layers down and prints -1 unsigned: none of the others is looked for."""
    names = ["model.layers.0.output", "model.layers.18446744073709551615.output", "step.4294967295.logits"]
    assert [where.name for where in ordered(Trace(dict.fromkeys([*reversed(names), "what.else"], NOTHING)))] == names
