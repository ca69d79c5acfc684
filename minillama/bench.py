"""Measure the speed of a LLaMA on this machine:  python -m minillama.bench --shape 1.1B --dtype bf16"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minillama import commands
from minillama.benchmarks.ceilings import handover_time, matmul_rate, read_bandwidth
from minillama.benchmarks.contestants import GGUF_PEERS, OURS, PEERS
from minillama.benchmarks.gguf_file import FORMATS
from minillama.benchmarks.measure import CPUS, Figures, Measure, compare, measures, room_for, steps, write_gguf
from minillama.benchmarks.report import Run, as_object, ceilings, heading, table
from minillama.benchmarks.shapes import SHAPES, matrix_parameters, random_checkpoint
from minillama.engines import DTYPES, ENGINES, cores
from minillama.engines import FORMATS as SHORT
from minillama.layout import COMPRESSED
from minillama.messages import listed, shown
from minillama.shipped import tale_model
from minillama.vocabulary import is_gguf
from minillama.weights.checkpoint import Checkpoint, open_checkpoint
from minillama.weights.finding import find_weights
from minillama.weights.mixed import main_format
from minillama.weights.parameters import count
from minillama.weights.saving import main_dtype

PREFILL, DEPTHS, BATCH = (128, 512), (0, 1024, 4096), 8

EXAMPLES = """examples:
  python -m minillama.bench
  python -m minillama.bench --shape 1.1B --dtype float32 --depth 0 1024 --repeats 3
  python -m minillama.bench --weights path/to/llama --peer llama.cpp --peer transformers --work cache --plot roof.png
"""


def parser() -> argparse.ArgumentParser:
    p = commands.parser(
        "bench",
        "Measure how fast a LLaMA runs here, beside how fast this machine reads memory, and beside peers.",
        EXAMPLES,
    )

    g = p.add_argument_group("model")
    which = g.add_mutually_exclusive_group()
    which.add_argument(
        "--weights", metavar="PATH", help="checkpoint folder, .safetensors file or index (default: the tale model)"
    )
    which.add_argument("--shape", choices=SHAPES, help="random weights of a published shape instead, in bfloat16")
    g.add_argument("--engine", choices=[*ENGINES, "none"], default="auto", help="default: auto; none: peers only")
    g.add_argument(
        "--dtype",
        nargs="+",
        type=lambda name: SHORT.get(name, name),
        default=["auto"],
        metavar="DTYPE",
        help=f"one or more of {', '.join(DTYPES)} (default: auto)",
    )
    g.add_argument(
        "--work",
        metavar="DIR",
        help="where files made for this are kept for the next time (default: in a folder that is removed at the end)",
    )

    g = p.add_argument_group("what is measured")
    g.add_argument("--prefill", type=int, nargs="+", metavar="N", help="lengths of prompts (default: 128 512)")
    g.add_argument("--depth", type=int, nargs="+", metavar="N", help="tokens before those decoded (0 1024 4096)")
    g.add_argument("--batch", type=int, default=BATCH, metavar="N", help="sequences decoded together (8; 0: none)")
    g.add_argument("--repeats", type=int, default=5, metavar="N", help="of everything (default: 5)")
    g.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    g.add_argument(
        "--cpu",
        choices=CPUS,
        default="host",
        help="avx2: compile our kernels as for a CPU without AVX-512; peers run as they were built",
    )
    g.add_argument(
        "--peer",
        action="append",
        choices=PEERS,
        default=[],
        help="the same weights with another program, in alternation; may be repeated",
    )

    g = p.add_argument_group("output")
    g.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    g.add_argument("--plot", metavar="FILE", help="draw a roofline into this .png or .svg (needs matplotlib)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. 0: done, 1: it could not be done, 2: wrong usage, 130: interrupted."""
    args = parser().parse_args(argv)
    logging.basicConfig(format="minillama: %(message)s", level=logging.WARNING)

    def work() -> None:
        check(args)
        with ExitStack() as stack:
            folder = Path(args.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="minillama-bench-")))
            measured = run(args, folder)
        if args.json:
            print(json.dumps(as_object(measured)))
        if args.plot:
            from minillama.benchmarks.roofline import draw

            draw(measured, Path(args.plot))

    return commands.status_of(work)


