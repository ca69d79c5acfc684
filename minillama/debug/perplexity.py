"""How well a model predicts a text: perplexity and bits a byte, by two recipes that are in use.

Which tokens are predicted, and from how much before them, changes the number more than most quantization does, so a
perplexity says nothing without its recipe:

strided       windows of `context` tokens, `stride` apart; each predicts what the one before it did not. The recipe of
              transformers' page "Perplexity of fixed-length models", to the weight it gives each window.
llama.cpp     windows of `context` tokens side by side, each begun with the beginning-of-text token; its second half is
              predicted, and what does not fill a window is left out. The recipe of llama.cpp's llama-perplexity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from minillama.arrays import Array
from minillama.messages import shown
from minillama.model.heads import log_softmax

RECIPES = ("strided", "llama.cpp")
CHUNK = 256  # tokens that are read at once
NUMBERS = 1 << 22  # log-probabilities that are held at once, in float64 and of each model: 32 MiB


class CausalLM(Protocol):
    """A model that gives logits: LlamaForCausalLM on any engine."""

    def forward(self, input_ids: Any, *, past_key_values: Any, use_cache: bool, logits_to_keep: Any) -> Any: ...


class Window(NamedTuple):
    """Tokens start .. stop - 1 of a text are read; those from `first` on are predicted. weight: of their mean."""

    start: int
    stop: int
    first: int
    weight: int


def strided_windows(tokens: int, context: int, stride: int) -> Iterator[Window]:
    """The windows of transformers' recipe. The weight is one less than the tokens a window adds, in every window: the
    page takes one off for the first token, which nothing predicts, and does so where another window has read it too."""
    before = 0
    for start in range(0, tokens, stride):
        stop = min(start + context, tokens)
        yield Window(start, stop, max(before, start + 1), stop - before - 1)
        before = stop
        if stop == tokens:
            return


def halves(tokens: int, context: int) -> Iterator[Window]:
    """The windows of llama.cpp's recipe."""
    count = context - context // 2 - 1
    for start in range(0, tokens - context + 1, context):
        yield Window(start, start + context, start + context - count, count)


def windows(recipe: str, tokens: int, context: int, stride: int) -> list[Window]:
    """The windows of a text of so many tokens. ValueError if the recipe has none for it."""
    if recipe == "strided":
        # The weight of a window that adds one token is 0: a stride of 1 would leave the first window alone
        if not 2 <= stride <= context:
            raise ValueError(f"the stride must be between 2 and the context of {context} tokens, not {stride}")
        if tokens < 2:
            raise ValueError(f"a text of {tokens} tokens has nothing to predict: 2 are the least")
        return list(strided_windows(tokens, context, stride))
    if recipe != "llama.cpp":
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, not {shown(recipe)}")
    if context < 3 or tokens < 2 * context:
        raise ValueError(
            f"a text of {tokens} tokens is too short: llama.cpp's recipe takes two contexts of {context} tokens each; "
            "give a longer text or a smaller context"
        )
    return list(halves(tokens, context))


@dataclass
class Perplexity:
    """What a model made of texts. nll: -log p in nats of every predicted token, in order.

    size: bytes of what was predicted; 0 if the recipe does not predict all of it.
    """

    nll: list[float] = field(default_factory=list)
    size: int = 0
    _sum: float = 0.0
    _weight: int = 0

    def add(self, window: Window, nll: Sequence[float]) -> None:
        self.nll += nll
        self._sum += math.fsum(nll) / max(len(nll), 1) * window.weight
        self._weight += window.weight

    def merge(self, other: Perplexity) -> None:
        """Add what was made of another text."""
        self.nll += other.nll
        self.size += other.size
        self._sum += other._sum
        self._weight += other._weight

    @property
    def perplexity(self) -> float:
        """exp of the mean nats of a token, by the recipe; infinite if it is beyond any number."""
        try:
            return math.exp(self._sum / self._weight)
        except OverflowError:
            return math.inf
        except ZeroDivisionError:  # a recipe can give the only window of a text no weight
            return math.nan

    @property
    def error(self) -> float:
        """Standard error of the perplexity, to first order: that of the mean times the perplexity."""
        return self.perplexity * standard_error(self.nll)

    @property
    def bits_per_byte(self) -> float:
        """Bits of all predicted tokens over their bytes of text: the measure that does not depend on the tokenizer."""
        return math.fsum(self.nll) / math.log(2) / self.size if self.size else math.nan


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of values that were drawn independently: their standard deviation over the root of their number; NaN
    for fewer than two. Tokens of a text are not quite independent, so that it is rather too small for them."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def predictions(model: CausalLM, ids: Array, window: Window, bos: int | None) -> Iterator[tuple[Array, Array]]:
    """What a model says of a window, some rows at a time: log-probabilities (t, V) in float64, the ids (t,) that came.

    bos: what stands for the first id, if anything is to.
    """
    read = np.array(ids[window.start : window.stop - 1])  # nothing asks for what follows the last one
    if bos is not None and len(read):
        read[0] = bos
    past = None
    for begin in range(0, len(read), CHUNK):
        part = read[begin : begin + CHUNK]
        wanted = np.arange(max(window.first - 1 - window.start - begin, 0), len(part))
        kept = wanted if len(wanted) else np.array([len(part) - 1])
        out = model.forward(part[None], past_key_values=past, use_cache=True, logits_to_keep=kept)
        past = out.past_key_values
        rows = max(NUMBERS // out.logits.shape[-1], 1)
        for i in range(0, len(wanted), rows):
            logits = out.logits[0, i : i + rows].astype(np.float64)
            yield log_softmax(logits), ids[window.start + begin + 1 + wanted[i : i + rows]]
