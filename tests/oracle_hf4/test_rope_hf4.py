"""The rotary classes of transformers 4.34.1, linear and dynamic, against ours with compat="hf4", call by call.

They keep tables of cos and sin in float32 made from float32 frequencies; a process of its own lifts that to float64.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.config import LlamaConfig
from minillama.model.rope_compat import UpstreamRotary

transformers = pytest.importorskip("transformers", reason="needs the oracle-hf4 extra")
if not transformers.__version__.startswith("4.34"):
    pytest.skip("needs transformers 4.34", allow_module_level=True)
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

ROOT = Path(__file__).resolve().parents[2]
GRID = [
    {"K": K, "theta": theta, "limit": limit, "kind": kind, "factor": factor}
    for K, theta, limit, (kind, factor) in product(
        (4, 64, 80),
        (1e4, 1e6),
        (8, 512),
        [("default", 1.0), *product(("linear", "dynamic"), (1.5, 2.0, 8.0))],
    )
]
CALLS = (0.5, 1.0, 1.25, 3.0, 1.0, 2.0, 0.25)  # how many keys there are, in limits, one call after the other
PICKED = (0, 1, 3)  # positions whose cos and sin are compared, and the last one of a call

THEIRS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tests.golden.make import lift_casts
lift_casts()
import torch
from transformers.models.llama import modeling_llama as llama
for line in sys.stdin:
    s = json.loads(line)
    own = {"dim": s["K"], "max_position_embeddings": s["limit"], "base": s["theta"]}
    rotary = {
        "default": lambda: llama.LlamaRotaryEmbedding(**own),
        "linear": lambda: llama.LlamaLinearScalingRotaryEmbedding(**own, scaling_factor=s["factor"]),
        "dynamic": lambda: llama.LlamaDynamicNTKScalingRotaryEmbedding(**own, scaling_factor=s["factor"]),
    }[s["kind"]]()
    out = []
    for keys, positions in s["calls"]:
        cos, sin = rotary(torch.zeros(1), seq_len=keys)
        assert cos.dtype == torch.float64
        half = s["K"] // 2
        out.append([cos[0, 0, positions, :half].tolist(), sin[0, 0, positions, :half].tolist()])
    print(json.dumps(out))
"""


def with_calls(settings: dict[str, Any]) -> dict[str, Any]:
    lengths = [int(call * settings["limit"]) for call in CALLS]
    return settings | {"calls": [[n, sorted({*(p for p in PICKED if p < n), n - 1})] for n in lengths]}


@pytest.fixture(scope="module")
def theirs() -> list[Any]:
    run = subprocess.run(
        [sys.executable, "-c", THEIRS, str(ROOT)],
        input="\n".join(json.dumps(with_calls(settings)) for settings in GRID),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return list(map(json.loads, run.stdout.splitlines()))


@pytest.mark.parametrize("kind", ["default", "linear", "dynamic"])
def test_tables_of_cos_and_sin(kind: str, theirs: list[Any]) -> None:
    seen = 0
    for settings, answer in zip(map(with_calls, GRID), theirs, strict=True):
        if settings["kind"] != kind:
            continue
        config = LlamaConfig(
            hidden_size=2 * settings["K"],
            num_attention_heads=2,
            max_position_embeddings=settings["limit"],
            rope_theta=settings["theta"],
            rope_scaling=None if kind == "default" else {"type": kind, "factor": settings["factor"]},
        )
        rotary = UpstreamRotary(config, "keys")
        for (keys, picked), expected in zip(settings["calls"], answer, strict=True):
            positions = np.array([picked])
            ours = rotary.angles(positions, rotary.inv_freq(positions, keys), np.float64)
            # The rounding of a power, 2^-53 and some, times positions up to 1536
            np.testing.assert_allclose([x[0] for x in ours], expected, rtol=0, atol=1e-11, err_msg=str(settings))
            seen += 1
    assert seen >= 84
