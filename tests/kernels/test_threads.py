from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minillama.kernels import threads


@njit
def _counted(a: Any, n: int) -> int:
    for _ in range(n):
        threads.fetch_add(a, 1, 3)
    threads.wait_for(a, 1, 3 * n)
    return threads.fetch_add(a, 1, 0)


def test_a_counter_that_threads_share() -> None:
    counter = np.array([5, 0, 5], np.int64)
    assert _counted(counter, 10) == 30
    np.testing.assert_array_equal(counter, [5, 30, 5])
