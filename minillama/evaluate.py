"""How well a LLaMA predicts a text, and how far other weights are from it:  python -m minillama.evaluate FILE"""

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

from minillama import commands
from minillama.debug.divergence import divergences
from minillama.debug.evaluation import Result, as_object, table
from minillama.debug.perplexity import RECIPES, windows
from minillama.engines import DTYPES, ENGINES, FORMATS, check_engine
from minillama.generate import encode_prompt
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer, tokenizer_place
from minillama.messages import listed
from minillama.shipped import sample_text, tale_model

STORY = "<|story|>"  # stands before each text of the sample
LARGEST = 2048  # context that is taken where none is asked for: a window is read anew for every stride

EXAMPLES = """examples:
  python -m minillama.evaluate
  python -m minillama.evaluate book.txt --weights path/to/llama --context 1024 --stride 512
  python -m minillama.evaluate book.txt --against dtype=q8_0 --against dtype=q4_0 --plot kl.png
  python -m minillama.evaluate book.txt --weights llama --against weights=llama-tuned --json
  cat *.txt | python -m minillama.evaluate - --recipe llama.cpp --context 512
"""


def parser() -> argparse.ArgumentParser:
    p = commands.parser(
        "evaluate",
        "Perplexity and bits a byte of texts, and with --against how far other weights, formats or engines are from "
        "the first: divergence, how often they find the same token likeliest, and how close that was.",
        EXAMPLES,
    )
    p.add_argument("file", nargs="*", metavar="FILE", help="texts, - for standard input (default: a few short tales)")
    p.add_argument("--separator", metavar="LINE", help="a line that stands between texts of a file")

    g = p.add_argument_group("model")
    g.add_argument("--weights", metavar="PATH", help="any checkpoint that generate takes (default: the tale model)")
    g.add_argument("--tokenizer", metavar="PATH", help="tokenizer to use (default: beside the weights)")
    g.add_argument("--engine", choices=ENGINES, default="auto", help="default: auto, the best there is")
    g.add_argument("--dtype", type=lambda name: FORMATS.get(name, name), choices=DTYPES, default="auto",
                   help="number format of the weights (default: auto, the checkpoint's own)")  # fmt: skip
    g.add_argument("--against", action="append", default=[], metavar="SETTING=VALUE,...",
                   help="a second model: the first, with other weights, engine or dtype; may be repeated")  # fmt: skip
    g.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: one a core)")

    g = p.add_argument_group("recipe")
    g.add_argument("--recipe", choices=RECIPES, default="strided", help="default: strided, that of transformers' page")
    g.add_argument(
        "--context", type=int, metavar="N", help=f"tokens of a window (default: the model's, up to {LARGEST})"
    )
    g.add_argument("--stride", type=int, metavar="N", help="tokens from window to window (default: half the context)")

    g = p.add_argument_group("output")
    g.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    g.add_argument(
        "--plot", metavar="FILE", help="draw losses and divergences into this .png or .svg (needs matplotlib)"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. 0: done, 1: it could not be done, 2: wrong usage, 130: interrupted."""
    args = parser().parse_args(argv)
    commands.begin()
    return commands.status_of(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Everything between the arguments and what is printed and drawn."""
    commands.check_paths(args.weights, args.tokenizer, *args.file)
    commands.check_picture(args.plot)
    commands.check_threads(args.threads)
    with commands.limited_threads(args.threads):
        result = evaluate(args)
    print(json.dumps(as_object(result)) if args.json else table(result), flush=True)
    if args.plot:
        from minillama.debug.evaluation_plot import draw

        draw(result, Path(args.plot))


def evaluate(args: argparse.Namespace) -> Result:
    """What is measured."""
    texts = read_texts(args.file, args.separator)
    first = {"weights": args.weights or str(tale_model()), "engine": args.engine, "dtype": args.dtype}
    settings = [first, *(first | parsed(setting) for setting in args.against)]
    for each in settings:
        check_engine(each["engine"], each["dtype"], None)  # before the first is opened, which may take its time
    models = [opened(each, args.threads) for each in settings]
    tokenizer = load_tokenizer(args.tokenizer or tokenizer_place(Path(first["weights"])))
    for model, each in zip(models, settings, strict=True):
        if model.config.vocab_size != models[0].config.vocab_size:
            raise ValueError(
                f"{each['weights']} has a vocabulary of {model.config.vocab_size} tokens and {first['weights']} of "
                f"{models[0].config.vocab_size}: only models of the same vocabulary can be compared"
            )
    room = min(model.config.context_length for model in models)
    context = min(room, LARGEST) if args.context is None else args.context
    if not 2 <= context <= room:
        raise ValueError(f"--context must be between 2 and the {room} tokens the model takes, not {context}")
    stride = args.stride if args.stride is not None else max(context // 2, 2)
    if args.stride is not None and args.recipe == "llama.cpp":
        raise ValueError("--stride is of the recipe strided, and llama.cpp's windows lie side by side: leave it out")
    if not 2 <= stride <= context:
        raise ValueError(f"--stride must be between 2 and the context of {context} tokens, not {stride}")
    if args.recipe == "llama.cpp" and context < 3:
        raise ValueError(f"--context must be 3 or more for llama.cpp's recipe, not {context}")

    rows = [np.array(encode_prompt(tokenizer, text)) for text in texts]
    plans = [windows(args.recipe, len(ids), context, stride) for ids in rows]
    bos = tokenizer.bos_token_id if tokenizer.add_bos_token and args.recipe == "llama.cpp" else None
    said = [each | {"engine": model.engine, "dtype": model.form} for each, model in zip(settings, models, strict=True)]
    recipe = {"recipe": args.recipe, "context": context} | ({"stride": stride} if args.recipe == "strided" else {})
    result = Result([named(each, said) for each in said], said, recipe, len(texts))
    whole = all(sum(w.stop - w.first for w in plan) == len(ids) - 1 for ids, plan in zip(rows, plans, strict=True))
    total = sum(window.stop - window.start for plan in plans for window in plan)
    with tqdm(total=total, unit=" tokens", leave=False, disable=None, file=sys.stderr) as bar:
        for text, ids, plan in zip(texts, rows, plans, strict=True):
            ours, others = divergences(models[0], models[1:], ids, plan, bos, bar.update)
            # Nothing predicts the first token, which is no text where it is the beginning-of-text token
            size = len(text.encode()) - len(tokenizer.decode(ids[:1].tolist(), skip_special_tokens=True).encode())
            result.add(ours, others, size if whole else 0)
    return result


def read_texts(files: Sequence[str], separator: str | None) -> list[str]:
    """The texts to predict. ValueError if there is none."""
    if not files:
        files, separator = [str(sample_text())], separator or STORY
    texts: list[str] = []
    for file in files:
        text = commands.read_text(file).replace("\r\n", "\n")
        parts = [text] if separator is None else f"\n{text}\n".split(f"\n{separator}\n")
        texts += [part.strip("\n") if separator is not None else part for part in parts if part.strip()]
    if not texts:
        names = listed("standard input" if file == "-" else file for file in files)
        raise ValueError(f"{names}: no text to predict: give one of some words")
    return texts


def parsed(setting: str) -> dict[str, str]:
    """`dtype=q8_0,engine=numba` as a dictionary. ValueError for what is none."""
    allowed = {"weights": None, "engine": ENGINES, "dtype": DTYPES}
    found = {}
    for part in setting.split(","):
        name, _, value = part.partition("=")
        value = FORMATS.get(value, value) if name == "dtype" else value
        choices = allowed.get(name)
        if name not in allowed or not value or (choices and value not in choices):
            wanted = f"one of {', '.join(choices)}" if choices else "a path"
            of = f"{name} must be {wanted}" if name in allowed else "it takes weights=PATH, engine=NAME and dtype=NAME"
            raise ValueError(f"--against {setting}: {of}")
        if name in found:
            raise ValueError(f"--against {setting}: {name} is there twice: give each model an --against of its own")
        found[name] = value
    return found


def opened(setting: dict[str, str], threads: int | None) -> LlamaForCausalLM:
    engine, dtype = setting["engine"], setting["dtype"]
    return LlamaForCausalLM.from_pretrained(setting["weights"], engine=engine, dtype=dtype, threads=threads)


def named(setting: dict[str, str], settings: Sequence[dict[str, str]]) -> str:
    """A model by what tells it from the others."""
    differing = [name for name in setting if len({each[name] for each in settings}) > 1] or ["weights"]
    return ", ".join(Path(setting[name]).name if name == "weights" else setting[name] for name in differing)


if __name__ == "__main__":
    commands.end(main)
