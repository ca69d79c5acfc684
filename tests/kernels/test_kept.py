from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minillama.kernels.decoder import forward
from minillama.kernels.kept import is_compiled


def made() -> Any:
    @njit
    def twice(x: Any) -> Any:
        return x + x

    return twice


def test_what_runs_in_this_process_is_compiled() -> None:
    twice = made()
    assert not is_compiled(twice, (1,))
    twice(1)
    assert is_compiled(twice, (2,))
    assert not is_compiled(twice, (np.zeros(3),))


def test_what_no_kernel_takes_is_not() -> None:
    assert not is_compiled(forward, ("a text", 3))
