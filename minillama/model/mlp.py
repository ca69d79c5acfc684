"""The gated feed-forward network, SwiGLU (Shazeer 2020)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.messages import shown
from minillama.model.ops import Tap, linear, no_tap
from minillama.model.weights import MLPWeights

Activation = Callable[[Array], Array]


def mlp(x: Array, w: MLPWeights, act: Activation, tap: Tap = no_tap, parts: int = 1) -> Array:
    """down(act(gate(x)) * up(x)): (B, T, D) -> (B, T, D). The gate decides how much of each of F features passes."""
    gate = linear(x, w.gate_proj, w.gate_bias)  # (B, T, F)
    tap("gate", gate)
    up = linear(x, w.up_proj, w.up_bias)  # (B, T, F)
    tap("up", up)
    hidden = act(gate) * up
    tap("act", hidden)
    out = linear(hidden, w.down_proj, w.down_bias, parts)
    tap("down", out)
    return out


def silu(x: Array) -> Array:
    """x sigmoid(x), also called swish."""
    return x * sigmoid(x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), through tanh, which cannot overflow."""
    half: Array = x * 0.5
    return 0.5 * np.tanh(half) + 0.5


def gelu(x: Array) -> Array:
    """x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016)."""
    return x * (0.5 * (1 + erf(x * math.sqrt(0.5))))


def gelu_tanh(x: Array) -> Array:
    """GELU by tanh, as GPT-2 and later models compute it."""
    inner: Array = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + np.tanh(inner))


def quick_gelu(x: Array) -> Array:
    """GELU by the sigmoid of 1.702 x."""
    return x * sigmoid(1.702 * x)


def relu(x: Array) -> Array:
    """max(x, 0)"""
    return np.maximum(x, 0)


_erf: Any = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """The error function, element by element in the standard library's double precision (NumPy has none)."""
    y: Array = _erf(x)
    return y.astype(x.dtype)


ACTIVATIONS: dict[str, Activation] = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": relu,
}


def activation(hidden_act: str | Activation) -> Activation:
    """The function that config.hidden_act names, or is, which then gives the dtype it is given. ValueError for a name
    nobody knows."""
    if callable(hidden_act):
        return partial(_in_its_dtype, hidden_act)  # which can be pickled if the function can
    if hidden_act not in ACTIVATIONS:
        raise ValueError(f"hidden_act {shown(hidden_act)} is unknown: use one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[hidden_act]


def _in_its_dtype(act: Activation, x: Array) -> Array:
    return np.asarray(act(x), x.dtype)
