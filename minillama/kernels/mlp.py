"""The gated feed-forward network's elementwise middle (the twin of model/mlp.py); its products are in linear.py."""

from __future__ import annotations

from typing import Any

from numba import njit

from minillama.kernels.llvm import LANES
from minillama.kernels.simd import absolute, exp, fma, load, maximum, splat, store, where_above


@njit
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)); x is kept above -87, below which the result is less than 1e-37 anyway."""
    return splat(1.0) / (splat(1.0) + exp(splat(0.0) - maximum(x, splat(-87.0))))


@njit
def erf(x: Any) -> Any:
    """The error function within 6e-7: Abramowitz and Stegun (1964), 7.1.26, is off by 1.5e-7, and the terms of its
    polynomial, of up to 1.5 and cancelling, are rounded by 6e-8 to 9e-8 each."""
    size = absolute(x)
    t = splat(1.0) / fma(splat(0.3275911), size, splat(1.0))
    p = fma(splat(1.061405429), t, splat(-1.453152027))
    p = fma(p, t, splat(1.421413741))
    p = fma(p, t, splat(-0.284496736))
    p = fma(p, t, splat(0.254829592))
    y = splat(1.0) - p * t * exp(splat(0.0) - size * size)
    return where_above(splat(0.0), x, splat(0.0) - y, y)


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
        elif act == 4:
            y = x * (splat(0.5) + splat(0.5) * erf(x * splat(0.7071067811865476)))
        else:
            y = where_above(splat(0.0), x, splat(0.0), x)  # which keeps what is no number
        store(gate, i + k, y * load(up, j + k))
