"""How fast memory can be read: the ceiling of decoding, which reads every weight once a token."""

from typing import Any

import numpy as np
from numba import njit

from minillama.arrays import Array


@njit(nogil=True, cache=True)
def sum_streams(words: Array) -> Any:
    """The sum of uint64 words, modulo 2^64, read as four streams side by side.

    One stream leaves memory idle part of the time: a core's prefetcher follows several at once, and runs further ahead
    in each. Words beyond a multiple of four are left out.
    """
    n = words.size // 4
    a, b, c, d = words[:n], words[n : 2 * n], words[2 * n : 3 * n], words[3 * n : 4 * n]
    w = x = y = z = np.uint64(0)
    for i in range(n):
        w += a[i]
        x += b[i]
        y += c[i]
        z += d[i]
    return w + x + y + z
