"""Root-mean-square normalization."""

import numpy as np

from minillama.arrays import Array


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis.

    x: (..., D), weight: (D,) -> (..., D). The epsilon is inside the square root. No mean is subtracted and there
    is no bias, unlike layer normalization. Zhang and Sennrich 2019, equation 4.
    """
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + eps) * weight
