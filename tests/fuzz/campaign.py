"""Fuzz for a while:  python -m tests.fuzz.campaign TARGET --seconds 120 --keep FOLDER

Inputs that end in a way that none before did are kept, and mutated further. What breaks a rule is written to
FOLDER/findings, with what went wrong; a line at the end says how many inputs were run. The input of a crash is left in
the temporary folder.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import re
import resource
import signal
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Target, execute, seeds_of

SECONDS = 1.0  # that one input may take of the processor
ROOM = 256 << 20  # bytes of addresses that one input, of 64 KiB at most, may take
TEMPORARY = "/dev/shm"


def ending(error: BaseException | None) -> str:
    """How an input ended: where it was refused and in which words, numbers and names aside."""
    if error is None:
        return "sound"
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__} {' '.join(places[-6:])} {re.sub(r'[0-9]+', '0', str(error))[-20:]}"


def run_one(target: Target, data: bytes, folder: Path) -> tuple[str, str | None]:
    """How it ended, and what is wrong with that."""
    begin = time.process_time()
    try:
        error = execute(target, data, folder)
    except (Exception, TooSlowError) as bad:
        return f"bad {ending(bad)}", "".join(traceback.format_exception(bad))
    took = time.process_time() - begin
    if isinstance(error, MemoryError) and "GB" not in str(error):
        return f"bad {ending(error)}", "".join(traceback.format_exception(error))
    return ending(error), f"took {took:.2f} s" if took > SECONDS else None


class TooSlowError(BaseException):
    pass


def too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlowError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    target, rng = TARGETS[args.target], Random(args.seed)
    kept, findings = args.keep / args.target, args.keep / "findings"
    kept.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    pool = seeds_of(args.target) + [file.read_bytes() for file in sorted(kept.iterdir())]
    with tempfile.TemporaryDirectory(dir=TEMPORARY if Path(TEMPORARY).is_dir() else None) as name:
        folder = Path(name)
        target.beside(folder)
        faulthandler.enable(open(findings / f"{args.target}.crash", "w"))  # noqa: SIM115  # stays open
        signal.signal(signal.SIGPROF, too_slow)
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + ROOM, in_use + ROOM))
        seen = {run_one(target, data, folder)[0] for data in pool}
        count, kinds, begin = 0, 0, time.monotonic()
        while time.monotonic() - begin < args.seconds:
            newest = pool[-32:]
            data = mutated(rng.choice(pool if rng.random() < 0.7 else newest), pool, rng, target.shape)
            signal.setitimer(signal.ITIMER_PROF, 3 * SECONDS)
            end, bad = run_one(target, data, folder)
            signal.setitimer(signal.ITIMER_PROF, 0)
            count += 1
            digest = hashlib.sha256(data).hexdigest()[:16]
            if bad is not None and end not in seen:
                kinds += 1
                (findings / f"{args.target}.{digest}").write_bytes(data)
                (findings / f"{args.target}.{digest}.txt").write_text(bad, errors="backslashreplace")
            elif end not in seen:
                pool.append(data)
                (kept / digest).write_bytes(data)
            seen.add(end)
    print(
        json.dumps({"target": args.target, "seed": args.seed, "executions": count, "endings": len(seen), "bad": kinds})
    )


if __name__ == "__main__":
    main()
