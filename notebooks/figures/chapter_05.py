"""The figures of chapter 5: masks, the attention triangle, induction heads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap

from figures import COLOURS, INK, SEQUENTIAL, figure


def entropy_by_scale(factors: np.ndarray, bits: np.ndarray, unscaled: float) -> Any:
    """How uncertain a softmax is, by the size of its scores; a line where scores lie that were not divided."""
    drawn, ax = figure(7.2, 2.9)
    ax.plot(factors, bits)
    ax.axvline(1, color=COLOURS[2], label="divided by √K")
    ax.axvline(unscaled, color=COLOURS[1], linestyle="--", label="not divided")
    ax.set(xscale="log", xlabel="typical size of a score", ylabel="bits of uncertainty", ylim=(0, 4.2))
    ax.set_title("Softmax over 16 keys")
    ax.legend(loc="lower left")
    return drawn


def masks(visible: np.ndarray) -> Any:
    """Which key (column) each query (row) may see, (texts, T, S)."""
    drawn, axes = figure(6.2, 3.0, ncols=len(visible))
    for ax, one, title in zip(axes, visible, ("six tokens", "two of padding, four tokens"), strict=True):
        ax.pcolormesh(one, cmap=ListedColormap(["none", COLOURS[0]]), edgecolors=INK, linewidth=0.6)
        ax.set(aspect="equal", xlabel="key", ylabel="query", title=title)
        ticks = np.arange(len(one))
        ax.set_xticks(ticks + 0.5, ticks)
        ax.set_yticks(ticks + 0.5, ticks)
        ax.invert_yaxis()
    return drawn


def _triangle(ax: Any, probs: np.ndarray) -> Any:
    hidden = np.triu(np.ones_like(probs, dtype=bool), 1)
    return ax.imshow(np.ma.array(probs, mask=hidden), cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest")


def attention_triangle(heads: Mapping[str, np.ndarray], words: Sequence[str]) -> Any:
    """Where each token (row) looks, for several heads (T, T), future keys left blank."""
    drawn, axes = figure(9.4, 3.9, ncols=len(heads))
    for i, (ax, (name, probs)) in enumerate(zip(axes, heads.items(), strict=True)):
        shown = _triangle(ax, probs)
        ax.set_title(name)
        ax.set_xticks(range(len(words)), words, rotation=90, fontsize=7)
        ax.set_yticks(range(len(words)), words if i == 0 else [""] * len(words), fontsize=7)
    bar = drawn.colorbar(shown, ax=axes, shrink=0.75, pad=0.01)
    bar.outline.set_edgecolor(INK)
    bar.set_label("share of the attention")
    return drawn


def induction(probs: np.ndarray, period: int, table: np.ndarray) -> Any:
    """The attention of one head on a text said twice, and how much every head looks at what followed last time."""
    drawn, (left, right) = figure(9.0, 3.6, ncols=2, width_ratios=[1, 1.15])
    _triangle(left, probs)
    left.axhline(period + 0.5, color=COLOURS[1], linewidth=1)
    left.text(2 * period, period - 0.5, "the second time", color=COLOURS[1], ha="right", fontsize=9)
    left.set(xlabel="key", ylabel="query", title="the strongest head")
    shown = right.imshow(table, cmap=SEQUENTIAL, vmin=0)
    right.set(xlabel="head", ylabel="layer", title="looks at what followed last time")
    right.set_xticks(range(table.shape[1]))
    bar = drawn.colorbar(shown, ax=right)
    bar.outline.set_edgecolor(INK)
    bar.set_label("share of the attention")
    return drawn
