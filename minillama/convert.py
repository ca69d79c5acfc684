"""Make a checkpoint of one kind into another:  python -m minillama.convert IN OUT"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until main runs, Ctrl-C ends without a traceback

import argparse
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from minillama import commands
from minillama.checking import check
from minillama.converting import Job, Watch, convert
from minillama.engines import FORMATS
from minillama.messages import printable
from minillama.weights.saving import Progress
from minillama.weights.target import DTYPES

UNNEEDED = ("llama_version", "num_shards", "instruct", "special_tokens")  # of the original script
log = logging.getLogger("minillama")

EXAMPLES = """examples:
  python -m minillama.convert path/to/llama llama-f16 --dtype f16 --max-shard-size 2GB
  python -m minillama.convert path/to/llama llama-q8 --dtype q8_0 --manifest
  python -m minillama.convert --input_dir path/to/downloaded --model_size 7B --output_dir llama-7b
  python -m minillama.convert path/to/llama llama.gguf --dtype q4_0
  python -m minillama.convert --check llama-7b
"""


def parser() -> argparse.ArgumentParser:
    p = commands.parser(
        "convert",
        "Make a LLaMA checkpoint of one kind into another, in memory that does not grow with the model. "
        "What an interrupted run has finished is kept, and the same command goes on from there.",
        EXAMPLES,
        allow_abbrev=False,
    )
    p.add_argument("source", nargs="?", metavar="IN", help="any checkpoint that generate --weights takes")
    p.add_argument(
        "out", nargs="?", metavar="OUT", help="folder, for files as Hugging Face keeps them, or a .gguf file"
    )
    p.add_argument("--check", metavar="PATH", help="write nothing: say whether a checkpoint is sound, or what is not")

    g = p.add_argument_group("what is written")
    g.add_argument(
        "--dtype",
        type=lambda name: FORMATS.get(name, name),
        choices=DTYPES,
        default="auto",
        help="number format (default: auto, each tensor's own); q8_0 and q4_0 as generate --save-quantized has them",
    )
    g.add_argument("--max-shard-size", metavar="SIZE", help="largest file of weights (default: 5GB)")
    g.add_argument("--config", metavar="FILE", help="config.json to use (default: beside the weights)")
    g.add_argument("--tokenizer", metavar="PATH", help="tokenizer to use (default: beside the weights)")
    g.add_argument(
        "--kv-heads",
        type=int,
        metavar="N",
        help="average key/value heads in groups, to N (grouped-query attention)",
    )
    g.add_argument("--lora", action="append", default=[], metavar="PATH", help="LoRA adapter to merge; may be repeated")
    g.add_argument("--manifest", action="store_true", help="write SHA256SUMS too, which sha256sum -c checks")
    g.add_argument("--force", action="store_true", help="replace the checkpoint that is there; other files in OUT stay")

    g = p.add_argument_group("the arguments of transformers' script for Meta's files")
    g.add_argument(
        "--input_dir", metavar="DIR", help="folder with tokenizer.model and, in it or in a subfolder, a model"
    )
    g.add_argument("--model_size", metavar="SIZE", help="name of the subfolder, such as 7B")
    g.add_argument("--output_dir", metavar="DIR", help="OUT")
    g.add_argument("--safe_serialization", nargs="?", const="True", default="True", help=argparse.SUPPRESS)
    for name in UNNEEDED:
        g.add_argument(f"--{name}", nargs="*", help=argparse.SUPPRESS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. 0: done, or sound; 1: it could not be done, or is not sound; 2: wrong usage;
    130: interrupted."""
    p = parser()
    args = p.parse_args(argv)
    on_terminal = commands.begin()

    def work() -> int:
        with terminated_as_interrupted(), tqdm(
            unit="B", unit_scale=True, leave=False, file=sys.stderr, disable=not on_terminal
        ) as bar:  # fmt: skip

            def watch(total: int) -> Progress:
                bar.reset(total)
                return bar.update

            if args.check is not None:
                if not args.check:
                    p.error("a path is empty")
                check_alone(p, args)
                return report(Path(args.check), watch)
            line = convert(job_of(p, args), watch)
        print(line)
        return 0

    return commands.status_of(work)


def check_alone(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with status 2 if --check stands beside an argument that says what is written, or from what."""
    for action in p._actions:
        if action.dest in vars(args) and action.dest != "check" and getattr(args, action.dest) != action.default:
            name = action.option_strings[0] if action.option_strings else action.metavar
            p.error(f"--check PATH writes nothing and takes the files as they are: leave out {name}")


def job_of(p: argparse.ArgumentParser, args: argparse.Namespace) -> Job:
    """What the arguments ask for, in either spelling."""
    source, out, tokenizer = args.source, args.out, args.tokenizer
    if args.input_dir is not None:
        if source is not None:
            p.error("give IN and OUT, or --input_dir and --output_dir")
        folder = Path(args.input_dir)
        source, out = meta_folder(folder, args.model_size), args.output_dir
        if tokenizer is None and source != folder and not (source / "tokenizer.model").exists():
            tokenizer = folder if (folder / "tokenizer.model").exists() else None
    elif args.model_size is not None or args.output_dir is not None:
        p.error("--model_size and --output_dir go with --input_dir: give that, or IN and OUT alone")
    if "" in (source, out, args.config, tokenizer, *args.lora):
        p.error("a path is empty")
    if source is None or out is None:
        p.error("name what to convert and where to: IN OUT, or --input_dir DIR --output_dir DIR")
    if args.safe_serialization.lower() in ("false", "0", "no"):
        raise ValueError("--safe_serialization False would write pickled files, which can hold code: leave it out")
    if args.max_shard_size is not None and Path(out).suffix.lower() == ".gguf":
        raise ValueError("--max-shard-size is for folders, and GGUF is written as one file: leave it out")
    for name in UNNEEDED:
        if getattr(args, name) is not None:
            log.warning("--%s is not needed: the files say it", name)
    return Job(
        source=Path(source),
        out=Path(out),
        dtype=args.dtype,
        max_shard_size="5GB" if args.max_shard_size is None else args.max_shard_size,
        config=Path(args.config) if args.config else None,
        tokenizer=Path(tokenizer) if tokenizer else None,
        kv_heads=args.kv_heads,
        lora=tuple(map(Path, args.lora)),
        manifest=args.manifest,
        force=args.force,
    )


def meta_folder(folder: Path, model_size: str | None) -> Path:
    """Where in a downloaded folder the model is: in the subfolder of its size, or in the folder itself."""
    if model_size is None or not folder.is_dir() or (folder / model_size).is_dir():
        return folder / model_size if model_size else folder
    if (folder / "params.json").exists():
        return folder
    raise FileNotFoundError(f"{folder} has no subfolder {model_size}: name one that is there with --model_size")


def report(place: Path, watch: Watch) -> int:
    """Say whether a checkpoint is sound; the exit status."""
    found = check(place, watch)
    for complaint in found.complaints:
        named = complaint if complaint.startswith(f"{place} ") else f"{place} is not sound: {complaint}"
        print(printable(f"minillama: {named}"), file=sys.stderr)
    if not found.complaints:
        print(f"sound: {found.summary}", flush=True)
    return 1 if found.complaints else 0


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """A request to end, as `kill` sends it, is taken as Ctrl-C, so that what is unfinished is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    commands.end(main)
