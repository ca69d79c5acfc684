"""The generation loop: prefill the prompts, then choose, show and feed back one token at a time.

`drive` is the loop; `generate` makes text with it as it comes, and minillama.generation.search ids of every strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.generation.engine import Decodes, Engine
from minillama.generation.sampling import Sampling
from minillama.generation.stopping import StopStrings

SHARED = 16  # tokens that prompts begin with, from which reading them once is worth a pass of its own
FinishReason = Literal["eos", "stop", "length"]
# From logits (R, V), which are good until the next step, which of the R rows go on, in which order, and the id to feed
# to each
Step: TypeAlias = Callable[[Array], tuple[Sequence[int], Array]]


def drive(engine: Engine, prompts: Sequence[Sequence[int]], step: Step, copies: int = 1) -> Iterator[None]:
    """Give `step` the logits after the prompts, `copies` rows of each, then those after the ids it answers with, until
    no row goes on. A row may go on several times, as copies. Yields after each step."""
    engine.reset()
    logits = read(engine, prompts)
    if copies > 1:
        rows = np.repeat(np.arange(len(prompts)), copies)
        engine.keep(rows.tolist())
        logits = logits[rows]
    while True:
        going, ids = step(logits)
        yield
        if not len(going):
            return
        engine.keep(going)
        logits = engine.decode(ids)


def read(engine: Engine, prompts: Sequence[Sequence[int]]) -> Array:
    """The logits (B, V) after the prompts. A long beginning that all of them have is read once, and copied."""
    most = min(map(len, prompts)) - 1  # the last token of each gives its logits
    first = prompts[0]
    common = next((n for n in range(most) if any(prompt[n] != first[n] for prompt in prompts)), most)
    if len(prompts) == 1 or common < SHARED:
        return engine.prefill(prompts)
    engine.prefill([first[:common]])
    engine.keep([0] * len(prompts))
    return engine.prefill([prompt[common:] for prompt in prompts])


@dataclass
class Continuation:
    """What was generated for one prompt: ids (the end-of-text id included), text (without it), why it ended."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None


@dataclass
class _Row:
    """One prompt on its way."""

    number: int
    prompt: Sequence[int]
    result: Continuation
    rng: np.random.Generator
    decoder: Decodes | None
    stops: StopStrings
    room: int  # tokens it may still get


def generate(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    max_new_tokens: int | Sequence[int] | None = None,
    eos_token_ids: Collection[int] = (),
    stop: Sequence[str] = (),
    seed: int = 0,
    decoders: Sequence[Decodes] | None = None,
    allowed: int | None = None,
    results: list[Continuation] | None = None,
) -> Iterator[tuple[int, str]]:
    """Continue every prompt, yielding (number of the prompt, new text) as text becomes certain.

    max_new_tokens: for all prompts, or one for each; by default what the context has room for. decoders: one for each
    prompt, to make text (and find stop strings) with; without them only `results` tells what came. allowed: only ids
    below it are chosen. seed: each prompt draws from its own generator, made of the seed and its number, so what it
    gets does not depend on how long the others run. results: a list that is filled with a Continuation for each prompt,
    and is up to date at every yield.

    Raises ValueError before any work if a prompt is empty or does not fit the context.
    """
    results = [] if results is None else results
    results[:] = [Continuation() for _ in prompts]
    if stop and decoders is None:
        raise ValueError("stop strings need decoders: they are looked for in the text")
    rows = []
    for number, prompt in enumerate(prompts):
        limit = max_new_tokens[number] if isinstance(max_new_tokens, Sequence) else max_new_tokens
        room = room_after(prompt, engine.context_length, limit)
        rng = np.random.default_rng([seed, number])
        decoder = None if decoders is None else decoders[number]
        rows.append(_Row(number, prompt, results[number], rng, decoder, StopStrings(stop), room))
    return _run(engine, rows, sampling, frozenset(eos_token_ids), allowed)


def room_after(prompt: Sequence[int], context_length: int, max_new_tokens: int | None) -> int:
    """How many tokens a prompt may get. The last one is never fed back, so a full context has room for one."""
    if not len(prompt):
        raise ValueError("the prompt has no tokens, not even a beginning-of-text: give some text")
    room = context_length - len(prompt) + 1
    if room < 1:
        raise ValueError(f"the prompt has {len(prompt)} tokens and the model's context is {context_length}: shorten it")
    if max_new_tokens is None:
        return room
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, not {max_new_tokens}")
    if max_new_tokens > room:
        raise ValueError(
            f"{len(prompt)} tokens of prompt and {max_new_tokens} new ones exceed the model's context of "
            f"{context_length}: ask for at most {room}, or shorten the prompt"
        )
    return max_new_tokens


def _run(
    engine: Engine, rows: list[_Row], sampling: Sampling, eos: frozenset[int], allowed: int | None
) -> Iterator[tuple[int, str]]:
    for row in rows:
        if row.room == 0:
            row.result.finish_reason = "length"
    active = [row for row in rows if row.room > 0]
    if not active:
        return
    pieces: list[tuple[int, str]] = []

    def step(logits: Array) -> tuple[Sequence[int], Array]:
        nonlocal active
        for row, scores in zip(active, logits, strict=True):
            text = _step(row, scores[:allowed], sampling, eos)
            if text:
                row.result.text += text
                pieces.append((row.number, text))
        going = [place for place, row in enumerate(active) if row.result.finish_reason is None]
        active = [active[place] for place in going]
        return going, np.array([row.result.ids[-1] for row in active])

    for _ in drive(engine, [row.prompt for row in active], step):
        yield from pieces
        pieces.clear()


def _step(row: _Row, logits: Array, sampling: Sampling, eos: frozenset[int]) -> str:
    """Choose a row's next id and note it; the text that became certain, and the reason in the row if it ended."""
    seen = [*row.prompt, *row.result.ids] if sampling.repetition_penalty != 1 else ()
    index = sampling.choose(logits, seen, row.rng)
    row.result.ids.append(index)
    row.room -= 1
    push: Callable[[int], str] = row.decoder.push if row.decoder else lambda _: ""
    text = "" if index in eos else row.stops.push(push(index))
    if row.stops.found:
        row.result.finish_reason = "stop"
    elif index in eos or row.room == 0:
        text += row.stops.push(row.decoder.finish() if row.decoder else "")
        row.result.finish_reason = "stop" if row.stops.found else "eos" if index in eos else "length"
        text += row.stops.finish()
    return text
