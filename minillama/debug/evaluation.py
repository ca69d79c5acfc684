"""What `python -m minillama.evaluate` has measured, and how it is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minillama.debug.divergence import Divergence
from minillama.debug.perplexity import Perplexity, standard_error

CLOSE = 0.01  # nats


class Result:
    """What was measured: the names and settings of the models, their scores, and how far those after the first are from
    it. recipe: what a perplexity says nothing without: the recipe's name, the context, and the stride if it has one."""

    def __init__(self, names: list[str], settings: list[dict[str, str]], recipe: dict[str, Any], texts: int):
        self.names, self.settings, self.recipe, self.texts = names, settings, recipe, texts
        self.scores = [Perplexity() for _ in names]
        self.divergences = [Divergence(scores) for scores in self.scores[1:]]

    def add(self, ours: Perplexity, others: Sequence[Divergence], size: int) -> None:
        """Add what was measured on one text."""
        for total, scores in zip(self.scores, (ours, *(other.scores for other in others)), strict=True):
            total.merge(scores)
            total.size += size
        for sum_, other in zip(self.divergences, others, strict=True):
            sum_.kl += other.kl
            sum_.same += other.same
            sum_.margin += other.margin


def figures(result: Result, number: int) -> dict[str, Any]:
    """What is told of a model; those after the first are compared with it."""
    scores = result.scores[number]
    told: dict[str, Any] = {
        "name": result.names[number],
        "perplexity": scores.perplexity,
        "perplexity_error": scores.error,
        "bits_per_byte": scores.bits_per_byte if scores.size else None,
    }
    if number:
        other = result.divergences[number - 1]
        # Both have read the same text, which makes the ratio far surer than either perplexity
        ratio = scores.perplexity / result.scores[0].perplexity
        error = standard_error(np.subtract(scores.nll, result.scores[0].nll).tolist())
        told |= {"ratio": ratio, "ratio_error": ratio * error}
        told |= {"kl_mean": other.mean_kl, "kl_99": other.kl_at(0.99), "kl_max": max(other.kl)}
        told |= {"same_top": other.agreement, "largest_overturned_margin": other.overturned}
    return told


def as_object(result: Result) -> dict[str, Any]:
    """All figures, for --json. Numbers that are not finite are null."""
    models = [figures(result, number) | settings for number, settings in enumerate(result.settings)]
    for told in models:
        told |= {name: None for name, value in told.items() if isinstance(value, float) and not math.isfinite(value)}
    close = {"close_margins": result.divergences[0].close(CLOSE)} if result.divergences else {}
    return {"texts": result.texts, "tokens": len(result.scores[0].nll), **result.recipe, **close, "models": models}


def table(result: Result) -> str:
    """All figures, for people."""
    head = ["", "perplexity", "±", "bits/byte", "ratio", "±", "KL mean", "KL 99 %", "KL max", "same top", "overturned"]
    lines = [head if result.divergences else head[:4]]
    for number in range(len(result.names)):
        told = figures(result, number)
        bits = told["bits_per_byte"]
        line = [told["name"], f"{told['perplexity']:.4f}", uncertain(told["perplexity_error"])]
        line.append("-" if bits is None else f"{bits:.4f}")
        if number:
            line += [f"{told['ratio']:.5f}", uncertain(told["ratio_error"])]
            line += [f"{told[name]:.3g}" for name in ("kl_mean", "kl_99", "kl_max")]
            line += [f"{told['same_top']:.2%}", f"{told['largest_overturned_margin']:.3g}"]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(lines[0]))]
    rows = [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(line, widths, strict=False))).rstrip()
        for line in lines
    ]  # fmt: skip
    tokens = len(result.scores[0].nll)
    note = f"{counted(tokens, 'token')} of {counted(result.texts, 'text')}, windows of {result.recipe['context']}"
    if result.divergences:
        share = result.divergences[0].close(CLOSE)
        note += f"; KL and margins in nats; {share:.2%} of the first model's choices were closer than {CLOSE}"
    return "\n".join([*rows, note])


def uncertain(error: float) -> str:
    """A standard error, to two digits; a dash if there is none."""
    return "-" if math.isnan(error) else f"{error:.2g}"


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
