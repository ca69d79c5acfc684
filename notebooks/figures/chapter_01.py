"""The figures of chapter 1, tokens."""

from collections.abc import Sequence
from typing import Any

from figures import COLOURS, INK, figure


def pieces_in_boxes(pieces: Sequence[str], ids: Sequence[int], columns: int = 46) -> Any:
    """A text as its pieces, each in a box with its id below, in lines of about so many letters."""
    places, x, line = [], 0.0, 0
    for piece in pieces:
        width = max(len(piece), 2.6) + 0.5  # an id needs room too
        if x + width > columns:
            x, line = 0.0, line + 1
        places.append((x, line, width))
        x += width
    fig, ax = figure(height=0.3 + 0.62 * (line + 1))
    for i, (piece, index, (x, line, width)) in enumerate(zip(pieces, ids, places, strict=True)):
        colour = COLOURS[i % 5]
        ax.barh(-line, width - 0.25, 0.5, left=x, color=colour, alpha=0.25)
        ax.text(x + width / 2 - 0.12, -line, piece, ha="center", va="center", family="monospace", fontsize=12.5)
        ax.text(x + width / 2 - 0.12, -line - 0.4, str(index), ha="center", va="center", fontsize=8.5, color=colour)
    ax.set(xlim=(-0.3, columns), ylim=(-line - 0.6, 0.4))
    ax.axis("off")
    return fig


def merge_tree(word: str, steps: Sequence[tuple[int, int]]) -> Any:
    """How a word becomes pieces: steps are (place of the left one of the two pieces joined, number of the merge)."""
    row = [(float(x), 0, letter) for x, letter in enumerate(word)]  # the middle, the height and the text of each piece
    fig, ax = figure(height=4.2)
    for place, number in steps:
        (x1, y1, left), (x2, y2, right) = row[place : place + 2]
        x, y = (x1 + x2) / 2, max(y1, y2) + 1
        ax.plot([x1, x1, x2, x2], [y1 + 0.32, y - 0.3, y - 0.3, y2 + 0.32], color=COLOURS[0], lw=1.6)
        ax.text(x, y + 0.02, left + right, ha="center", va="bottom", fontsize=11.5)
        ax.text(x, y - 0.04, str(number), ha="center", va="top", fontsize=8.5, color=COLOURS[1])
        row[place : place + 2] = [(x, y, left + right)]
    for x, letter in enumerate(word):
        ax.text(x, 0, letter, ha="center", va="center", fontsize=13, family="monospace")
    ax.set(xlim=(-0.8, len(word) - 0.2), ylim=(-0.5, max(y for _, y, _ in row) + 0.7))
    ax.axis("off")
    return fig


def training_curve(pieces: Sequence[int], counts: Sequence[int]) -> Any:
    """Pieces of the tale before and after each merge (one number more than merges), and how often each pair stood."""
    fig, (left, right) = figure(ncols=2, height=2.9)
    left.plot(range(len(pieces)), pieces, color=COLOURS[0])
    left.set(xlabel="merges", ylabel="pieces in the tale", ylim=(0, None))
    right.plot(range(1, len(counts) + 1), counts, color=COLOURS[1])
    right.set(xlabel="merge", ylabel="how often the pair stood there", yscale="log")
    for ax in (left, right):
        ax.grid(True)
    return fig


def likeliest(prompts: dict[str, list[tuple[str, float]]]) -> Any:
    """For each prompt the likeliest next pieces with their probabilities, side by side."""
    fig, axes = figure(ncols=len(prompts), height=2.8)
    for ax, (prompt, rows), colour in zip(axes, prompts.items(), COLOURS, strict=False):
        names, p = zip(*rows, strict=True)
        places = range(len(rows), 0, -1)
        ax.barh(places, p, color=colour)
        for y, value in zip(places, p, strict=True):
            ax.text(value + 0.01, y, f"{value:.0%}", va="center", fontsize=10)
        ax.set_yticks(places, names, fontsize=11)
        ax.set(title=repr(prompt), xlim=(0, 0.8), xticks=[])
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_color(INK)
    return fig