def check(args: argparse.Namespace) -> None:
    """ValueError for arguments that make no sense, before anything is written or measured."""
    least = {"prefill": 1, "depth": 0, "batch": 0, "repeats": 1, "threads": 1}
    for name, bound in least.items():
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [] if given is None else [given]:
            if value < bound:
                raise ValueError(f"--{name} must be at least {bound}, not {value}")
    known = (*DTYPES, *(FORMATS if args.engine == "none" else ()))
    for dtype in args.dtype:
        if dtype not in known:
            raise ValueError(f"--dtype must be of {listed(dict.fromkeys(known))}, not {shown(dtype)}")
        for peer in GGUF_PEERS:
            if peer in args.peer and dtype not in (*FORMATS, COMPRESSED, "auto"):
                raise ValueError(f"--peer {peer} computes in one of {', '.join(FORMATS)}: leave out --dtype {dtype}")
    if args.engine == "none" and not args.peer:
        raise ValueError("--engine none measures peers only: name one with --peer")
    commands.check_picture(args.plot)


def run(args: argparse.Namespace, work: Path) -> Run:
    """Make what is missing, and measure. Without --json the table of each format is printed when it is complete."""

    def show(some: Iterable[str]) -> None:
        if not args.json:
            print(*some, sep="\n", flush=True)

    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"--work {work} cannot be made: {error.strerror}") from None
    context = SHAPES[args.shape].context_length if args.shape else None
    plan = chosen(args, context) if context else []  # what is too long is said before gigabytes are written
    path = random_checkpoint(args.shape, work) if args.shape else Path(args.weights or tale_model())
    checkpoint = open_checkpoint(path)
    plan = plan or chosen(args, checkpoint.config.context_length)
    threads = args.threads or cores()
    names = ([] if args.engine == "none" else [OURS]) + list(dict.fromkeys(args.peer))
    dtypes = list(dict.fromkeys(args.dtype))
    matrices = sum(matrix_parameters(checkpoint.config))
    measured = Run(
        model=args.shape or str(args.weights or "tale model"),
        cpu=args.cpu,
        config=checkpoint.config,
        parameters=count(checkpoint.tensors),
        threads=threads,
        repeats=args.repeats,
        plan=plan,
        memory_gb_s=read_bandwidth(threads, args.repeats),
        handover_ns=handover_time(threads, args.repeats),
        matmul_gflop_s=matmul_rate(threads, args.repeats),
        figures=[],
    )
    show(heading(measured))
    total = len(dtypes) * steps(len(names), plan, args.repeats)
    with tqdm(
        total=total, leave=False, disable=not sys.stderr.isatty(), bar_format="{percentage:3.0f} % {desc}"
    ) as bar:

        def step(what: str) -> None:
            bar.set_description_str(what)
            bar.update()

        for dtype in dtypes:
            contestants = {name: opened(name, path, dtype, args.engine, checkpoint, work, threads) for name in names}
            group = {name: Figures(name, dtype, matrices) for name in names}
            compare(contestants, group, plan, args.repeats, threads, step, args.cpu)
            measured.figures.append(list(group.values()))
            # Both change while others use the machine, and when its host moves a core
            measured.memory_gb_s += read_bandwidth(threads, args.repeats)
            measured.handover_ns += handover_time(threads, args.repeats)
            with bar.external_write_mode(file=sys.stdout):
                show(table(measured, group.values()))
    show(["", *ceilings(measured)])
    return measured


def chosen(args: argparse.Namespace, context: int) -> list[Measure]:
    """What to measure: what was asked for, or of the defaults what the context has room for."""
    longest = max([*(args.prefill or []), *(room_for(depth) for depth in args.depth or [])], default=0)
    if longest > context:
        raise ValueError(f"the context of {context} tokens has no room for {longest}: lower --prefill or --depth")
    prefill = args.prefill or [n for n in PREFILL if n <= context] or [context]
    depths = args.depth or [depth for depth in DEPTHS if room_for(depth) <= context]
    return measures(prefill, depths, args.batch if room_for(0) <= context else 0)


def opened(
    name: str, path: Path, dtype: str, engine: str, checkpoint: Checkpoint, work: Path, threads: int
) -> dict[str, Any]:
    """What a worker needs to open this contestant's model."""
    if name in GGUF_PEERS and dtype == "auto" and is_gguf(weights := find_weights(path)):
        path, dtype = weights, main_format(checkpoint.tensors).lower()  # the very file
    elif name in GGUF_PEERS:
        dtype = {"auto": stored(checkpoint), COMPRESSED: "bf16"}.get(dtype, dtype)  # the same numbers
        path = write_gguf(name, path, dtype, work, threads)
    elif name == "transformers":
        path = checkpoint.folder
    shared = {"path": str(path), "dtype": dtype, "engine": engine}
    return shared | {"vocab_size": checkpoint.config.vocab_size}


def stored(checkpoint: Checkpoint) -> str:
    """The format that the checkpoint's own numbers have."""
    return SHORT[main_dtype(checkpoint.tensors)]


if __name__ == "__main__":
    commands.end(main)
