"""The gated feed-forward network's elementwise middle (the twin of model/mlp.py); its products are in linear.py."""

from __future__ import annotations

from typing import Any

from numba import njit

from minillama.kernels.llvm import LANES
from minillama.kernels.simd import exp, load, maximum, splat, store, where_above


@njit
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)); x is kept above -87, below which the result is less than 1e-37 anyway."""
    return splat(1.0) / (splat(1.0) + exp(splat(0.0) - maximum(x, splat(-87.0))))


@njit
def gated(act: int, gate: Any, i: int, up: Any, j: int, width: int) -> None:
    """gate[i : i + width] = act(gate) * up[j : j + width]; act: one of ACTIVATIONS, width: a multiple of 16."""
    for k in range(0, width, LANES):
        x = load(gate, i + k)
        if act == 0:
            y = x * sigmoid(x)
        elif act == 1:  # x / 2 (1 + tanh(z)) = x sigmoid(2 z)
            y = x * sigmoid(splat(1.5957691216057308) * (x + splat(0.044715) * x * x * x))
        elif act == 2:
            y = x * sigmoid(splat(1.702) * x)
        else:
            y = where_above(splat(0.0), x, splat(0.0), x)  # which keeps what is no number
        store(gate, i + k, y * load(up, j + k))
