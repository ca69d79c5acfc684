"""Answers to the exercises of chapter 3."""

import numpy as np


# Exercise 3.1
def rms_norm(x, weight, eps):
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + eps) * weight


# Exercise 3.2
normalized = [1, -1, 1, -1]


# Exercise 3.3
def which_norm(x, y):
    rms = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    centred = x - x.mean(axis=-1, keepdims=True)
    layer = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
    if np.allclose(y, rms):
        return "rms"
    return "layer" if np.allclose(y, layer) else "neither"


# Exercise 3.4
def fold(matrix, weight):
    return matrix * weight
