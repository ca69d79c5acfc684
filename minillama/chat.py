"""A conversation in the terminal: messages in, answers as they are made, the cache kept from turn to turn."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from typing import Any

from minillama.generation import Continuation, Engine, Sampling, generate
from minillama.generation.prefix import PrefixEngine
from minillama.generation.statistics import TimedEngine
from minillama.messages import printable
from minillama.tokenizer import StreamDecoder, Tokenizer

RESET = "/reset"
_END = "Ctrl-Z and Enter" if sys.platform == "win32" else "Ctrl-D"
WELCOME = f"Ctrl-C stops an answer, {RESET} begins anew, {_END} ends"
STATS = (
    "read: {prompt_tokens} new tokens of {all_tokens}, {prompt_tokens_per_s:.1f} tokens/s; "
    "answer: {decode_tokens} tokens, {decode_tokens_per_s:.1f} tokens/s; "
    "first token after {first_token_s:.2f} s; peak memory {peak_memory_mb:.0f} MB"
)


class Conversation:
    """What has been said, and an engine that holds it: each turn reads only what is new.

    The texts are arranged by the tokenizer's chat template. progress: given the number of tokens to read, shows a bar
    while that takes. All else is as in minillama.generation.generate; each answer draws with a seed of its own.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        sampling: Sampling,
        *,
        system: str | None = None,
        max_new_tokens: int | None = None,
        eos_token_ids: Collection[int] = (),
        stop: Sequence[str] = (),
        seed: int = 0,
        allowed: int | None = None,
        progress: Callable[[int], AbstractContextManager[Any]] = lambda tokens: nullcontext(),
    ):
        self._engine, self._kept = engine, PrefixEngine(engine)
        self.context_length = engine.context_length
        self._tokenizer, self._sampling, self._system = tokenizer, sampling, system
        self._limit, self._eos, self._stop = max_new_tokens, eos_token_ids, stop
        self._seed, self._allowed, self._progress = seed, allowed, progress
        self.reset()
        # A template that cannot be used, or refuses a system message, is told before anything is typed
        tokenizer.apply_chat_template([*self.messages, {"role": "user", "content": "?"}], add_generation_prompt=True)

    def reset(self) -> None:
        """Forget what has been said, the system message aside."""
        self.messages: list[dict[str, str]] = []
        if self._system is not None:
            self.messages.append({"role": "system", "content": self._system})
        self.full = False  # whether the last answer ended where the context did

    def ask(self, text: str) -> Generator[str, None, None]:
        """Say `text`; the answer in pieces. However it ends, what was answered is part of the conversation.

        ValueError, with the conversation as it was before, if there is no room for it.
        """
        begin = time.perf_counter()
        self.messages.append({"role": "user", "content": text})
        results: list[Continuation] = []
        try:
            ids = self._tokenizer.apply_chat_template(self.messages, add_generation_prompt=True)
            room = self.context_length - len(ids) + 1  # the last token is never fed back
            if room < 1:
                raise ValueError(
                    f"with this message the conversation has {len(ids)} tokens and the model's context is "
                    f"{self.context_length}: shorten it, or begin anew with {RESET}"
                )
            limit = room if self._limit is None else min(self._limit, room)
            self._timed, self._all_tokens = TimedEngine(self._engine, begin), len(ids)
            self._kept.engine = self._timed
            pieces = generate(
                self._kept,
                [ids],
                self._sampling,
                max_new_tokens=limit,
                eos_token_ids=self._eos,
                stop=self._stop,
                seed=self._seed + len(self.messages),
                decoders=[StreamDecoder(self._tokenizer, ids)],
                allowed=self._allowed,
                results=results,
            )
            with self._progress(len(ids) - self._kept.common(ids)) as bar:
                for _, piece in pieces:
                    if bar is not None:
                        bar.close()
                    yield piece
            self.full = results[0].finish_reason == "length" and limit == room
        finally:
            if results and results[0].ids:
                self.messages.append({"role": "assistant", "content": results[0].text})
            else:
                self.messages.pop()

    def statistics(self) -> dict[str, float]:
        """Of the last answer, for STATS."""
        return self._timed.statistics() | {"all_tokens": self._all_tokens}


def converse(conversation: Conversation, *, stats: bool = False) -> None:
    """Read messages from standard input, a line each, and print the answers, until the input ends.

    On a terminal an interruption ends the answer, and what goes wrong with one message is said and the next awaited;
    else both end the conversation: KeyboardInterrupt, ValueError.
    """
    if sys.stdin is None:
        raise ValueError("--chat reads standard input, and that is closed")
    terminal = sys.stdin.isatty()
    if terminal:
        with suppress(ImportError):  # not on Windows, where the terminal itself edits lines
            import readline  # noqa: F401
        print(WELCOME, file=sys.stderr)
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig")
    while True:
        try:
            text = _next_message(terminal)
        except EOFError:
            if terminal:
                print(file=sys.stderr)  # the shell's prompt gets a line of its own
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            print(file=sys.stderr)
            continue
        try:
            if text == RESET:
                conversation.reset()
            elif text:
                _answer(conversation, text)
                if stats:
                    print(STATS.format(**conversation.statistics()), file=sys.stderr)
                if conversation.full:
                    _note(f"the context of {conversation.context_length} tokens is full: begin anew with {RESET}")
        except (KeyboardInterrupt, ValueError) as error:
            if not terminal:
                raise
            if isinstance(error, ValueError):
                _note(printable(str(error)))


def _next_message(terminal: bool) -> str:
    """A line without the space around it. EOFError when there are no more."""
    try:
        if terminal and sys.stdout.isatty():
            return input("> ").strip()
        if terminal:  # the answers go elsewhere, the prompt does not
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
    except UnicodeDecodeError:
        raise ValueError("standard input is not UTF-8 text: convert it first") from None
    except OSError as error:
        raise OSError(f"standard input cannot be read: {error.strerror}") from None
    if not line:
        raise EOFError
    return line.strip()


def _answer(conversation: Conversation, text: str) -> None:
    """Print the answer as it comes, without the space before it, and end its line."""
    shown = ""
    with closing(conversation.ask(text)) as pieces:  # an interruption anywhere ends the answer
        try:
            for piece in pieces:
                new = piece if shown else piece.lstrip()
                print(new, end="", flush=True)
                shown += new
        except (KeyboardInterrupt, ValueError) as error:
            if shown or isinstance(error, KeyboardInterrupt):  # else it was refused, and there is no line to end
                print(flush=True)
            raise
    print(end="" if shown.endswith("\n") else "\n", flush=True)


def _note(text: str) -> None:
    print(f"minillama: {text}", file=sys.stderr)
