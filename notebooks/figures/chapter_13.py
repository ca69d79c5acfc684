"""The figures of chapter 13: errors along a run, and an activation as it shows itself."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from figures import COLOURS, INK, figure

FLOOR = 1e-9  # where an error of 0 is drawn, which a logarithm has no place for


def error_by_tap(runs: Mapping[str, Mapping[str, float]], tolerance: float) -> Any:
    """The error of every intermediate, a line a run, with the first one above the tolerance marked and named."""
    drawn, ax = figure(8.2, 3.9)
    names = list(next(iter(runs.values())))
    for i, name in enumerate(names):
        if name.endswith("input_norm"):
            ax.axvline(i - 0.5, color=INK, alpha=0.35, linewidth=0.8)
            ax.text(i + 7.5, 150, f"layer {name.split('.')[2]}", ha="center", fontsize=9)
    ax.axhline(tolerance, color=INK, linestyle=":", linewidth=1.2)
    ax.text(len(names) - 0.5, tolerance * 1.6, "tolerance", ha="right", fontsize=9)
    for number, (label, far) in enumerate(runs.items()):
        sizes = np.maximum([far[name] for name in names], FLOOR)
        first = int(np.argmax(sizes > tolerance))
        if sizes[first] > tolerance:
            label += f": {names[first].split('.')[-1]}"
            ax.plot(first, sizes[first], "o", color=COLOURS[number], markersize=7)
        ax.plot(sizes, color=COLOURS[number], label=label, linewidth=1.4)
    ax.set(yscale="log", ylim=(FLOOR / 2, 900), xlim=(-1, len(names)), ylabel="error", xticks=[])
    ax.set_xlabel("intermediates, in the order of computation")
    ax.set_yticks([FLOOR, 1e-6, 1e-3, 1], ["0", "$10^{-6}$", "$10^{-3}$", "1"])
    drawn.legend(loc="outside lower center", ncols=2, fontsize=9)
    return drawn


def activation_points(
    gate: np.ndarray, ratio: np.ndarray, curves: Mapping[str, Callable[[np.ndarray], np.ndarray]]
) -> Any:
    """What a network makes of its gate, point by point, over the activations it might be."""
    drawn, ax = figure(6.4, 3.4)
    x = np.linspace(-3, 2, 400)
    for number, (name, curve) in enumerate(curves.items()):
        ax.plot(x, curve(x), color=COLOURS[number], label=name)
    ax.plot(gate, ratio, ".", color=COLOURS[4], markersize=5, label="act / up of mutant 2", zorder=3)
    ax.set(xlabel="gate", ylabel="activation", xlim=(-3, 2), ylim=(-0.4, 1.6))
    ax.legend(loc="upper left")
    return drawn
