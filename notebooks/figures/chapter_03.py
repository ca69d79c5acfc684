"""The figures of chapter 3: sizes of the stream, the epsilon, the weights of the norms."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from figures import COLOURS, DIVERGING, INK, figure


def residual_norms(sizes: np.ndarray, tokens: Sequence[str]) -> Any:
    """Root mean squares of the stream, (L + 1, T): one line a token, the first one marked."""
    drawn, ax = figure(7.2, 3.6)
    layers = np.arange(len(sizes))
    for t in range(1, sizes.shape[1]):
        ax.plot(layers, sizes[:, t], color=COLOURS[0], alpha=0.45, linewidth=1.2, label="a token" if t == 1 else None)
    ax.plot(layers, sizes[:, 0], color=COLOURS[1], linewidth=2.4, marker="o", label=f"the first, {tokens[0]}")
    ax.set(yscale="log", ylabel="root mean square", xticks=layers)
    ax.set_xticklabels(["embedding", *(f"layer {i}" for i in layers[:-1])])
    ax.set_title("The residual stream grows")
    ax.grid(axis="y", which="both")
    ax.legend()
    return drawn


def epsilon_curve(sizes: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> Any:
    """The size of what comes out, by the size of what goes in, with the epsilon in and out of the root."""
    drawn, ax = figure(7.2, 3.2)
    ax.plot(sizes, inside, label="inside the root (right)")
    ax.plot(sizes, outside, "--", label="outside (wrong)")
    ax.axvline(1e-5**0.5, color=INK, linewidth=0.8)
    ax.annotate("√ε", (1e-5**0.5, 0.03), (5, 0), textcoords="offset points")
    ax.set(xscale="log", xlabel="root mean square of the input", ylabel="of the output", ylim=(0, 1.1))
    ax.set_title("Where the place of the epsilon matters")
    ax.legend(loc="center right")
    return drawn


def weight_profile(weights: np.ndarray) -> Any:
    """The weights of all norms, (norms, D), columns sorted by the last, as a heat map of log2 of weight over median."""
    drawn, ax = figure(7.2, 3.6)
    order = np.argsort(weights[-1])
    relative = np.log2(np.maximum(np.abs(weights), 1e-3) / np.median(np.abs(weights), axis=1, keepdims=True))
    shown = ax.imshow(relative[:, order], aspect="auto", cmap=DIVERGING, vmin=-2, vmax=2, interpolation="nearest")
    layers = (len(weights) - 1) // 2
    names = [f"layer {i} {kind}" for i in range(layers) for kind in ("attention", "mlp")]
    ax.set_yticks(range(len(weights)), [*names, "final"], fontsize=8)
    ax.set(xlabel="component of the stream, sorted by the final norm")
    bar = drawn.colorbar(shown, ticks=[-2, -1, 0, 1, 2])
    bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
    bar.outline.set_edgecolor(INK)
    bar.set_label("weight / median of its norm")
    ax.set_title("What each norm turns up and down")
    return drawn
