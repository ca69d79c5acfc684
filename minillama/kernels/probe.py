"""How fast memory can be read, the ceiling of decoding, which reads every weight once a token; and how far apart two
cores are."""

from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.kernels.kept import kernel
from minillama.kernels.threads import fetch_add, wait_for


@kernel
def sum_four_streams(words: Array) -> Any:
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


@kernel
def sum_eight_streams(words: Array) -> Any:
    """The same of eight, which other CPUs read faster than four. Words beyond a multiple of eight are left out."""
    n = words.size // 8
    a, b, c, d = words[:n], words[n : 2 * n], words[2 * n : 3 * n], words[3 * n : 4 * n]
    e, f, g, h = words[4 * n : 5 * n], words[5 * n : 6 * n], words[6 * n : 7 * n], words[7 * n : 8 * n]
    w = x = y = z = np.uint64(0)
    for i in range(n):
        w += a[i] + e[i]
        x += b[i] + f[i]
        y += c[i] + g[i]
        z += d[i] + h[i]
    return w + x + y + z


@kernel
def hand_over(word: Array, me: int, times: int) -> None:
    """Hand a word to another thread and take it back, so many times. The two threads are 0 and 1; word: (1,), int64,
    counts how often it changed hands."""
    for i in range(times):
        wait_for(word, 0, 2 * i + me)
        fetch_add(word, 0, 1)
