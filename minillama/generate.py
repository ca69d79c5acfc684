"""Continue a text with a LLaMA:  python -m minillama.generate --prompt "Once upon a time" """

from __future__ import annotations

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until main runs, Ctrl-C ends without a traceback

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minillama import commands, engines
from minillama.chat import Conversation, converse
from minillama.compat import COMPAT
from minillama.config import LlamaConfig
from minillama.converting import occupants
from minillama.engines import CACHE_DTYPES, DTYPES, ENGINES, FORMATS
from minillama.generation import Continuation, GenerationConfig, Sampling, generate
from minillama.generation.loop import room_after
from minillama.generation.statistics import STATS, TimedEngine
from minillama.layout import COMPRESSED, MADE, PACKED
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer, tokenizer_place, write_tokenizer
from minillama.model.engine import CHUNK
from minillama.shipped import tale_model
from minillama.tokenizer import StreamDecoder, Tokenizer

PROMPT, NEW_TOKENS = "Once upon a time", 256
SAMPLING = {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.0}
# What is not finite is said once, when a token is to be chosen, not by NumPy on the way there
QUIET: dict[str, Any] = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}
SLOW_TO_READ = 500e6  # bytes of weights from which reading them is worth a progress bar
SLOW_TO_COMPUTE = 2e11  # products, for the compiled engine: a second or two

EXAMPLES = """examples:
  python -m minillama.generate
  python -m minillama.generate --prompt "The fox said" --temperature 0 --max-new-tokens 100
  python -m minillama.generate --weights path/to/llama --prompt-file question.txt --stats
  echo "Long ago" | python -m minillama.generate --prompt - --json
  python -m minillama.generate --weights path/to/llama-chat --chat --system "Be brief."
"""


