"""The figures of chapter 2, embeddings and logits."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from figures import COLOURS, INK, SEQUENTIAL, figure


def nearest_tokens(rows: dict[str, list[tuple[str, float]]]) -> Any:
    """A line for each word: its nearest pieces from left to right, each cell coloured by the cosine."""
    cosines = np.array([[cosine for _, cosine in row] for row in rows.values()])
    fig, ax = figure(height=0.45 * len(rows) + 0.5)
    picture = ax.imshow(cosines, cmap=SEQUENTIAL, aspect="auto", vmin=0.3, vmax=0.8)
    for i, row in enumerate(rows.values()):
        for j, (piece, cosine) in enumerate(row):
            # Letters of the cell's own contrast: light on the dark end of the scale, dark on the light end
            ax.text(j, i, piece, ha="center", va="center", fontsize=10, color="white" if cosine < 0.6 else "black")
    ax.set_yticks(range(len(rows)), rows, fontsize=11)
    ax.set_xticks(range(cosines.shape[1]), [f"{j + 1}." for j in range(cosines.shape[1])])
    _plain(ax)
    fig.colorbar(picture, ax=ax, label="cosine", pad=0.02)
    return fig


def cosine_map(words: Sequence[str], cosines: Any) -> Any:
    """The cosines of some words with each other as a square."""
    fig, ax = figure(width=6.2, height=5.2)
    picture = ax.imshow(cosines, cmap=SEQUENTIAL, vmin=0, vmax=1)
    ax.set_xticks(range(len(words)), words, rotation=60, ha="right", rotation_mode="anchor", fontsize=10.5)
    ax.set_yticks(range(len(words)), words, fontsize=10.5)
    _plain(ax)
    fig.colorbar(picture, ax=ax, label="cosine", shrink=0.9)
    return fig


def row_lengths(lengths: Any, groups: dict[str, Sequence[int]]) -> Any:
    """The length of every row of the table by its id, in one colour for each group of ids."""
    fig, ax = figure(height=3.0)
    for (name, ids), colour in zip(groups.items(), COLOURS, strict=False):
        ax.scatter(ids, lengths[ids], s=5, color=colour, label=name)
    ax.set(xlabel="id", ylabel="length of its row", ylim=(0, None))
    ax.grid(True)
    ax.legend(markerscale=3, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(groups))
    return fig


def surprise(pieces: Sequence[str], bits: Sequence[float]) -> Any:
    """How many bits each piece of a text cost, as bars with the pieces below."""
    fig, ax = figure(height=3.4)
    scale = mpl.colormaps[SEQUENTIAL]
    ax.bar(range(len(pieces)), bits, color=[scale(0.25 + 0.6 * min(b / 16, 1)) for b in bits])
    ax.set_xticks(range(len(pieces)), pieces, rotation=65, ha="right", rotation_mode="anchor", fontsize=10)
    ax.axhline(12, color=INK, lw=1, ls="--")
    ax.text(-0.5, 12.3, "a guess among 4,096", fontsize=9.5)
    ax.set(ylabel="bits", xlim=(-0.7, len(pieces) - 0.3))
    ax.tick_params(axis="x", length=0)
    return fig


def _plain(ax: Any) -> None:
    """No frame and no ticks around a picture."""
    for side in ax.spines.values():
        side.set_visible(False)
    ax.tick_params(length=0)
