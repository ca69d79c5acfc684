"""What goes wrong with pointers: strides, and buffers that still hold what was there before."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from minillama.arrays import Array
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.hypotheses.projection import HEADED, MATRICES, product
from minillama.debug.names import LAYER, sizes
from minillama.debug.steps import STEPS, How, Scene, masked
from minillama.model.attention import merge_heads, split_heads
from minillama.model.ops import linear

SCORES, PROBS, CONTEXT = "self_attn.scores", "self_attn.probs", "self_attn.context"
# The numbers of a matrix of one layer, by the letters of docs/notation.md
NUMBERS = {"q_proj": "DHK", "k_proj": "DGK", "v_proj": "DGK", "o_proj": "DHK"} | dict.fromkeys(
    ("gate_proj", "up_proj", "down_proj"), "DF"
)


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    yield from _running()
    if case.target.local in MATRICES:
        yield from _rows_of_another_length(case)
        yield from _in_place(case)
    yield from _not_cleared(case)
    if case.target.layer:  # the first begins where it should
        yield from _strides(case)
    if case.target.local == PROBS:
        yield from _left_over(case)


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


def _rows_of_another_length(case: Case) -> Iterator[Hypothesis]:
    """`w[i * n + j]` with an n that is not that of the rows: what matmul is told of the sizes is wrong."""
    local, known = case.target.local, sizes(case.config)
    name = MATRICES[local].weight
    rows, width = getattr(case.weights.layers[case.target.layer or 0], name).shape
    lengths = {known["F"]: "F", known["G"] * known["K"]: "G K", known["H"] * known["K"]: "H K", known["D"]: "D"}
    for n, letters in lengths.items():
        if n < width:

            def step(s: Scene, n: int = n) -> Array:
                weight = getattr(s.w, name).ravel()[: rows * n].reshape(rows, n)
                y = linear(s[MATRICES[local].reads][..., :n], weight)
                return split_heads(y, s.config.head_dim) if local in HEADED else y

            yield Hypothesis("weight.row_length", f"rows of {name} are taken to have {letters} numbers", {local: step})


def _in_place(case: Case) -> Iterator[Hypothesis]:
    """The result overwrites the input while it is still read."""
    m = MATRICES[case.target.local]

    def step(s: Scene) -> Array:
        weight, x = getattr(s.w, m.weight), np.array(s[m.reads])
        y = np.empty((*x.shape[:-1], len(weight)))
        for i, row in enumerate(weight):
            y[..., i] = x @ row
            if i < x.shape[-1]:
                x[..., i] = y[..., i]
        return split_heads(y, s.config.head_dim) if s.local in HEADED else y

    said = f"{m.weight} writes over its input, {m.reads}, while it reads it"
    yield Hypothesis("weight.in_place", said, {case.target.local: step})


def _not_cleared(case: Case) -> Iterator[Hypothesis]:
    """A sum goes on from what is in its buffer: of the layer before, which began with zeros, or of another tensor."""
    local, layer = case.target.local, case.target.layer
    if layer is None or local in ("residual", "output"):  # which are sums
        return
    before = case.known.get(case.target._replace(layer=layer - 1).name) if layer else None
    if before is not None:
        said = f"{local} is added to that of the layer before: its buffer is not set to zero"
        yield Hypothesis("any.not_cleared", said, {local: lambda s: before + STEPS[local](s)})
    for other in LAYER:
        if other != local and (there := case.beside(other)) is not None and there.shape == case.theirs.shape:
            said = f"{local} is added to {other}, which is in its buffer: that is not set to zero"
            left: How = lambda s, there=there: there + STEPS[local](s)  # type: ignore[misc]  # noqa: E731
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
