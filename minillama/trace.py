"""Every intermediate of a forward pass, in a file:  python -m minillama.trace --prompt TEXT --out FILE"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until main runs, Ctrl-C ends without a traceback

import argparse
import logging
import math
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minillama import commands
from minillama.arrays import check_ids
from minillama.debug.names import check_patterns, in_order, is_chosen, is_shown, prefix, shape, sizes
from minillama.debug.traces import Trace, itemsize
from minillama.engines import FORMATS
from minillama.files import write_files
from minillama.generate import encode_prompt
from minillama.generation.loop import room_after
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer, tokenizer_place
from minillama.messages import shown
from minillama.shipped import tale_model
from minillama.weights.filling import Filling

MOST = 1_000_000  # numbers that N-M may stand for
log = logging.getLogger("minillama")

EXAMPLES = """examples:
  python -m minillama.trace --prompt "The fox said" --out trace.safetensors
  python -m minillama.trace --weights path/to/llama --ids 1,450,4996 --dtype f64 --out trace.safetensors
  python -m minillama.trace --prompt "The fox said" --layers 0,5 --names "q_*" "mlp.*" --out some.safetensors
  python -m minillama.trace --prompt "The fox said" --steps 0,1,8 --out decoding.safetensors
  python -m minillama.trace --weights path/to/llama --prompt "The fox said" --list
"""


def parser() -> argparse.ArgumentParser:
    p = commands.parser(
        "trace",
        "Write every intermediate of a forward pass, as the NumPy engine computes it, into a safetensors file under "
        "the names of docs/notation.md, for minillama.compare or for whatever reads such files.",
        EXAMPLES,
    )
    p.add_argument("--weights", metavar="PATH", help="any checkpoint that generate takes (default: the tale model)")
    p.add_argument("--tokenizer", metavar="PATH", help="tokenizer to use (default: beside the weights)")
    g = p.add_mutually_exclusive_group(required=True)
    g.add_argument("--prompt", metavar="TEXT", help="text to run, - for standard input")
    g.add_argument("--ids", type=numbers, metavar="N,N,...", help="token ids to run; no tokenizer is needed")

    p.add_argument("--dtype", type=lambda name: FORMATS.get(name, name), choices=("f32", "f64"), default="f32",
                   help="what to compute in and to write (default: f32); f64 is the oracle")  # fmt: skip
    p.add_argument("--names", nargs="+", default=["*"], metavar="PATTERN", help="which intermediates (default: all)")
    p.add_argument("--layers", type=numbers, metavar="N,N-M,...", help="which layers (default: all)")
    p.add_argument("--steps", type=numbers, default=[0], metavar="N,N-M,...",
                   help="which passes: 0 the prompt (default), N the Nth token after it, chosen greedily")  # fmt: skip
    p.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: one a core)")
    g = p.add_mutually_exclusive_group(required=True)
    g.add_argument("--out", metavar="FILE", help="file to write")
    g.add_argument("--list", action="store_true", help="print names, shapes and bytes, and write nothing")
    return p


def numbers(text: str) -> list[int]:
    """`0,4-6` as [0, 4, 5, 6]. ArgumentTypeError for anything else."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            run_of = range(int(first), int(last if dash else first) + 1)
            if not 0 < len(run_of) <= MOST or run_of[0] < 0:
                raise ValueError
            found += run_of
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"it takes whole numbers and ranges such as 0,4-6, not {shown(text)}"
        ) from None
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. 0: done, 1: it could not be done, 2: wrong usage, 130: interrupted."""
    args = parser().parse_args(argv)
    commands.begin()
    return commands.status_of(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Everything between the arguments and the file."""
    commands.check_paths(args.weights, args.tokenizer, args.out)
    commands.check_threads(args.threads)
    if args.out and args.out.endswith((".npz", ".npy")):
        raise ValueError(f"--out writes a .safetensors file, not {shown(args.out)}")
    with commands.limited_threads(args.threads):
        trace(args)


def trace(args: argparse.Namespace) -> None:
    """Run the model and write what it computes, or list what that would be."""
    weights = Path(args.weights or tale_model())
    model = LlamaForCausalLM.from_pretrained(weights, engine="numpy", dtype=args.dtype)
    ids = args.ids or read_prompt(args, weights)
    check_ids("--ids", np.array(ids), model.config.vocab_size)
    room_after(ids, model.config.context_length, max(args.steps))
    made = Trace({}, [np.array([ids])], model.config, os.path.abspath(weights), args.names)
    plan = planned(made, args.layers, args.steps)
    form = {"f32": "F32", "f64": "F64"}[args.dtype]
    size = sum(math.prod(sides) for sides in plan.values()) * itemsize(form)
    if args.list:
        for name, sides in plan.items():
            print(name, "x".join(map(str, sides)), math.prod(sides) * itemsize(form), sep="\t")
        return
    out = Path(args.out)
    log.info("%s: %d tensors, %.1f MB", out, len(plan), size / 1e6)
    if out.parent.is_dir() and size > (free := shutil.disk_usage(out.parent).free):
        raise OSError(
            f"{out} would have {size / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free there: choose --names or --layers"
        )
    write_files({out: partial(write, model, made, plan, form)}, synced=False)


def read_prompt(args: argparse.Namespace, weights: Path) -> list[int]:
    """The ids of the prompt."""
    text = commands.read_text("-", "--prompt -") if args.prompt == "-" else args.prompt
    return encode_prompt(load_tokenizer(args.tokenizer or tokenizer_place(weights)), text)


def planned(trace: Trace, layers: Sequence[int] | None, steps: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of what a trace is to hold, in the order they are computed. ValueError if it is nothing."""
    config, tokens = trace.config, trace.input_ids[0].shape[1]
    assert config is not None
    check_patterns(trace.names, config.num_hidden_layers)
    if layers is not None and max(layers) >= config.num_hidden_layers:
        raise ValueError(f"--layers has {max(layers)}, and the model's layers are 0..{config.num_hidden_layers - 1}")
    plan = {}
    for where in in_order(config.num_hidden_layers, sorted(set(steps))):
        if is_chosen(where, trace.names, layers) and is_shown(where, config.rope_type):
            T = tokens if where.step == 0 else 1
            plan[where.name] = shape(where.local, sizes(config) | {"B": 1, "T": T, "S": tokens + where.step})
    if not plan:
        raise ValueError("--names and --layers choose nothing: take others")
    return plan


def write(model: LlamaForCausalLM, trace: Trace, plan: dict[str, tuple[int, ...]], form: str, out: BinaryIO) -> None:
    """Run the prompt and as many tokens after it as are asked for, and write what is planned as it comes."""
    last = max(int(name.split(".")[1]) if name.startswith("step.") else 0 for name in plan)
    width = len(str(trace.input_ids[0].tolist())) + (last + 1) * (len(str(model.config.vocab_size)) + 8)
    filling = Filling(out, plan, form, trace.metadata(width))
    past: Any = None
    for step in range(last + 1):
        start = prefix(step)

        def tap(name: str, array: Any, start: str = start) -> None:
            if start + name in plan:
                filling.put(start + name, array)

        answer = model(trace.input_ids[step], past_key_values=past, use_cache=True, tap=tap)
        past = answer.past_key_values
        if step < last:
            trace.input_ids.append(answer.logits[:, -1].argmax(axis=-1)[:, None])
    filling.finish(trace.metadata(width))


if __name__ == "__main__":
    commands.end(main)
