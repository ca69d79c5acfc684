"""A grid of rotary settings, and what transformers computes for them:  python tests/oracle/rope_grid.py

transformers works in float32. Run as a program, this lifts that to float64 as the goldens do, which only a process of
its own can, and prints a line of JSON for each of the settings.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BY_LENGTH = ("dynamic", "longrope")
THETAS = (100.0, 1e4, 5e5)
HEAD_DIMS = (4, 64, 80, 128)
LIMITS = (32, 4096)  # max_position_embeddings
LLAMA3: list[dict[str, Any]] = [
    {"factor": factor, "low_freq_factor": low, "high_freq_factor": high}
    for factor, (low, high) in product((1.0, 8.0, 32.0), ((1.0, 4.0), (0.5, 20.0)))
]
YARN: list[dict[str, Any]] = [
    {"factor": factor} | own
    for factor in (1.0, 4.0, 40.0, None)
    for own in (
        {},
        {"truncate": False},
        {"beta_fast": 16.0, "beta_slow": 2.0},
        {"beta_fast": 2.5, "beta_slow": 2.49, "truncate": False},  # a ramp that lies between two pairs
        {"mscale": 0.707, "mscale_all_dim": 0.5},
        {"mscale": 1.2},
        {"attention_factor": 0.8},
    )
]
LONGROPE: list[dict[str, Any]] = [{}, {"factor": 1.0}, {"factor": 3.0}, {"attention_factor": 1.3}]
# One call after the other, as a text grows and another one starts: each one's last position + 1, in limits
CALLS = (0.5, 1.0, 1.25, 3.0, 1.0, 2.0, 0.25, 1.0, 1.5)


def grid() -> Iterator[dict[str, Any]]:
    """Settings of a config: head_dim, max_position_embeddings and rope_parameters, the theta among them."""
    for K, theta, limit in product(HEAD_DIMS, THETAS, LIMITS):
        factors = {
            "short_factor": [1 + 0.1 * j / K for j in range(K // 2)],
            "long_factor": [1.5 + 7 * j / K for j in range(K // 2)],
        }
        trained = {
            "llama3": LLAMA3,
            "yarn": YARN,
            "longrope": [factors | own for own in LONGROPE],
        }
        scalings: list[dict[str, Any]] = [{"rope_type": "default"}]
        scalings += [{"rope_type": kind, "factor": f} for kind in ("linear", "dynamic") for f in (1.5, 2.0, 8.0)]
        scalings += [
            {"rope_type": "proportional"} | factor | share
            for factor in ({}, {"factor": 2.0})
            for share in ({}, {"partial_rotary_factor": 0.5}, {"partial_rotary_factor": 0.3})
        ]
        scalings += [
            {"rope_type": kind, "original_max_position_embeddings": original} | own
            for kind, all_own in trained.items()
            for own, original in product(all_own, (limit // 4, limit // 32 + 6, limit))
        ]
        for scaling in scalings:
            yield {
                "head_dim": K,
                "max_position_embeddings": limit,
                "rope_parameters": scaling | {"rope_theta": theta},
            }


def lengths(settings: dict[str, Any]) -> list[int]:
    """Below, at and beyond the limit and the trained length, where they matter."""
    rope, limit = settings["rope_parameters"], settings["max_position_embeddings"]
    if rope["rope_type"] not in BY_LENGTH:
        return [limit]
    ends = {limit, rope.get("original_max_position_embeddings", limit)}
    return sorted({1, *ends, *(n - 1 for n in ends), *(n + 1 for n in ends), *(3 * n for n in ends)})


def calls(settings: dict[str, Any]) -> list[int]:
    """The lengths of CALLS, where they matter."""
    if settings["rope_parameters"]["rope_type"] not in BY_LENGTH:
        return []
    return [int(call * settings["max_position_embeddings"]) for call in CALLS]


def ask() -> tuple[list[str], list[dict[str, Any]]]:
    """The names of ROPE_INIT_FUNCTIONS, and for each of the grid: the frequencies at `lengths`, what cos and sin are
    multiplied by, and the frequencies of a module that is called with the positions of `calls`."""
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    names, *lines = map(json.loads, run.stdout.splitlines())
    return names, lines


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.golden.make import lift_casts

    lift_casts()
    import torch
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    transformers.logging.set_verbosity_error()
    print(json.dumps(sorted(ROPE_INIT_FUNCTIONS)))
    for settings in grid():
        config = transformers.LlamaConfig(
            hidden_size=2 * settings["head_dim"], num_attention_heads=2, **json.loads(json.dumps(settings))
        )
        kind = settings["rope_parameters"]["rope_type"]
        function = ROPE_INIT_FUNCTIONS.get(kind, LlamaRotaryEmbedding.compute_default_rope_parameters)
        given = [function(config, device=None, seq_len=length) for length in lengths(settings)]
        assert given[0][0].dtype == torch.float64
        module, called = LlamaRotaryEmbedding(config), []
        for length in calls(settings):
            module(torch.zeros(1), torch.tensor([[length - 1]]))
            called.append(module.inv_freq.tolist())
        print(json.dumps({"inv_freq": [f.tolist() for f, _ in given], "factor": given[0][1], "calls": called}))


if __name__ == "__main__":
    main()
