"""The figures of chapter 4: dials, the pattern of all pairs, the two layouts, scores by distance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from figures import COLOURS, DIVERGING, INK, figure


def dials(speeds: np.ndarray, positions: Sequence[int], shown: int = 8) -> Any:
    """The angle of some pairs (columns, fast to slow) at some positions (rows), as hands of clocks."""
    pairs = np.linspace(0, len(speeds) - 1, shown).round().astype(int)
    drawn, axes = figure(7.4, 0.95 * len(positions) + 0.4, nrows=len(positions), ncols=shown)
    around = np.linspace(0, 2 * np.pi, 100)
    for row, position in zip(axes, positions, strict=True):
        for ax, pair in zip(row, pairs, strict=True):
            angle = position * speeds[pair]
            ax.plot(np.cos(around), np.sin(around), color=INK, linewidth=0.8)
            ax.plot([0, np.cos(angle)], [0, np.sin(angle)], color=COLOURS[1], linewidth=2.2)
            passed = np.linspace(0, min(angle, 2 * np.pi), 60)
            ax.fill([0, *np.cos(passed)], [0, *np.sin(passed)], color=COLOURS[0], alpha=0.3)
            ax.set(aspect="equal", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if position == positions[0]:
                ax.set_title(f"pair {pair}", fontsize=9)
        row[0].set_ylabel(f"position {position}", fontsize=9)
    return drawn


def clocks(speeds: np.ndarray, length: int) -> Any:
    """The cosine of the angle of every pair (row) at every position (column)."""
    drawn, ax = figure(7.2, 3.2)
    shown = ax.imshow(np.cos(speeds[:, None] * np.arange(length)), cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto")
    ax.set(xlabel="position", ylabel="pair", title="cosine of the angle")
    bar = drawn.colorbar(shown)
    bar.outline.set_edgecolor(INK)
    return drawn


def layouts(width: int) -> Any:
    """Which components of a head are a pair, in both layouts; the colour is the speed."""
    drawn, axes = figure(7.2, 1.9, ncols=2)
    shades = COLOURS[: width // 2]
    for ax, title in zip(axes, ("interleaved (Meta)", "duplicated halves (Hugging Face)"), strict=True):
        halves = title.startswith("duplicated")
        for j, shade in enumerate(shades):
            a, b = (j, j + width // 2) if halves else (2 * j, 2 * j + 1)
            middle, reach = (a + b) / 2, (b - a) / 2
            arc = np.linspace(0, np.pi, 50)
            ax.plot(middle + reach * np.cos(arc), 0.25 + 0.28 * reach * np.sin(arc), color=shade)
            ax.scatter([a, b], [0, 0], s=240, color=shade, zorder=3)
            for place in (a, b):
                ax.text(place, 0, str(place), ha="center", va="center", color="white", fontsize=9, zorder=4)
        ax.set(title=title, xlim=(-0.7, width - 0.3), ylim=(-0.4, 1.0), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return drawn


def turning_scores(distance: np.ndarray, scores: np.ndarray) -> Any:
    """The score of a vector with itself, by the distance of its two places."""
    drawn, ax = figure(7.2, 2.9)
    ax.plot(distance, scores)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set(xlabel="distance in tokens", ylabel="score", title="a vector of ones with itself")
    return drawn
