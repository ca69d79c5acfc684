"""The ids, and the table they are looked up in."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.names import EMBED_TOKENS
from minillama.debug.steps import How, Scene
from minillama.debug.traces import as_text

SOME, FIRST = 4096, 8  # rows of the table that are searched at a time, by so many of their numbers


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

    fitted = fitted_ids(case)
    own = case.ids[case.target.step]
    if fitted is not None and fitted.shape != own.shape:
        said = f"the tokens are others: the ids {as_text(fitted)} and not {as_text(own)}"
        yield of_ids("any.ids", said, lambda ids: fitted)
    elif fitted is not None:
        at = np.argwhere(fitted != own)
        first = tuple(at[0])
        said = f"id {own[first]} finds the row of {fitted[first]}; {len(at)} of {own.size} tokens find another's"
        yield of_ids("any.ids", said, lambda ids: fitted)


def fitted_ids(case: Case) -> Array | None:
    """The ids (B, T) of the rows that theirs are; None if they are the right ones, or some are no rows."""
    own, theirs, table = case.ids[case.target.step], case.theirs, case.weights.embed_tokens
    if case.target.local != EMBED_TOKENS or theirs.shape[-1] != case.config.hidden_size:
        return None
    rows, fitted = theirs.reshape(-1, theirs.shape[-1]), np.full(theirs.shape[:2], -1)
    for start in range(0, case.config.vocab_size, SOME):
        ids = np.arange(start, min(start + SOME, case.config.vocab_size))
        some = table[ids]
        near = np.abs(rows[:, None, :FIRST] - some[None, :, :FIRST]).max(axis=-1).argmin(axis=1)
        found = np.isclose(rows, some[near], rtol=1e-5, atol=1e-8).all(axis=1).reshape(fitted.shape)
        fitted = np.where(found & (fitted < 0), ids[near].reshape(fitted.shape), fitted)
    return None if (fitted < 0).any() or np.array_equal(fitted, own) else fitted


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
