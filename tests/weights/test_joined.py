"""A tensor made of others when it is read."""

from __future__ import annotations

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.weights.formats import widen
from minillama.weights.joined import JoinedTensor
from minillama.weights.safetensors import ArrayTensor
from tests.tiny import spiky

WHOLE = spiky(np.random.default_rng(90), 12, 8).astype(np.float32)
IDS = [np.array([11, 0, 4, 4]), np.array([[3], [7]]), np.array([-1, 2]), np.array([], dtype=np.int64), np.arange(12)]


class Watched(ArrayTensor):
    """Counts the numbers that are read."""

    def __init__(self, array: Array):
        super().__init__(array)
        self.numbers = 0

    def stored(self, rows: Array | None = None) -> Array:
        stored = super().stored(rows)
        self.numbers += stored.size
        return stored


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_joined(axis: int, count: int, kind: type) -> None:
    whole = WHOLE.astype(kind)
    parts = [Watched(np.ascontiguousarray(part)) for part in np.split(whole, count, axis)]
    joined = JoinedTensor(parts, axis)
    assert (joined.shape, joined.dtype) == (whole.shape, parts[0].dtype)
    np.testing.assert_array_equal(joined.stored(), whole)
    np.testing.assert_array_equal(joined.read(np.float64), whole)
    for ids in IDS:
        before = sum(part.numbers for part in parts)
        read = joined.read(np.float32, ids)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, widen(whole, joined.dtype, np.float32)[ids])
        np.testing.assert_array_equal(joined.stored(ids), whole[ids])
        assert sum(part.numbers for part in parts) - before == 2 * read.size  # these rows, and no others
