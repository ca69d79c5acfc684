from __future__ import annotations

import numpy as np
import pytest

from minillama.weights import finite
from minillama.weights.finite import first_odd_number
from minillama.weights.safetensors import ArrayTensor


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(7,), (7, 5), (7, 3, 4)])
@pytest.mark.parametrize("some", [1, 9, 1 << 20])
def test_the_first_of_them_is_found(
    bad: float, shape: tuple[int, ...], some: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite, "SOME", some)  # rows that are looked at together
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    sound = {"first": ArrayTensor(x.copy()), "none": ArrayTensor(np.zeros((0, 3), np.float32))}
    assert first_odd_number(sound) is None
    place = (4, 2, 1)[: len(shape)]
    x[place] = x[-1] = bad
    assert first_odd_number(sound | {"odd": ArrayTensor(x)}) == f"odd{list(place)}"
