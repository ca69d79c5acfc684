from __future__ import annotations

from minillama.benchmarks.shares import STEPS
from minillama.kernels import decoder


def test_every_step_of_a_pass_can_be_left_out() -> None:
    steps = {name for name in vars(decoder) if name.endswith("_step")} | {"product", "product_rows"}
    assert {name for names in STEPS.values() for name in names} == steps
