"""How fast checkpoints are converted, beside cp, and in how much memory (Linux, with rights to empty the disk cache):

python -m minillama.benchmarks.convert_speed --work DIR --size 1 8
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from minillama import commands
from minillama.benchmarks.shapes import config_of, write_random
from minillama.weights import open_checkpoint
from minillama.weights.safetensors import nbytes

LAYER, TABLES = 2 * (4 * 4096**2 + 3 * 4096 * 11008), 2 * 2 * 4096 * 32000  # bytes of a 7B model's parts in bfloat16


def main() -> int:
    p = commands.parser("benchmarks.convert_speed", __doc__ or "", "")
    p.add_argument("--work", required=True, metavar="DIR", help="where the files are made and removed")
    p.add_argument("--size", type=float, nargs="+", default=[1, 8], metavar="GB", help="of the models (default: 1 8)")
    p.add_argument("--repeats", type=int, default=3, metavar="N", help="of each, in alternation (default: 3)")
    p.add_argument("--arguments", default="", help="for minillama.convert, in one text, such as '--dtype f16'")
    args = p.parse_args()
    for size in args.size:
        source, copy = Path(args.work) / f"{size:g}GB", Path(args.work) / "copy"
        if not source.exists():
            layers = max(1, round((size * 1e9 - TABLES) / LAYER))
            write_random(config_of(4096, 11008, layers, 32, 32), source)
        stored = [nbytes(tensor) for tensor in open_checkpoint(source).tensors.values()]
        print(f"{sum(stored) / 1e9:.2f} GB, the largest tensor {max(stored) / 1e6:.0f} MB")
        ours = [sys.executable, "-m", "minillama.convert", str(source), str(copy), *args.arguments.split()]
        for _ in range(args.repeats):
            for command in (["cp", "-r", str(source), str(copy)], ours):
                shutil.rmtree(copy, ignore_errors=True)
                seconds, peak = timed(command)
                memory = f", peak {peak / 1e6:.0f} MB not of files" if command is ours else ""
                rate = sum(stored) / seconds / 1e6
                print(f"  {Path(command[0]).name:8} {seconds:6.2f} s {rate:6.0f} MB/s{memory}", flush=True)
        shutil.rmtree(copy, ignore_errors=True)
    return 0


def timed(command: Sequence[str]) -> tuple[float, int]:
    """Seconds until what it writes is on the disk, the cache being empty before; and the most memory that it had, pages
    of files aside."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    begin, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.005)
    if process.returncode:
        raise SystemExit(f"{command[0]} has failed")
    os.sync()
    return time.perf_counter() - begin, peak


def anonymous(pid: int) -> int:
    """Bytes of a process's resident pages that are not of files."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


if __name__ == "__main__":
    sys.exit(main())
