"""The ids, and the table they are looked up in."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.names import EMBED_TOKENS
from minillama.debug.steps import How, Scene


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    bos, eos = case.config.bos_token_id, next(iter(case.config.eos_token_ids), None)

    def of_ids(key: str, cause: str, change: object) -> Hypothesis:
        return Hypothesis(key, cause, {EMBED_TOKENS: _looked_up(change)})

    yield of_ids(
        "embedding.bos_missing", "the first token, the beginning-of-text one, is missing", lambda ids: ids[:, 1:]
    )
    yield of_ids("embedding.first_token", "another token stands first", lambda ids: ids)._replace(
        steps={EMBED_TOKENS: lambda s: _first_of_theirs(s, case)}
    )
    if bos is not None:
        yield of_ids(
            "embedding.bos_double", "the beginning-of-text token stands there twice", lambda ids: _before(ids, bos)
        )
    if eos is not None:
        yield of_ids("embedding.eos", "an end-of-text token follows the prompt", lambda ids: _behind(ids, eos))
    V = case.config.vocab_size
    yield of_ids("embedding.off_by_one", "rows of the table are read one too late", lambda ids: (ids + 1) % V)
    yield of_ids("embedding.off_by_one", "rows of the table are read one too early", lambda ids: (ids - 1) % V)
    yield of_ids("embedding.order", "the tokens are in reverse order", lambda ids: ids[:, ::-1])
    root = math.sqrt(case.config.hidden_size)
    for factor, name in ((root, "sqrt(D)"), (1 / root, "1/sqrt(D)")):
        yield Hypothesis("embedding.scale", f"embeddings are multiplied by {name}", {EMBED_TOKENS: _times(factor)})


def _looked_up(change: object) -> How:
    return lambda s: np.asarray(s.weights.embed_tokens[change(s.ids)])  # type: ignore[operator]


def _times(factor: float) -> How:
    return lambda s: s.weights.embed_tokens[s.ids] * factor


def _before(ids: Array, token: int) -> Array:
    return np.insert(ids, 0, token, axis=1)


def _behind(ids: Array, token: int) -> Array:
    return np.insert(ids, ids.shape[1], token, axis=1)


def _first_of_theirs(s: Scene, case: Case) -> Array:
    """Ours, but for the first row, if theirs is another row of the table."""
    ours = np.array(s.weights.embed_tokens[s.ids])
    theirs = case.theirs
    if case.target.local == EMBED_TOKENS and theirs.shape == ours.shape:
        table = s.weights.embed_tokens[np.arange(s.config.vocab_size)]
        ours[:, 0] = table[np.abs(table - theirs[0, 0]).sum(axis=1).argmin()]
    return ours
