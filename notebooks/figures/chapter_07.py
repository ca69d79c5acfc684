"""The figures of chapter 7: activations, gates of the real model, what a layer adds, where the parameters are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from figures import COLOURS, INK, figure


def activations(x: np.ndarray, curves: Mapping[str, np.ndarray]) -> Any:
    """Functions of one number."""
    drawn, ax = figure(7.2, 3.0)
    for (name, y), style in zip(curves.items(), ("--", "-", ":"), strict=True):
        ax.plot(x, y, style, label=name)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set(xlabel="x", ylim=(-0.6, 3), xlim=(-6, 4))
    ax.legend()
    return drawn


def gate_histograms(gates: Sequence[np.ndarray]) -> Any:
    """How the gates of each layer are distributed, all tokens and features together."""
    drawn, ax = figure(7.2, 3.8)
    edges = np.linspace(-4, 4, 161)
    middle = (edges[1:] + edges[:-1]) / 2
    for i, gate in enumerate(gates):
        counts, _ = np.histogram(gate, edges)
        height = counts / counts.max() * 0.9
        base = len(gates) - 1 - i
        for side, colour in ((middle <= 0, COLOURS[7]), (middle >= 0, COLOURS[0])):
            ax.fill_between(middle[side], base, base + height[side], color=colour, alpha=0.8)
        ax.text(-4, base + 0.12, f"layer {i}", fontsize=9)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set(xlabel="gate, before silu", yticks=[], title="nearly shut                    open")
    ax.spines["left"].set_visible(False)
    return drawn


def additions(adds: Mapping[str, np.ndarray]) -> Any:
    """The mean length of what the two halves of each layer add to the stream."""
    drawn, ax = figure(7.2, 2.9)
    for k, (name, lengths) in enumerate(adds.items()):
        ax.bar(np.arange(len(lengths)) + 0.4 * k - 0.2, lengths, width=0.36, color=COLOURS[k], label=name)
    ax.set(xlabel="layer", ylabel="length", title="What is added to the stream")
    ax.legend()
    return drawn


def parameter_shares(models: Mapping[str, Mapping[str, int]]) -> Any:
    """Where the parameters of each model are, as shares of one bar."""
    drawn, ax = figure(7.4, 2.2)
    for row, counts in enumerate(models.values()):
        left, total = 0.0, sum(counts.values())
        for k, (part, count) in enumerate(counts.items()):
            ax.barh(row, count / total, left=left, color=COLOURS[k], height=0.6)
            if count / total > 0.02:
                label = f"{part}\n{count / total:.0%}" if count / total > 0.08 else f"{count / total:.0%}"
                ax.text(left + count / total / 2, row, label, ha="center", va="center", color="white", fontsize=8)
            left += count / total
    ax.set_yticks(range(len(models)), [f"{name}\n{sum(c.values()):,}" for name, c in models.items()])
    ax.set(xlim=(0, 1), xticks=[])
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    return drawn
