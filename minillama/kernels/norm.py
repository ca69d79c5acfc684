"""Root mean square norm, one row at a time (the twin of model/norm.py)."""

from __future__ import annotations

import math
from typing import Any

from numba import njit

from minillama.kernels.llvm import LANES
from minillama.kernels.simd import fma, load, splat, store, sum_of


@njit
def rms_norm(x: Any, i: int, weight: Any, width: int, size: int, eps: float, out: Any, o: int) -> None:
    """out[o : o + width] = x / sqrt(mean(x^2) + eps) * weight, for the row x[i : i + size].

    width: size, rounded up to a multiple of 16; x and weight hold zeros behind `size`.
    """
    squares = splat(0.0)
    for k in range(0, width, LANES):
        part = load(x, i + k)
        squares = fma(part, part, squares)
    scale = splat(1 / math.sqrt(sum_of(squares) / size + eps))
    for k in range(0, width, LANES):
        store(out, o + k, load(x, i + k) * scale * load(weight, k))
