"""The figures of chapter 8: temperature, what top-p keeps, the losses of single tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from figures import COLOURS, INK, figure


def temperature_curves(temperatures: np.ndarray, probabilities: np.ndarray, tokens: Sequence[str]) -> Any:
    """Probabilities of some tokens (columns) and of all others together, at each temperature, one above the other."""
    drawn, ax = figure(7.2, 3.6)
    rest = 1 - probabilities.sum(axis=1)
    parts = [*probabilities.T, rest]
    colours = [*COLOURS[: len(tokens)], INK]
    ax.stackplot(temperatures, parts, labels=[*tokens, "all others"], colors=colours, alpha=0.85)
    ax.axvline(1, color="white", linewidth=1)
    ax.set(xlabel="temperature", ylabel="probability", xlim=(temperatures[0], temperatures[-1]), ylim=(0, 1))
    drawn.legend(loc="outside right upper", reverse=True)
    return drawn


def kept_tokens(places: Mapping[str, np.ndarray], p: float) -> Any:
    """Probabilities sorted and added up, for several places of a text."""
    drawn, ax = figure(7.2, 3.2)
    for text, q in places.items():
        total = np.sort(q)[::-1].cumsum()
        ax.plot(np.arange(1, len(total) + 1), total, label=f"{text} …")
    ax.axhline(p, color=INK, linewidth=0.8)
    ax.set(xscale="log", xlabel="tokens, the likeliest first", ylabel="probability together", ylim=(0, 1.03))
    ax.legend(loc="lower right")
    return drawn


def token_losses(losses: np.ndarray, tokens: Sequence[str]) -> Any:
    """-log p of each token of a text."""
    drawn, ax = figure(7.6, 3.2)
    ax.bar(np.arange(len(losses)), losses, color=[COLOURS[1] if loss > 5 else COLOURS[0] for loss in losses])
    ax.set_xticks(range(len(tokens)), tokens, rotation=70, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set(ylabel="nats", xlim=(-0.7, len(tokens) - 0.3))
    return drawn