def parser() -> argparse.ArgumentParser:
    p = commands.parser(
        "generate", "Continue a text with a LLaMA. Text goes to standard output as it is made.", EXAMPLES
    )

    g = p.add_argument_group("model")
    g.add_argument(
        "--weights",
        metavar="PATH",
        help="checkpoint folder, or a file of weights: .safetensors, .gguf, .pth, llama2.c's .bin (default: the tale "
        "model that comes with minillama)",
    )
    g.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="tokenizer.json, tokenizer.model, .gguf file, llama2.c's tokenizer.bin, or a folder with one "
        "(default: with the weights)",
    )
    g.add_argument("--config", metavar="FILE", help="config.json to use (default: beside the weights)")
    g.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="PATH",
        help="LoRA adapter to merge: a folder as peft saves it, or a .gguf file; may be repeated",
    )
    g.add_argument("--engine", choices=ENGINES, default="auto", help="default: auto, the best there is")
    g.add_argument(
        "--dtype",
        type=lambda name: FORMATS.get(name, name),
        choices=DTYPES,
        default="auto",
        help="number format of the weights; auto: the checkpoint's own, or a smaller one if memory is short (engine "
        "numba), f32 (engine numpy, which computes in f32 and f64 only)",
    )
    g.add_argument(
        "--cache-dtype",
        type=lambda name: FORMATS.get(name, name),
        choices=CACHE_DTYPES,
        default="auto",
        help="number format of the cached keys and values (engine numba); auto: f16, or f32 for a small model",
    )
    g.add_argument(
        "--compat",
        choices=[mode for mode in COMPAT if mode],
        help="as transformers 4 or 5 where minillama differs (docs/differences.md)",
    )
    g.add_argument(
        "--save-quantized",
        metavar="DIR",
        help="with --dtype bf16z, q8_0 or q4_0: keep what is made of the weights in a folder, which then opens at once",
    )
    g.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: one a core)")

    g = p.add_argument_group("text")
    g.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help=f"text to continue, - for standard input; may be repeated (default: {PROMPT!r})",
    )
    g.add_argument(
        "--prompt-file",
        action="append",
        metavar="FILE",
        help="file with a text to continue; may be repeated. One newline at the end does not count",
    )
    g.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help=f"default: {NEW_TOKENS}, or fewer where the context has no room; with --chat, what it has room for",
    )
    g.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated")

    g = p.add_argument_group("conversation")
    g.add_argument(
        "--chat",
        action="store_true",
        help="talk with a model made for it: a message a line from standard input, by the checkpoint's chat template",
    )
    g.add_argument("--system", metavar="TEXT", help="with --chat: what the model is told before the conversation")

    g = p.add_argument_group(
        "sampling",
        "Defaults are those of the checkpoint's generation_config.json; for what it does not say, those given here.",
    )
    g.add_argument("--temperature", type=float, metavar="X", help="0 takes the likeliest token each time (0.8)")
    g.add_argument("--top-k", type=int, metavar="K", help="choose among the K likeliest (0, off)")
    g.add_argument("--top-p", type=float, metavar="P", help="choose among the likeliest that together reach P (0.95)")
    g.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="choose among those at least P times as likely as the likeliest (0, off)",
    )
    g.add_argument(
        "--repetition-penalty", type=float, metavar="X", help="above 1 makes what has been said less likely (1, off)"
    )
    g.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same text (default: 0)")

    g = p.add_argument_group("output")
    g.add_argument("--no-echo", action="store_true", help="print what is new only, not the prompt before it")
    g.add_argument("--json", action="store_true", help="print one JSON object a prompt, when all are done")
    g.add_argument(
        "--stats", action="store_true", help="print speed and memory to standard error (with --json: into it)"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. 0: done, 1: it could not be done, 2: wrong usage, 130: interrupted."""
    args = parser().parse_args(argv)
    commands.begin()
    return commands.status_of(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Everything between the arguments and the printed text; the exit status."""
    begin = time.perf_counter()
    given = {name: getattr(args, name) for name in SAMPLING if getattr(args, name) is not None}
    Sampling(**SAMPLING | given)  # what is wrong with the arguments is said before anything is read
    commands.check_threads(args.threads)
    if args.seed < 0:
        raise ValueError(f"--seed must be 0 or more, not {args.seed}")
    if args.chat and (args.prompt or args.prompt_file or args.json or args.no_echo):
        raise ValueError(
            "--chat takes its messages from standard input and prints the answers: "
            "leave out --prompt, --prompt-file, --json and --no-echo"
        )
    if args.system is not None and not args.chat:
        raise ValueError("--system is said before a conversation: give --chat with it")
    prompts = [] if args.chat else list(read_prompts(args.prompt or [], args.prompt_file or []))

    commands.check_paths(args.weights, args.tokenizer, args.config, args.save_quantized, *args.lora)
    weights = Path(args.weights) if args.weights else tale_model()
    if args.save_quantized:
        check_empty(Path(args.save_quantized))
    model = open_model(args, weights)
    folder = weights if weights.is_dir() else weights.parent
    vocabulary = Path(args.tokenizer) if args.tokenizer else tokenizer_place(weights)
    tokenizer = load_tokenizer(vocabulary)
    if args.save_quantized:
        save_quantized(model, Path(args.save_quantized))
        write_tokenizer(tokenizer, vocabulary, Path(args.save_quantized))
    sampling = Sampling(**sampling_settings(model.generation_config, folder) | given)
    allowed = usable_ids(tokenizer, model.config, vocabulary)
    eos = end_ids(model, tokenizer)
    if args.chat:
        chat(args, model, tokenizer, sampling, eos, allowed)
        return 0
    rows = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    limits = [args.max_new_tokens] * len(rows)
    if args.max_new_tokens is None:
        limits = [min(NEW_TOKENS, room_after(row, model.config.context_length, None)) for row in rows]

    engine = TimedEngine(model.new_engine(), begin)
    results: list[Continuation] = []
    pieces = generate(
        engine,
        rows,
        sampling,
        max_new_tokens=limits,
        eos_token_ids=eos,
        stop=args.stop,
        seed=args.seed,
        decoders=[StreamDecoder(tokenizer, row) for row in rows],
        allowed=allowed,
        results=results,
    )
    lengths = [len(row) for row in rows]
    status = 0
    try:
        with commands.limited_threads(args.threads), np.errstate(**QUIET), progress_bar(model, lengths) as bar:
            if args.json:
                for _ in pieces:
                    bar.close()
            else:
                print_streaming(pieces, results, prompts if not args.no_echo else [""] * len(prompts), bar)
    except KeyboardInterrupt:  # what there is counts: a finish_reason of null says that it was cut off
        status = 130
    stats = engine.statistics()
    if args.json:
        for prompt, row, result in zip(prompts, rows, results, strict=True):
            answer: dict[str, Any] = {"prompt": prompt, "prompt_ids": row, "text": result.text, "ids": result.ids}
            answer |= {"finish_reason": result.finish_reason, "seed": args.seed}
            print(json.dumps(answer | ({"stats": stats} if args.stats else {}), ensure_ascii=False))
    elif args.stats:
        print(STATS.format(**stats), file=sys.stderr)
    return status


def open_model(args: argparse.Namespace, weights: Path) -> LlamaForCausalLM:
    """The model as the arguments want it. Engine auto takes the kernels for a small one too if they are compiled."""
    how: dict[str, Any] = {name: getattr(args, name) for name in ("config", "lora", "dtype", "compat", "threads")}
    how["cache_dtype"] = args.cache_dtype
    model = LlamaForCausalLM.from_pretrained(weights, engine=args.engine, **how)
    left_open = (args.engine, args.dtype, args.compat) == ("auto", "auto", None)
    if left_open and model.engine == "numpy" and engines.maybe_compiled():
        log = logging.getLogger("minillama")
        log.disabled = True  # what there is to say of these weights has been said
        try:
            fast = LlamaForCausalLM.from_pretrained(weights, engine="numba", **how)
            model = fast if fast.compiled else model
        except Exception:  # they would only be faster
            trouble = engines.kernels_trouble()
        else:
            trouble = None
        finally:
            log.disabled = False
        if trouble:
            log.info("engine numpy runs: %s", trouble)
    return model


def chat(
    args: argparse.Namespace,
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    sampling: Sampling,
    eos: Sequence[int],
    allowed: int | None,
) -> None:
    """Talk until standard input ends."""
    if args.max_new_tokens is not None and args.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens must be at least 1 with --chat, not {args.max_new_tokens}")
    conversation = Conversation(
        model.new_engine(),
        tokenizer,
        sampling,
        system=args.system,
        max_new_tokens=args.max_new_tokens,
        eos_token_ids={*eos, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])},
        stop=args.stop,
        seed=args.seed,
        allowed=allowed,
        progress=lambda tokens: progress_bar(model, [tokens]),
    )
    if tokenizer.chat_template is None:
        logging.getLogger("minillama").warning(
            "the checkpoint has no chat template, so that of Llama 2 is used: a model that was not trained with it "
            "does not answer, it only goes on"
        )
    with commands.limited_threads(args.threads), np.errstate(**QUIET):
        converse(conversation, stats=args.stats)


