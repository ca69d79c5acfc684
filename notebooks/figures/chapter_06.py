"""The figures of chapter 6: who shares keys and values, what the cache takes, what heads add."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from figures import COLOURS, INK, SEQUENTIAL, figure


def wiring(heads: int, groups: Sequence[int]) -> Any:
    """Which key/value head (below) each query head (above) uses, for several numbers of key/value heads."""
    drawn, axes = figure(8.4, 2.3, ncols=len(groups))
    kinds = {heads: "multi-head", 1: "multi-query"}
    for ax, G in zip(axes, groups, strict=True):
        for h in range(heads):
            g = h // (heads // G)
            colour, below = COLOURS[g % len(COLOURS)], (g + 0.5) * heads / G - 0.5
            ax.plot([h, below], [1, 0], color=colour, linewidth=1.4)
            ax.scatter(h, 1, s=130, color=colour, zorder=3)
            ax.text(h, 1.22, str(h), ha="center", va="bottom", fontsize=9)
            ax.scatter(below, 0, s=190, color=colour, marker="s", zorder=3)
        ax.set(title=f"G = {G}: {kinds.get(G, 'grouped-query')}", xlim=(-0.7, heads - 0.3), ylim=(-0.4, 1.7))
        ax.set(xticks=[], yticks=[0, 1] if ax is axes[0] else [])
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    axes[0].set_yticklabels(["keys and\nvalues", "queries"])
    return drawn


def cache_sizes(sizes: Mapping[str, tuple[float, float]]) -> Any:
    """GB of the cache as it is, and as it would be without sharing, on a logarithmic axis."""
    drawn, ax = figure(7.2, 2.9)
    places = np.arange(len(sizes))
    bars = zip(*sizes.values(), strict=True)
    for offset, (values, name) in enumerate(
        zip(bars, ("as it is", "with a key/value head for each query head"), strict=True)
    ):
        shown = ax.barh(places + 0.38 * offset, values, height=0.34, color=COLOURS[offset], label=name)
        ax.bar_label(shown, fmt=lambda x: f"{x:.2g} GB", padding=3, fontsize=8, color=INK)
    ax.set_yticks(places + 0.19, list(sizes))
    ax.set(xscale="log", xlim=(0.005, 60), xlabel="GB for 4,096 tokens in 16 bits")
    ax.invert_yaxis()
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2)
    return drawn


def head_outputs(strengths: np.ndarray) -> Any:
    """The mean length of what each head adds to the stream, (L, H)."""
    drawn, ax = figure(4.6, 3.4)
    shown = ax.imshow(strengths, cmap=SEQUENTIAL, vmin=0)
    ax.set(xlabel="head", ylabel="layer", xticks=range(strengths.shape[1]), title="length of what a head adds")
    bar = drawn.colorbar(shown)
    bar.outline.set_edgecolor(INK)
    return drawn
