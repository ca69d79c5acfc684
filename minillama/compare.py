"""Where two implementations part, and why:  python -m minillama.compare OURS THEIRS"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until main runs, Ctrl-C ends without a traceback

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

import minillama
from minillama import commands
from minillama.config import LlamaConfig
from minillama.debug.comparison import Comparison, as_object, compare
from minillama.debug.diagnosis import diagnose, follows
from minillama.debug.dumps import open_dump
from minillama.debug.mapping import SHIPPED, mapped, read_mapping
from minillama.debug.names import place
from minillama.debug.report import table
from minillama.debug.traces import Trace
from minillama.messages import shown
from minillama.weights import Parameters, open_checkpoint

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
         "head_dim", "vocab_size")  # fmt: skip
EXAMPLES = """examples:
  python -m minillama.compare trace.safetensors theirs.safetensors
  python -m minillama.compare trace.safetensors dump.npz --map transformers
  python -m minillama.compare trace.safetensors folder-of-npy --map mine.toml --rtol 1e-3
  python -m minillama.compare trace.safetensors theirs.safetensors --weights path/to/llama --json
  python -m minillama.compare trace.safetensors dump --map llama2c --html report.html
"""


def parser() -> argparse.ArgumentParser:
    p = commands.parser(
        "compare",
        "Compare a trace with another, or with another implementation's dump: how far they are apart from the "
        "embedding to the logits, where they part first, and what explains it.",
        EXAMPLES,
    )
    p.add_argument("ours", metavar="OURS", help="the reference: what minillama.trace has written")
    p.add_argument("theirs", metavar="THEIRS", help="a trace, a .safetensors or .npz file, or a folder of .npy files")
    p.add_argument("--map", metavar="NAME", help=f"whose names THEIRS has: {', '.join(SHIPPED)}, or a file of rules "
                   "(default: ours; see docs/debugging.md)")  # fmt: skip
    p.add_argument("--weights", metavar="PATH", help="checkpoint of both (default: what the trace says)")
    p.add_argument("--rtol", type=positive, metavar="X",
                   help="allowed error as a share of the numbers (default: by their format)")  # fmt: skip
    p.add_argument("--atol", type=positive, metavar="X", help="allowed error besides (default: by their format)")
    p.add_argument("--all", action="store_true", help="every intermediate, not only those that tell most")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    p.add_argument("--html", metavar="FILE", help="write a page with pictures into this .html, for a browser")
    return p


def positive(text: str) -> float:
    """A number of 0 or more. ArgumentTypeError for another."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"it takes a number of 0 or more, not {shown(text)}")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. 0: equal, 1: different, 2: it could not be compared, or wrong usage, 130:
    interrupted."""
    args = parser().parse_args(argv)
    commands.begin()

    def work() -> int:
        result = run(args)
        if args.html:
            from minillama.debug.page import write_page  # Jinja takes a while, which others need not wait

            write_page(result, Path(args.html), minillama.__version__)
        print(json.dumps(as_object(result)) if args.json else table(result, args.all), flush=True)
        return 0 if result.equal else 1

    return commands.status_of(work, failed=2)


def run(args: argparse.Namespace) -> Comparison:
    """Everything between the arguments and the printed report."""
    commands.check_paths(args.ours, args.theirs, args.map, args.weights, args.html)
    if args.html is not None:
        commands.check_output("--html", args.html, (".html",))
    ours = open_dump(args.ours)
    theirs = open_dump(args.theirs)
    if args.map is not None or (theirs.config is None and ours.config is not None):  # a trace has our axes already
        tokens = ours.input_ids[0].shape[1] if ours.input_ids else None
        rules = [] if args.map is None else read_mapping(args.map)
        theirs = mapped(theirs, rules, config_of(ours), tokens)
    result = compare(ours, theirs, args.rtol, args.atol)
    if result.first is not None:
        explain(result, args.weights)
    return result


def explain(result: Comparison, weights: str | None) -> None:
    """Add what explains the first divergence, or why that cannot be looked for."""
    source, path = result.a.source, weights or result.a.weights
    if path is None or not says_ids(result):
        result.unexplained = f"{source} does not say " + ("its ids" if path else "its weights: name --weights")
        return
    try:
        parameters, config = weights_of(result.a, path)
    except (OSError, ValueError) as error:
        if weights is not None:
            raise
        result.unexplained = f"{error}; or name --weights"
        return
    if not follows(result, parameters, config):
        result.unexplained = (
            f"{source} is not what {path} makes of its ids: name the weights it was made with, in the same format, "
            "and trace plain rows without padding"
        )
        return
    with tqdm(unit=" hypotheses", leave=False, disable=None, file=sys.stderr) as bar:
        result.findings = diagnose(result, parameters, config, bar.update)


def says_ids(result: Comparison) -> bool:
    """Whether the reference says the ids of all calls up to the first divergence."""
    where = None if result.first is None else place(result.first.name)
    return where is not None and len(result.a.input_ids) > where.step


def weights_of(trace: Trace, path: str) -> tuple[Parameters, LlamaConfig]:
    """What a trace was computed from. ValueError or OSError if the checkpoint cannot be it."""
    checkpoint = open_checkpoint(path)
    config = trace.config or checkpoint.config
    for field in SIZES:
        if getattr(config, field) != getattr(checkpoint.config, field):
            raise ValueError(f"{path} is not the model of {trace.source}: its {field} is another")
    return Parameters(checkpoint.tensors, config, np.float64), config


def config_of(trace: Trace) -> LlamaConfig:
    """The config that a trace has. ValueError if it has none."""
    if trace.config is None:
        raise ValueError(f"{trace.source} says no config, which a mapping needs: make it with minillama.trace")
    return trace.config


if __name__ == "__main__":
    commands.end(main)
