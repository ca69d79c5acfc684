"""The figures of chapter 10: turns of each pair, how much each is slowed, perplexity by the length of the text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from figures import COLOURS, INK, figure


def turns_by_pair(turns: np.ndarray, bands: Mapping[str, tuple[float, float]]) -> Any:
    """Full turns of every pair in the trained context, and the ranges of turns in which scalings blend."""
    drawn, ax = figure(7.2, 3.4)
    colours = [COLOURS[0] if n >= 1 else COLOURS[1] for n in turns]
    ax.scatter(range(len(turns)), turns, color=colours, s=26, zorder=3)
    ax.axhline(1, color=INK, linewidth=0.8)
    for place, (name, (low, high)) in enumerate(bands.items()):
        x, colour = 25 - 5 * place, COLOURS[2 + place]
        ax.plot([x, x], [low, high], color=colour, marker="_", markersize=12)
        ax.text(x + 0.5, high, name, color=colour, fontsize=10, va="center")
    ax.set(yscale="log", xlabel="pair", ylabel="turns in the trained context", xlim=(-1, len(turns)))
    ax.set_yticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    ax.minorticks_off()
    ax.grid(True, axis="y")
    return drawn


def slowed(ratios: Mapping[str, np.ndarray]) -> Any:
    """The speed of every pair in parts of the trained one, for each scaling."""
    drawn, ax = figure(7.2, 3.2)
    for (name, ratio), colour, mark in zip(ratios.items(), COLOURS[1:], "os^D", strict=False):
        ax.plot(ratio, color=colour, marker=mark, markersize=4, label=name)
    ax.axhline(1, color=INK, linewidth=0.8)
    ax.set(xlabel="pair", ylabel="speed / trained speed", ylim=(0, 1.06))
    ax.grid(True, axis="y")
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0.95))
    return drawn


def perplexity_by_length(lengths: np.ndarray, measured: Mapping[str, np.ndarray], trained: int) -> Any:
    """Perplexity of each block of tokens, by the length of the text at its end; the last name is to compare with."""
    drawn, ax = figure(7.2, 4.2)
    *scalings, compared = measured
    for name, colour, mark in zip(scalings, COLOURS, "xos^D", strict=False):
        ax.plot(lengths, measured[name], color=colour, marker=mark, markersize=4, linewidth=1.5, label=name)
    ax.plot(lengths, measured[compared], color=INK, linestyle="--", label=compared)
    ax.axvline(trained, color=INK, linewidth=0.8)
    ax.set(yscale="log", xlabel="tokens in the text", ylabel="perplexity", xlim=(0, lengths[-1] * 1.02))
    ax.set_xticks(range(0, int(lengths[-1]) + 1, trained), [f"{n:,}" for n in range(0, int(lengths[-1]) + 1, trained)])
    ax.set_yticks([20, 30, 50, 100], ["20", "30", "50", "100"])
    ax.minorticks_off()
    ax.grid(True)
    drawn.legend(loc="outside lower center", ncols=3, fontsize=9)
    return drawn
