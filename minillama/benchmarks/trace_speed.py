"""How long a trace takes beside the plain forward pass of the same model, in turns in one process, each into a new file
(over an old one, the file system frees that too):

python -m minillama.benchmarks.trace_speed
python -m minillama.benchmarks.trace_speed --shape 1.1B --work DIR --repeats 7
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from minillama import commands
from minillama.benchmarks.shapes import SHAPES, random_checkpoint
from minillama.debug.traces import Trace
from minillama.files import write_files
from minillama.llama import LlamaForCausalLM
from minillama.shipped import tale_model
from minillama.trace import planned, write

WARM = 2  # runs of each that are not counted


def main() -> int:
    p = commands.parser("benchmarks.trace_speed", __doc__ or "", "")
    g = p.add_mutually_exclusive_group()
    g.add_argument("--weights", metavar="PATH", help="checkpoint to run (default: the tale model)")
    g.add_argument("--shape", choices=SHAPES, help="random weights of that shape instead; needs --work")
    p.add_argument("--work", metavar="DIR", help="where random weights and the trace are written (default: temporary)")
    p.add_argument("--tokens", type=int, default=128, metavar="N", help="length of the text (default: 128)")
    p.add_argument("--repeats", type=int, default=31, metavar="N", help="of each, in turns (default: 31)")
    p.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: one a core)")
    args = p.parse_args()
    if args.shape and not args.work:
        p.error("--shape needs --work")
    commands.check_threads(args.threads)
    with commands.limited_threads(args.threads), tempfile.TemporaryDirectory(dir=args.work) as folder:
        weights = random_checkpoint(args.shape, Path(args.work)) if args.shape else Path(args.weights or tale_model())
        measure(weights, Path(folder), args.tokens, args.repeats)
    return 0


def measure(weights: Path, folder: Path, tokens: int, repeats: int) -> None:
    """Print the medians of both, and of their ratio in each turn."""
    model = LlamaForCausalLM.from_pretrained(weights, engine="numpy", dtype="f32")
    ids = np.random.default_rng(0).integers(3, model.config.vocab_size, tokens).tolist()
    out = folder / "trace.safetensors"

    def plain() -> object:
        return model([ids], use_cache=True)

    def traced() -> None:
        trace = Trace({}, [np.array([ids])], model.config, str(weights))
        write_files({out: partial(write, model, trace, planned(trace, None, [0]), "F32")}, synced=False)

    pairs = []
    for _ in range(WARM + repeats):
        out.unlink(missing_ok=True)
        pairs.append((timed(plain), timed(traced)))
    pairs = pairs[WARM:]
    forward, trace = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    ratios = sorted(b / a for a, b in pairs)
    print(f"{weights.name}, {tokens} tokens, a trace of {out.stat().st_size / 1e6:.1f} MB, {repeats} turns")
    print(f"  plain forward pass  {forward * 1e3:8.1f} ms")
    print(f"  trace               {trace * 1e3:8.1f} ms")
    print(f"  trace / plain       {statistics.median(ratios):8.2f}   (from {ratios[0]:.2f} to {ratios[-1]:.2f})")


def timed(run: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
