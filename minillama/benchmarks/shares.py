"""What each kernel takes of a pass:  python -m minillama.benchmarks.shares path/to/llama q8_0

Passes are timed with one step left out at a time, in a process of its own, which compiles its kernels anew (a minute
or so for each). What a pass is shorter by is the step's share; results mean nothing then, but times do not depend on
them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

PROMPT, TOKENS, REPEATS = 256, 32, 7
# The functions of kernels/decoder.py that do nothing while the step is left out
STEPS = {
    "nothing": (),
    "products": ("product",),
    "attention": ("attention_step",),
    "rotation, writing to the cache": ("rope_step",),
    "norms": ("norm_step", "final_step"),
    "SwiGLU": ("gated_step",),
    "rounding of contexts": ("arrange_step",),
}


def timed(path: str, dtype: str, step: str) -> dict[str, float]:
    """Median seconds of a pass over PROMPT tokens, and of decoding one after them, without a step."""
    from numba import njit

    from minillama.kernels import decoder

    @njit
    def nothing(*arguments: Any) -> None:
        pass

    for name in STEPS[step]:
        setattr(decoder, name, nothing)
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
            model.decode([5])
        decode.append((time.perf_counter() - middle) / TOKENS)
        prefill.append(middle - begin)
    return {"prefill": statistics.median(prefill[1:]), "decode": statistics.median(decode[1:])}


def main() -> None:
    path, dtype, *step = sys.argv[1:]
    if step:
        print(json.dumps(timed(path, dtype, step[0])))
        return
    found = {}
    for name in STEPS:
        with tempfile.TemporaryDirectory() as cache:  # kernels with a part left out must not be kept
            line = [sys.executable, "-m", "minillama.benchmarks.shares", path, dtype, name]
            env = os.environ | {"NUMBA_CACHE_DIR": cache}
            found[name] = json.loads(subprocess.run(line, env=env, capture_output=True, check=True).stdout)
    whole = found.pop("nothing")
    print(f"{dtype}: prefill of {PROMPT} {1e3 * whole['prefill']:.1f} ms, decode {1e3 * whole['decode']:.2f} ms")
    for name, without in found.items():
        shares = (f"{what} {1 - without[what] / whole[what]:6.1%}" for what in whole)
        print(f"{name:32}", *shares)


if __name__ == "__main__":
    main()
