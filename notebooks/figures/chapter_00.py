"""The figures of chapter 0, the map."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import FancyBboxPatch, Rectangle

from figures import COLOURS, INK, SEQUENTIAL, figure

# Where each array stands: the row from the top and the left edge; and its shape in letters
_STREAM, _LEFT, _MIDDLE, _RIGHT, _WIDTH = 0.0, 3.55, 6.63, 9.7, 2.85
_PLACES = {
    "input_ids": (0, _STREAM, "B T"),
    "embed_tokens": (1, _STREAM, "B T D"),
    "input_norm": (2, _MIDDLE, "B T D"),
    "q_proj": (3, _LEFT, "B H T K"),
    "k_proj": (3, _MIDDLE, "B G T K"),
    "v_proj": (3, _RIGHT, "B G T K"),
    "q_rope": (4, _LEFT, "B H T K"),
    "k_rope": (4, _MIDDLE, "B G T K"),
    "scores": (5, _LEFT, "B H T S"),
    "probs": (5, _MIDDLE, "B H T S"),
    "context": (6, _RIGHT, "B T HK"),
    "o_proj": (6, _MIDDLE, "B T D"),
    "residual": (7, _STREAM, "B T D"),
    "post_attention_norm": (8, _MIDDLE, "B T D"),
    "gate": (9, _LEFT, "B T F"),
    "up": (9, _MIDDLE, "B T F"),
    "act": (10, _LEFT, "B T F"),
    "down": (10, _MIDDLE, "B T D"),
    "output": (11, _STREAM, "B T D"),
    "norm": (12, _STREAM, "B T D"),
    "logits": (13, _STREAM, "B T V"),
}
_ARROWS = [
    "input_ids embed_tokens", "input_norm q_proj", "input_norm k_proj", "input_norm v_proj", "q_proj q_rope",
    "k_proj k_rope", "q_rope scores", "k_rope scores", "scores probs", "probs context", "v_proj context",
    "context o_proj", "o_proj residual", "post_attention_norm gate", "post_attention_norm up", "gate act", "up act",
    "act down", "down output", "norm logits", "embed_tokens input_norm", "residual post_attention_norm",
    "embed_tokens residual", "residual output", "output norm",
]  # fmt: skip


def live_shapes(shapes: Mapping[str, Sequence[int]], layers: int) -> Any:
    """The way of the data through the model, each array with its name, its letters and the sizes that a run gave."""
    fig, ax = figure(height=8.2)
    ax.add_patch(Rectangle((-0.25, -11.55), 12.95, 9.95, color=COLOURS[7], alpha=0.12, lw=0))
    ax.text(12.55, -11.42, f"a layer, {layers} of them in a row", ha="right", fontsize=10)
    for arrow in _ARROWS:
        start, end = arrow.split()
        _arrow(ax, start, end)
    for name, (row, left, letters) in _PLACES.items():
        stream = left == _STREAM
        colour = COLOURS[0] if stream else COLOURS[2] if row > 7 else COLOURS[1]
        box = FancyBboxPatch((left, -row - 0.26), _WIDTH, 0.52, boxstyle="round,pad=0.03", ec=colour, fc="none", lw=1.5)
        ax.add_patch(box)
        ax.text(left + _WIDTH / 2, -row + 0.12, name, ha="center", va="center", fontsize=9.5, color=colour)
        sizes = " × ".join(map(str, shapes[name]))
        ax.text(left + _WIDTH / 2, -row - 0.14, f"{letters}:  {sizes}", ha="center", va="center", fontsize=8.5)
    for row in (7, 11):
        ax.text(_STREAM + _WIDTH + 0.12, -row + 0.26, "+", fontsize=13, ha="left", va="center")
    ax.set(xlim=(-0.3, 12.75), ylim=(-13.4, 0.4))
    ax.axis("off")
    return fig


def _arrow(ax: Any, start: str, end: str) -> None:
    (row, x, _), (to_row, to_x, _) = _PLACES[start], _PLACES[end]
    if row == to_row:  # to the side
        a, b = ((x + _WIDTH, -row), (to_x, -row)) if x < to_x else ((x, -row), (to_x + _WIDTH, -row))
    elif x != _STREAM and to_x == _STREAM:  # back into the stream
        a, b = (x + _WIDTH / 2, -row - 0.28), (to_x + _WIDTH, -to_row)
    elif x == _STREAM and to_x != _STREAM:  # out of the stream
        a, b = (x + _WIDTH, -row), (to_x, -to_row)
    else:
        a, b = (x + _WIDTH / 2, -row - 0.29), (to_x + _WIDTH / 2, -to_row + 0.29)
    stream = x == to_x == _STREAM
    style = {"arrowstyle": "-|>", "color": COLOURS[0] if stream else INK, "lw": 2.6 if stream else 1.1}
    ax.annotate("", xy=b, xytext=a, arrowprops={**style, "shrinkA": 1, "shrinkB": 2})


def parameters(parts: Mapping[str, int]) -> Any:
    """How many numbers each part of the model holds, as bars."""
    fig, ax = figure(height=2.4)
    total = sum(parts.values())
    places = range(len(parts), 0, -1)
    ax.barh(places, parts.values(), color=COLOURS[: len(parts)])
    for y, number in zip(places, parts.values(), strict=True):
        ax.text(number + total * 0.01, y, f"{number:,}  ({number / total:.1%})", va="center", fontsize=10)
    ax.set_yticks(places, parts)
    ax.set(xlim=(0, max(parts.values()) * 1.4), xticks=[])
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return fig


def best_guesses(pieces: Sequence[str], guesses: Sequence[Sequence[str]], p: Any) -> Any:
    """What the head would say after each layer (lines, the last on top) at each position; colour: its probability."""
    p = np.asarray(p)  # (L + 1, T)
    fig, ax = figure(height=3.4)
    picture = ax.imshow(p, cmap=SEQUENTIAL, aspect="auto", vmin=0, vmax=1, origin="lower")
    for (i, t), value in np.ndenumerate(p):
        colour = "white" if value < 0.6 else "black"
        ax.text(t, i, guesses[i][t], ha="center", va="center", fontsize=10, color=colour)
    ax.set_xticks(range(len(pieces)), pieces, fontsize=11)
    ax.set_yticks(range(len(p)), ["embedding", *(f"layer {i}" for i in range(len(p) - 1))])
    for side in ax.spines.values():
        side.set_visible(False)
    ax.tick_params(length=0)
    fig.colorbar(picture, ax=ax, label="probability", pad=0.02)
    return fig
