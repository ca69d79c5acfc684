"""Answers to the exercises of chapter 3."""

import numpy as np


# Exercise 3.1
def rms_norm(x, weight, eps):
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + eps) * weight
