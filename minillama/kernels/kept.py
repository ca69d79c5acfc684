"""Compiled kernels that Numba keeps on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import typeof


def is_compiled(kernel: Any, arguments: Sequence[Any]) -> bool:
    """Whether a call of a kernel with such arguments needs no compilation.

    Numba has no public way to ask; where its cache is another than is known here, the answer is no.
    """
    signature = tuple(map(typeof, arguments))
    if signature in kernel.overloads:
        return True
    try:
        return kernel._cache.load_overload(signature, kernel.targetctx) is not None
    except AttributeError:
        return False
