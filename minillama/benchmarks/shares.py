"""What each kernel takes of a pass:  python -m minillama.benchmarks.shares path/to/llama q8_0

Passes are timed with steps left out, each time in a process of its own, which compiles its kernels anew (a minute or so
for each). What a pass is shorter by is a step's share; results mean nothing then, but times do not depend on them. The
products go first: what they take depends on the memory of the moment, beside which nothing small can be seen.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

PROMPT, TOKENS, REPEATS = 256, 32, 7
PRODUCTS = "products"
# The functions of kernels/decoder.py that do nothing while the step is left out
STEPS = {
    PRODUCTS: ("product", "product_rows"),
    "attention": ("attention_step",),
    "rotation, writing to the cache": ("rope_step",),
    "norms": ("norm_step", "final_step"),
    "SwiGLU": ("gated_step",),
    "rounding of contexts": ("arrange_step",),
}


def timed(path: str, dtype: str, steps: Iterable[str]) -> dict[str, float]:
    """Median seconds of a pass over PROMPT tokens, and of decoding one after them, without some steps."""
    from numba import njit

    from minillama.kernels import decoder

    def nothing(*arguments: Any) -> None:
        pass

    left_out = njit(nothing)
    for name in (name for step in steps for name in STEPS[step]):
        setattr(decoder, name, left_out)
    from minillama.benchmarks.contestants import Minillama
    from minillama.engines import cores

    model = Minillama(path, dtype, "numba", cores()).engine
    ids = [[7 + n % 100 for n in range(PROMPT)]]
    prefill, decode = [], []
    for _ in range(REPEATS + 1):
        model.reset()
        begin = time.perf_counter()
        model.prefill(ids)
        middle = time.perf_counter()
        for _ in range(TOKENS):
            model.decode(np.array([5]))
        decode.append((time.perf_counter() - middle) / TOKENS)
        prefill.append(middle - begin)
    return {"prefill": statistics.median(prefill[1:]), "decode": statistics.median(decode[1:])}


def without(path: str, dtype: str, *steps: str) -> dict[str, float]:
    """What `timed` gives in a process of its own."""
    with tempfile.TemporaryDirectory() as cache:  # kernels with a part left out must not be kept
        line = [sys.executable, "-m", "minillama.benchmarks.shares", path, dtype, *steps, "."]
        env = os.environ | {"NUMBA_CACHE_DIR": cache}
        times: dict[str, float] = json.loads(subprocess.run(line, env=env, capture_output=True, check=True).stdout)
        return times


def main() -> None:
    path, dtype, *steps = sys.argv[1:]
    if steps:
        print(json.dumps(timed(path, dtype, steps[:-1])))
        return
    whole, rest = without(path, dtype), without(path, dtype, PRODUCTS)
    taken = {PRODUCTS: {what: whole[what] - rest[what] for what in whole}}
    for name in STEPS.keys() - taken.keys():
        less = without(path, dtype, PRODUCTS, name)
        taken[name] = {what: rest[what] - less[what] for what in whole}
    print(f"{dtype}: prefill of {PROMPT} {1e3 * whole['prefill']:.1f} ms, decode {1e3 * whole['decode']:.2f} ms")
    for name in STEPS:
        print(f"{name:32}", *(f"{what} {taken[name][what] / whole[what]:6.1%}" for what in whole))


if __name__ == "__main__":
    main()
