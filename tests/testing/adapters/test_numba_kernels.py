"""Our kernels have every property of a LLaMA's parts, like anybody's."""

from __future__ import annotations

import pytest

from minillama.testing.adapters import numba_kernels
from minillama.testing.base import Property
from minillama.testing.checks import PROPERTIES
from minillama.testing.levels import LEVELS
from minillama.testing.plugin import implementation_of
from minillama.testing.running import run


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.id)
def test_float32(prop: Property) -> None:
    outcome = run(prop, implementation_of(numba_kernels), LEVELS[numba_kernels.level])
    # Sampling is NumPy's whatever computes the logits, and nothing else is skipped
    assert (outcome.skipped is not None) == (prop.component == "sampler")
