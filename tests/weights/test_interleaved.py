"""q and k projections from Meta's rotary layout."""

import numpy as np
import pytest

from minillama.weights.interleaved import InterleavedTensor
from minillama.weights.names import interleaved_to_halves
from minillama.weights.safetensors import ArrayTensor
from tests.weights.test_joined import IDS, WHOLE, Watched


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_halves(heads: int) -> None:
    base = Watched(WHOLE)
    tensor = InterleavedTensor(base, heads)
    expected = interleaved_to_halves(WHOLE, heads)
    np.testing.assert_array_equal(tensor.stored(), expected)
    np.testing.assert_array_equal(tensor.read(np.float64), expected)
    for ids in IDS:
        before = base.numbers
        np.testing.assert_array_equal(tensor.read(np.float32, ids), expected[ids])
        assert base.numbers - before == ids.size * 8


def test_halves_of_a_bias() -> None:
    bias = WHOLE[:, 0].copy()
    tensor = InterleavedTensor(ArrayTensor(bias), 2)
    np.testing.assert_array_equal(tensor.read(np.float32), interleaved_to_halves(bias, 2))
