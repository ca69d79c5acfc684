"""Rotary position embeddings, in place and on the way into the cache (the twin of rotate in model/rope.py)."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit
def rotate(x: Any, i: int, heads: int, head_dim: int, cos: Any, sin: Any, c: int) -> None:
    """Turn every pair (a, b) = (x[j], x[j + K/2]) of each head into (a cos - b sin, b cos + a sin).

    x[i : i + heads K]: one row, turned in place. cos, sin [c : c + K/2]: of its position.
    """
    half = head_dim // 2
    for head in range(heads):
        start = i + head * head_dim
        for j in range(half):
            a, b = x[start + j], x[start + half + j]
            x[start + j] = a * cos[c + j] - b * sin[c + j]
            x[start + half + j] = b * cos[c + j] + a * sin[c + j]
