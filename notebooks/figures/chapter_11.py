"""The figures of chapter 11: which token is read, how a head learns, what each layer knows, a decision on its way."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from figures import COLOURS, INK, figure


def pooled(ids: np.ndarray, where: np.ndarray, words: Sequence[Sequence[str]], pad: int = 0) -> Any:
    """The tokens of every row of ids (B, T), padding in grey, and the one that is read."""
    rows, columns = ids.shape
    drawn, ax = figure(7.2, 0.55 * rows + 0.7)
    for row in range(rows):
        for t in range(columns):
            read, padding = t == where[row], ids[row, t] == pad
            colour = COLOURS[1] if read else INK if padding else COLOURS[0]
            ax.add_patch(
                Rectangle((t - 0.46, row - 0.4), 0.92, 0.8, facecolor=colour, alpha=0.25 if padding and not read else 1)
            )
            ink = INK if padding and not read else "white"
            ax.text(t, row, words[row][t], ha="center", va="center", color=ink, fontsize=9)
    ax.set(xlim=(-0.6, columns - 0.4), ylim=(rows - 0.5, -0.5), xlabel="column", ylabel="row")
    ax.set_xticks(range(columns))
    ax.set_yticks(range(rows))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return drawn


def learning(notes: Mapping[str, Sequence[float]], baselines: Mapping[str, float]) -> Any:
    """Loss of the training and test set after each step, and the accuracy on the test set beside baselines."""
    drawn, (loss, right) = figure(7.2, 3.2, ncols=2)
    for name, colour in zip(("train", "test"), COLOURS, strict=False):
        loss.plot(notes[name], color=colour, label=name)
    loss.set(xlabel="step", ylabel="nats", title="loss", ylim=(0, None))
    loss.legend()
    right.plot(notes["accuracy"], color=COLOURS[1])
    for name, share in baselines.items():
        right.axhline(share, color=INK, linestyle="--", linewidth=1)
        right.text(0.99, share - 0.01, name, ha="right", va="top", fontsize=9, transform=right.get_yaxis_transform())
    right.set(xlabel="step", ylabel="share", title="right on the test set", ylim=(0.5, 1))
    for ax in (loss, right):
        ax.grid(True)
    return drawn


def accuracy_by_layer(by_layer: Mapping[str, Sequence[float]], baselines: Mapping[str, float]) -> Any:
    """Accuracy of a head on the states after each layer, for each way to pool, beside baselines."""
    drawn, ax = figure(7.2, 3.4)
    for (name, shares), colour, mark in zip(by_layer.items(), (COLOURS[1], COLOURS[0]), "os", strict=True):
        ax.plot(shares, color=colour, marker=mark, label=name)
    for name, share in baselines.items():
        ax.axhline(share, color=INK, linestyle="--", linewidth=1)
        ax.text(0.01, share + 0.005, name, va="bottom", fontsize=9, transform=ax.get_yaxis_transform())
    ax.set(xlabel="after layer (0: embeddings)", ylabel="accuracy", ylim=(0.5, 1))
    ax.set_xticks(range(len(next(iter(by_layer.values())))))
    ax.grid(True)
    ax.legend(loc="lower right")
    return drawn


def reading(probabilities: np.ndarray, words: Sequence[str]) -> Any:
    """A probability after each token of a text, the last one in another colour."""
    drawn, ax = figure(7.2, 3.0)
    ax.bar(range(len(words)), probabilities, color=[COLOURS[0]] * (len(words) - 1) + [COLOURS[1]])
    ax.axhline(0.5, color=INK, linewidth=0.8)
    ax.set_xticks(range(len(words)), words, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set(ylabel="probability of said", ylim=(0, 1), xlim=(-0.7, len(words) - 0.3))
    return drawn
