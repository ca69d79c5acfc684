"""What goes wrong with pointers: strides, and buffers that still hold what was there before."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.hypotheses.projection import HEADED, MATRICES, product
from minillama.debug.names import sizes
from minillama.debug.steps import STEPS, How, Scene, masked
from minillama.model.attention import merge_heads, split_heads

SCORES, PROBS, CONTEXT = "self_attn.scores", "self_attn.probs", "self_attn.context"
# The numbers of a matrix of one layer, by the letters of docs/notation.md
NUMBERS = {"q_proj": "DHK", "k_proj": "DGK", "v_proj": "DGK", "o_proj": "DHK"} | dict.fromkeys(
    ("gate_proj", "up_proj", "down_proj"), "DF"
)


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    yield from _undivided()
    yield from _running()
    if case.target.layer:  # the first begins where it should
        yield from _strides(case)
        yield from _not_cleared(case)
    if case.target.local == PROBS:
        yield from _left_over(case)


def _undivided() -> Iterator[Hypothesis]:
    """Query head h looks for its keys and values h K from where those of a token begin: beyond the G heads are those of
    the next token, or nothing yet in a cache that is filled token by token."""
    for said, filled in (("the next token's", True), ("what is not filled yet", False)):
        dots, average = partial(_scores, filled=filled), partial(_context, filled=filled)
        cause = f"query head h reads at h K of a token's keys and values, not at h // (H/G) K: beyond their end, {said}"
        yield Hypothesis("attention.groups_undivided", cause, {SCORES: dots, CONTEXT: average})
        yield Hypothesis("attention.groups_undivided", f"of keys only: {cause}", {SCORES: dots})
        yield Hypothesis("attention.groups_undivided", f"of values only: {cause}", {CONTEXT: average})


def _scores(s: Scene, filled: bool) -> Array:
    q, keys = s["self_attn.q_rope"], _read_on(s.keys("self_attn.k_rope"), s)
    dots = q @ keys.swapaxes(2, 3) / np.sqrt(s.config.head_dim)
    return np.where(_there(dots, s) | filled, dots, 0)


def _context(s: Scene, filled: bool) -> Array:
    probs = s[PROBS]
    return merge_heads(np.where(_there(probs, s) | filled, probs, 0) @ _read_on(s.keys("self_attn.v_proj"), s))


def _read_on(x: Array, s: Scene) -> Array:
    """(B, G, S, K) -> (B, H, S, K): head h of a token is the h-th from its first one on, and zeros behind the last."""
    B, G, S, K = x.shape
    H = s.config.num_attention_heads
    rows = np.concatenate((x.swapaxes(1, 2).reshape(B, S * G, K), np.zeros((B, H, K))), axis=1)
    return rows[:, np.arange(S) * G + np.arange(H)[:, None]]


def _there(x: Array, s: Scene) -> Array:
    """Which of (B, H, T, S) a head reads of tokens up to the query's own."""
    _, H, T, S = x.shape
    G = s.config.num_key_value_heads
    return np.arange(S) * G + np.arange(H)[:, None, None] < (np.arange(S - T, S)[:, None] + 1) * G


def _strides(case: Case) -> Iterator[Hypothesis]:
    """Matrices of all layers lie one behind the other, and a layer's is looked for at another distance."""
    known = sizes(case.config)
    count = {letters: int(np.prod([known[letter] for letter in letters])) for letters in ("DD", "DHK", "DGK", "DF")}
    for local, m in MATRICES.items():
        own = NUMBERS[m.weight]
        others = {count[letters]: letters for letters in reversed(count) if count[letters] != count[own]}
        for stride, letters in others.items():
            said = f"{m.weight} of layer n is read at n {' '.join(letters)}, and not at n {' '.join(own)}"
            yield Hypothesis("weight.stride", said, {local: partial(_read_at, local=local, stride=stride)})


def _read_at(s: Scene, local: str, stride: int) -> Array:
    name, start = MATRICES[local].weight, s.layer * stride
    size = getattr(s.w, name).size
    first, rest = divmod(start, size)
    if start + size > size * s.config.num_hidden_layers:
        raise ValueError("it would be behind the last layer")
    both = [getattr(s.weights.layers[layer], name).ravel() for layer in range(first, first + 1 + (rest > 0))]
    there = np.concatenate(both)[rest : rest + size]
    return product(local, lambda weight: there.reshape(weight.shape))(s)


def _running() -> Iterator[Hypothesis]:
    """A sum that is set to 0 outside of the loop, and not inside."""
    yield Hypothesis(
        "any.running",
        "sums of scores are not set to 0: each goes on from that of the key before",
        {SCORES: lambda s: np.cumsum(STEPS[SCORES](s), axis=-1)},
    )
    for local, m in MATRICES.items():
        for tokens in (False, True):
            said = " and the token before" if tokens else ""
            cause = f"sums of {m.weight} are not set to 0: each goes on from that of the row before{said}"
            yield Hypothesis("any.running", cause, {local: partial(_goes_on, tokens=tokens)})


def _goes_on(s: Scene, tokens: bool) -> Array:
    y = STEPS[s.local](s)
    flat = merge_heads(y) if s.local in HEADED else y
    rows = flat.reshape(len(flat), -1) if tokens else flat
    sums = np.cumsum(rows, axis=-1).reshape(flat.shape)
    return split_heads(sums, s.config.head_dim) if s.local in HEADED else sums


def _not_cleared(case: Case) -> Iterator[Hypothesis]:
    """A sum goes on from what the layer before has left in the buffer, which began with zeros."""
    local, layer = case.target.local, case.target.layer or 0
    before = case.known.get(case.target._replace(layer=layer - 1).name)
    if before is not None:
        left: How = lambda s: before + STEPS[local](s)  # noqa: E731
        said = f"{local} is added to that of the layer before: its buffer is not set to zero"
        yield Hypothesis("any.not_cleared", said, {local: left})


def _left_over(case: Case) -> Iterator[Hypothesis]:
    """Probabilities of keys that a query does not see, in a buffer that is used again."""

    def probs(s: Scene) -> Array:
        ours = STEPS[PROBS](s)
        hidden = np.isneginf(masked(s[SCORES]))
        return np.where(hidden, case.theirs, ours) if case.theirs.shape == ours.shape else ours

    def unread(s: Scene) -> Array:
        seen = np.where(np.isneginf(masked(np.zeros(s[PROBS].shape))), 0, s[PROBS])
        return merge_heads(seen @ np.repeat(s.keys("self_attn.v_proj"), groups, axis=1))

    groups = case.config.num_attention_heads // case.config.num_key_value_heads
    said = "keys after the query have probabilities, left from before:"
    yield Hypothesis("attention.left_over", f"{said} their values are averaged too",
                     {PROBS: probs, CONTEXT: STEPS[CONTEXT]})  # fmt: skip
    yield Hypothesis("attention.left_over_unread", f'{said} nothing reads them, so map them with future = "garbage"',
                     {PROBS: probs, CONTEXT: unread})  # fmt: skip
