"""What the machine can do at most: reading memory, which bounds decoding, NumPy's matrix product, and how soon one core
sees what another has written."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from minillama.arrays import Array

LARGEST = 1 << 30  # bytes: several times what any cache holds
SIDE = 2048  # of the matrices multiplied
HANDOVERS = 20_000


def read_bandwidth(threads: int, repeats: int, nbytes: int = LARGEST) -> list[float]:
    """GB/s of several readings of a large array by all threads together, each the fastest of the ways that are known;
    the first one not counted."""
    nbytes = min(nbytes, psutil.virtual_memory().available // 4)
    words = np.arange(nbytes // 8, dtype=np.uint64)
    pieces = np.array_split(words, threads)
    rates, ways = [], readers()
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats + 1):
            seconds = []
            for read in ways:
                begin = time.perf_counter()
                list(pool.map(read, pieces))
                seconds.append(time.perf_counter() - begin)
            rates.append(words.nbytes / min(seconds) / 1e9)
    return rates[1:]


def readers() -> list[Callable[[Array], object]]:
    """Functions that read an array once, at full speed and without the interpreter's lock."""
    try:
        from minillama.kernels.probe import sum_eight_streams, sum_four_streams
    except ImportError:
        return [np.sum]
    ways = [sum_four_streams, sum_eight_streams]
    for read in ways:
        read(np.zeros(8, np.uint64))  # compiled before the clock starts
    return ways


def matmul_rate(threads: int, repeats: int) -> list[float]:
    """GFLOP/s of NumPy's float32 matrix product, the first one not counted."""
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    rates = []
    with threadpool_limits(threads, user_api="blas"):
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            a @ a
            rates.append(2 * SIDE**3 / (time.perf_counter() - begin) / 1e9)
    return rates[1:]


def handover_time(threads: int, repeats: int) -> list[float]:
    """Nanoseconds until one core sees what another has written, the first measurement not counted: some 40 where the
    two share a cache, and with it their way to memory, some 200 where they do not. Empty for one thread, or without
    Numba."""
    try:
        from minillama.kernels.probe import hand_over
    except ImportError:
        return []
    if threads < 2:
        return []
    times = []
    with ThreadPoolExecutor(2) as pool:
        for count in [1] + [HANDOVERS] * (repeats + 1):
            word = np.zeros(1, np.int64)
            begin = time.perf_counter()
            list(pool.map(lambda me: hand_over(word, me, count), (0, 1)))  # noqa: B023 (ends within the loop)
            times.append((time.perf_counter() - begin) / (2 * count) * 1e9)
    return times[2:]
