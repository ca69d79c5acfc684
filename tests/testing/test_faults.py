"""Every check catches what people get wrong, says what and often why, and accuses nobody who is right."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minillama.testing import checks
from minillama.testing.adapters import numpy_model
from minillama.testing.checks import PROPERTIES
from minillama.testing.running import ConformanceError, ConformanceWarning
from tests.testing import styles
from tests.testing.faults import FAULTS, Fault

SENTENCES = {prop.id: prop.sentence for prop in PROPERTIES}
CAUSE = "these are the numbers one gets where "


def check(component: str, function: Callable[..., Any], **how: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConformanceWarning)
        if component == "draw":
            checks.check_sampler(draw=function, **how)
        else:
            getattr(checks, f"check_{component}")(function, **how)


@pytest.mark.parametrize(
    ("component", "fault"),
    [pytest.param(part, fault, id=f"{part}: {fault.name}") for part, faults in FAULTS.items() for fault in faults],
)
def test_a_fault_is_caught(component: str, fault: Fault) -> None:
    with pytest.raises(ConformanceError) as caught:
        check(component, fault.function)
    first, *lines = str(caught.value).splitlines()
    broken = f"{component if component != 'draw' else 'sampler'}::{fault.breaks}"
    assert first == f"{broken}: {SENTENCES[broken]}"
    causes = lines[-1].removeprefix(CAUSE) if lines[-1].startswith(CAUSE) else ""
    if fault.cause is None:
        assert causes == "", "a wrong cause is worse than none"
    else:
        assert fault.cause in causes


def test_every_check_catches_three_at_least() -> None:
    functions = {name.removeprefix("check_") for name in vars(checks) if name.startswith("check_")}
    assert functions == FAULTS.keys() - {"draw"}
    assert min(len(faults) for faults in FAULTS.values()) >= 5


RIGHT = {
    "rms_norm": styles.norm_in_float32,
    "attention": styles.attention,
    "kv_cache": styles.Cache,
    "mlp": styles.mlp,
    "sampler": styles.sampler,
}


@pytest.mark.parametrize("component", RIGHT)
def test_other_styles_pass(component: str) -> None:
    check(component, RIGHT[component])


def test_other_ways_pass() -> None:
    check("attention", styles.attention_online)
    check("kv_cache", styles.ListOfPieces)
    check("rope", styles.rope_by_complex_numbers, layout="interleaved")


def test_results_in_float16_are_good_for_bf16() -> None:
    """A float16 is finer than a bfloat16, as long as it does not overflow."""

    def narrowed(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: function(*given).astype(np.float16)

    for component in ("rms_norm", "attention", "rope"):
        check(component, narrowed(getattr(numpy_model, component)), level="bf16")
