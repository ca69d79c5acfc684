"""Numbers that are none: the first NaN or infinity among weights, found some rows at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from minillama.weights.safetensors import Tensor

SOME = 1 << 20  # numbers that are looked at together


def first_odd_number(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinite number, and where in it; None if all are finite."""
    for name, tensor in tensors.items():
        length, *rest = tensor.shape
        step = max(1, SOME // max(1, math.prod(rest)))
        for start in range(0, length, step):
            part = tensor.read(np.float32, np.arange(start, min(start + step, length)))
            if not np.isfinite(part).all():
                place, *inner = np.argwhere(~np.isfinite(part))[0].tolist()
                return f"{name}{[start + place, *inner]}"
    return None