def check_empty(to: Path) -> None:
    """ValueError if a checkpoint would be written over."""
    if to.exists() and not to.is_dir():
        raise ValueError(f"--save-quantized {to} is a file: name a folder")
    if there := occupants(to):
        raise ValueError(f"--save-quantized {to} has a checkpoint already ({there[0]}): name another folder")


def save_quantized(model: LlamaForCausalLM, to: Path) -> None:
    """Keep a packed model in a folder that can be opened as any checkpoint."""
    if model.form not in PACKED:
        raise ValueError(
            f"--save-quantized keeps {COMPRESSED}, {' or '.join(MADE)}, and the weights are in {model.form}: "
            "add --dtype q8_0"
        )
    model.save_pretrained(to)


def read_prompts(prompts: Sequence[str], files: Sequence[str]) -> Iterator[str]:
    """The texts to continue: those given, `-` meaning standard input, then those in files."""
    for prompt in prompts if prompts or files else [PROMPT]:
        yield _without_last_newline(commands.read_text("-", "--prompt -")) if prompt == "-" else prompt
    for file in files:
        yield _without_last_newline(commands.read_text(file))


def _without_last_newline(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt, an end-of-text that the tokenizer puts behind it and a doubled beginning taken off."""
    ids = tokenizer.encode(prompt)
    if tokenizer.add_eos_token and ids[-1:] == [tokenizer.eos_token_id]:
        ids = ids[:-1]
    bos = tokenizer.bos_token_id
    return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids


def usable_ids(tokenizer: Tokenizer, config: LlamaConfig, where: object) -> int | None:
    """How many ids have both text and a row of weights. ValueError if the tokenizer is another model's."""
    size, rows = len(tokenizer), config.vocab_size
    text_ids = set(tokenizer.vocab.values()) - set(tokenizer.all_special_ids)
    if max(text_ids, default=0) >= rows:
        raise ValueError(
            f"the tokenizer in {where} has {size} tokens and the model only {rows}: "
            "name the model's own with --tokenizer"
        )
    if size < rows:
        logging.getLogger("minillama").warning(
            "the model has %d tokens and the tokenizer in %s only %d: those without text are never chosen",
            rows,
            where,
            size,
        )
        return size
    return None


def sampling_settings(stated: GenerationConfig, folder: Path) -> dict[str, float]:
    """How to sample as the checkpoint asks for it; what it does not say is as in SAMPLING."""
    fields = stated.to_dict()
    sampling = SAMPLING | {name: fields[name] for name in SAMPLING if name in fields}
    if fields.get("do_sample") is False:
        sampling["temperature"] = 0
    try:
        Sampling(**sampling)
    except ValueError as error:
        raise ValueError(f"{folder / 'generation_config.json'}: {error}") from None
    return sampling


def end_ids(model: LlamaForCausalLM, tokenizer: Tokenizer) -> list[int]:
    """The ids that end a text: those of generation_config.json, else of the config, else of the tokenizer."""
    stated = model.generation_config.eos_token_id
    ids = stated if isinstance(stated, list) else [] if stated is None else [stated]
    of_tokenizer = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return ids or list(model.config.eos_token_ids) or of_tokenizer


def print_streaming(
    pieces: Iterator[tuple[int, str]], results: list[Continuation], prompts: Sequence[str], bar: Any
) -> None:
    """Print every prompt with its continuation, in order and a line `---` between two; the first that is not yet
    finished as it comes, later ones when it is their turn."""
    current, shown = -1, 0  # the text being printed, and how many of its new characters are

    def show(number: int) -> None:
        nonlocal current, shown
        bar.close()
        while current < number:
            if current >= 0:  # the text before is complete
                finish()
                print("---")
            current, shown = current + 1, 0
            print(prompts[current], end="")
        print(results[current].text[shown:], end="", flush=True)
        shown = len(results[current].text)

    def finish() -> None:
        print(results[current].text[shown:], end="")
        text = prompts[current] + results[current].text
        print(end="" if text.endswith("\n") else "\n", flush=True)

    def show_all() -> None:
        show(len(prompts) - 1)
        finish()

    if bar.disable:  # else the prompt waits for the bar to go away
        show(0)
    try:
        for _ in pieces:
            ahead = max(current, 0)
            while ahead + 1 < len(prompts) and results[ahead].finish_reason is not None:
                ahead += 1
            show(ahead)
    except ValueError:
        print(flush=True)  # what went wrong is then said on a line of its own
        raise
    except KeyboardInterrupt:
        show_all()
        raise
    show_all()


@contextmanager
def progress_bar(model: LlamaForCausalLM, lengths: Sequence[int]) -> Iterator[Any]:
    """A bar for reading prompts of these lengths, on a terminal and where it takes a while only; close() ends it."""
    if model.engine == "numpy":  # every pass reads all weights
        unit, total = "B", math.ceil(max(lengths) / CHUNK) * model.weights.pass_size
        slow = total >= SLOW_TO_READ
    else:
        unit, total = " tokens", sum(lengths)
        slow = total * model.num_parameters() >= SLOW_TO_COMPUTE
    bar = tqdm(
        total=total,
        unit=unit,
        unit_scale=True,
        desc="reading the prompt",
        leave=False,
        file=sys.stderr,
        disable=not sys.stderr.isatty() or not slow,
    )
    model.watch(bar.update)
    try:
        yield bar
    finally:
        model.watch(None)
        bar.close()


if __name__ == "__main__":
    commands.end(main)
