"""Others' implementations, and what of ours they are, have the properties that minillama.testing asks for: what it asks
is no peculiarity of this package. What an operator lacks is listed, so that no skip comes unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minillama.testing.checks import PROPERTIES
from minillama.testing.levels import LEVELS
from minillama.testing.plugin import implementation_of
from minillama.testing.running import run

pytestmark = pytest.mark.oracle
ROOT = Path(__file__).parents[2]
BF16 = {"model::exact", "model::cached"}  # of the model at bf16, for the time it takes


def skipped(implementation: Any, components: set[str], only: set[str] | None = None) -> set[str]:
    """What was not tried of these components, of which `only` are tried where it is given."""
    found = set()
    for prop in PROPERTIES:
        if prop.component in components and (only is None or prop.id in only):
            outcome = run(prop, implementation_of(implementation), LEVELS[implementation.level])
            found |= {prop.id} if outcome.skipped else set()
    return found


def test_torch_and_transformers_by_the_command_line() -> None:
    pytest.importorskip("transformers", reason="needs the oracle extra")
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "minillama.testing.plugin", "-p", "no:cacheprovider"]
    command += ["--pyargs", "minillama.testing.suite"]
    command += ["--impl", "tests.oracle.adapters.torch_parts"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    lacking = [prop for prop in PROPERTIES if prop.component in ("kv_cache", "mlp", "sampler")]
    assert f"{len(PROPERTIES) - len(lacking)} passed, {len(lacking)} skipped" in done.stdout
    reasons = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all("there is no function" in line for line in reasons)


@pytest.mark.parametrize("gqa", [True, False], ids=["enable_gqa", "repeated"])
def test_torch_in_bfloat16(gqa: bool) -> None:
    torch = pytest.importorskip("torch", reason="needs the oracle extra")
    pytest.importorskip("transformers", reason="needs the oracle extra")
    from tests.oracle.adapters.torch_parts import Parts

    parts = Parts(torch.bfloat16, gqa)
    assert skipped(parts, {"attention"} if not gqa else {"attention", "rms_norm", "rope"}) == set()
    if gqa:
        assert skipped(parts, {"model"}, BF16) == set()


def test_torch_in_float32_with_repeated_heads() -> None:
    torch = pytest.importorskip("torch", reason="needs the oracle extra")
    pytest.importorskip("transformers", reason="needs the oracle extra")
    from tests.oracle.adapters.torch_parts import Parts

    assert skipped(Parts(torch.float32, gqa=False), {"attention"}) == set()


def test_the_operators_of_onnx() -> None:
    """There is none for a cache, an mlp, a model or a sampler; frequencies are given to RotaryEmbedding."""
    pytest.importorskip("onnx", reason="needs the oracle extra")
    from tests.oracle.adapters import onnx_parts

    scalings = {"rope::linear", "rope::llama3", "rope::yarn"}
    assert skipped(onnx_parts, {"attention", "rms_norm", "rope"}) == scalings
