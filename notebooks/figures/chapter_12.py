"""The figures of chapter 12: the speed ladder, the roofline, groups of weights and their errors."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from figures import COLOURS, INK, figure


def ladder(rates: Mapping[str, float], memory: float) -> None:
    """Weights a second by each way of computing, with what memory (GB/s) delivers at 4 and 2 bytes a weight."""
    _, ax = figure(7.2, 3.2)
    names, values = list(rates), np.array(list(rates.values())) / 1e6
    colours = [COLOURS[7], COLOURS[2], *[COLOURS[0]] * (len(names) - 3), COLOURS[1]]
    bars = ax.barh(names, values, color=colours, height=0.65)
    ax.bar_label(bars, fmt=lambda rate: f"{rate:,.0f}", padding=3, fontsize=9, color=INK)
    for size in (4, 2):
        ax.axvline(memory * 1e3 / size, color=INK, linestyle=":")
        ax.text(memory * 1e3 / size, -0.75, f"{size} bytes", ha="right" if size == 4 else "left", fontsize=8)
    ax.set(xscale="log", xlabel="millions of weights a second", xlim=(None, values.max() * 6))
    ax.invert_yaxis()
    plt.show()


def roofline(intensity: np.ndarray, measured: np.ndarray, memory: float, flops: float) -> None:
    """Operations a second by operations a byte, under the limits of memory (bytes/s) and arithmetic (1/s)."""
    _, ax = figure(7.2, 3.6)
    x = np.geomspace(intensity[0] / 2, intensity[-1] * 2, 100)
    ax.plot(x, np.minimum(memory * x, flops) / 1e9, color=INK, label="memory, then arithmetic")
    ax.plot(intensity, measured / 1e9, "o", color=COLOURS[0], label="NumPy")
    for which in (0, -1):
        count = round(2 * intensity[which])
        where = (intensity[which], measured[which] / 1e9)
        label = f"{count} vector{'s' * (count > 1)}"
        ax.annotate(label, where, (0, -14), textcoords="offset points", fontsize=9, ha="center")
    ax.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="billions of operations a second")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    ax.legend(loc="lower right")
    plt.show()


def weight_groups(weights: np.ndarray, eight: np.ndarray, four: np.ndarray) -> None:
    """One group of weights, and what 8 and 4 bits make of it."""
    _, ax = figure(7.2, 3.0)
    place = np.arange(len(weights))
    ax.bar(place, weights, color=COLOURS[7], alpha=0.6, label="weight")
    ax.plot(place, eight, ".", color=COLOURS[0], label="8 bits")
    ax.plot(place, four, "x", color=COLOURS[1], label="4 bits")
    for level in np.unique(four):
        ax.axhline(level, color=COLOURS[1], linewidth=0.4, alpha=0.6)
    ax.set(xlabel="weight of the group", xlim=(-0.8, len(weights) - 0.2))
    ax.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.17))
    plt.show()


def error_by_bits(sizes: Sequence[int], errors: Sequence[float]) -> None:
    """The error of 4 bits by the number of weights that share a scale."""
    _, ax = figure(7.2, 2.7)
    ax.plot(sizes, errors, "o-")
    ax.set(xscale="log", xlabel="weights that share a scale", ylabel="root mean square error", ylim=(0, None))
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.minorticks_off()
    plt.show()
