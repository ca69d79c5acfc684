"""Answers to the exercises of chapter 7."""

import numpy as np

from minillama.model.mlp import silu
from minillama.model.norm import rms_norm


# Exercise 7.1
def my_silu(x):
    return x * (0.5 * np.tanh(0.5 * x) + 0.5)


# Exercise 7.2
def swiglu(x, gate_proj, up_proj, down_proj):
    hidden = silu(x @ gate_proj.T) * (x @ up_proj.T)
    return hidden @ down_proj.T


# Exercise 7.3
def block(x, attention, network, first_norm, second_norm, eps):
    x = x + attention(rms_norm(x, first_norm, eps))
    return x + network(rms_norm(x, second_norm, eps))


# Exercise 7.4
def parameters(V, D, F, L, H, G, K, tied):
    attention = 2 * H * K * D + 2 * G * K * D
    network = 3 * D * F
    layer = attention + network + 2 * D
    heads = 1 if tied else 2
    return heads * V * D + L * layer + D
