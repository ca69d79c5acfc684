"""What the hunt compares two runs with."""

from collections.abc import Mapping
from typing import Any

import numpy as np

TOLERANCE = 1e-5  # float32 makes up to 1e-6 where the same steps are added up in another order


def record(model: Any, ids: np.ndarray, cache: Any = None) -> dict[str, np.ndarray]:
    """Every intermediate of one run, by name, in the order in which they are computed."""
    seen: dict[str, np.ndarray] = {}
    model(ids, cache, tap=seen.__setitem__)
    return seen


def error(x: np.ndarray | None, right: np.ndarray) -> float:
    """The largest difference, in parts of the largest number of the right one; infinite where shapes differ, or x is
    absent or holds NaN."""
    if x is None or x.shape != right.shape or np.isnan(x).any():
        return float("inf")
    return float(np.abs(x - right).max() / np.abs(right).max())


def errors(seen: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The error of every intermediate of the reference, in its order."""
    return {name: error(seen.get(name), right) for name, right in reference.items()}


def first_difference(
    seen: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], tolerance: float = TOLERANCE
) -> str | None:
    """The name of the first intermediate of the reference whose error is above the tolerance; None if none is."""
    return next((name for name, wrong in errors(seen, reference).items() if wrong > tolerance), None)
