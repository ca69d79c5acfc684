"""Our kernels have every property of a LLaMA's parts, like anybody's."""

from __future__ import annotations

import pytest

from minillama.testing.adapters import numba_kernels
from minillama.testing.base import Property
from minillama.testing.checks import PROPERTIES
from minillama.testing.levels import LEVELS
from minillama.testing.plugin import implementation_of
from minillama.testing.running import run


@pytest.mark.parametrize("form", numba_kernels.LEVEL)
@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.id)
def test_every_format(prop: Property, form: str) -> None:
    kernels = numba_kernels.Kernels(form)
    outcome = run(prop, implementation_of(kernels), LEVELS[kernels.level])
    # Sampling is NumPy's whatever computes the logits, and nothing else is skipped
    assert (outcome.skipped is not None) == (prop.component == "sampler")
