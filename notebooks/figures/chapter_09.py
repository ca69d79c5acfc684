"""The figures of chapter 9: what is computed with and without a cache, the time it takes, and the memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from figures import COLOURS, INK, figure


def work(without: Sequence[tuple[int, int]], with_cache: Sequence[tuple[int, int]]) -> Any:
    """Which tokens (columns) each step (row) computes and which it reads, from the steps' (new tokens, keys)."""
    drawn, axes = figure(7.2, 3.4, ncols=2)
    for ax, steps, title in zip(axes, (without, with_cache), ("without a cache", "with a cache"), strict=True):
        for step, (new, keys) in enumerate(steps):
            for token in range(keys):
                computed = token >= keys - new
                ax.add_patch(
                    _square(
                        token, step, facecolor=COLOURS[1] if computed else COLOURS[0], alpha=1 if computed else 0.45
                    )
                )
        n = len(steps)
        ax.set(title=title, xlabel="token", ylabel="step", xlim=(-0.6, n - 0.4), ylim=(n - 0.4, -0.6), aspect="equal")
        ax.set_xticks(range(0, n, 2))
        ax.set_yticks(range(0, n, 2))
    handles = [_square(0, 0, facecolor=COLOURS[1]), _square(0, 0, facecolor=COLOURS[0], alpha=0.45)]
    drawn.legend(handles, ["computed in this step", "read from the cache"], loc="outside lower center", ncols=2)
    return drawn


def _square(x: float, y: float, **style: Any) -> Any:
    return Rectangle((x - 0.43, y - 0.43), 0.86, 0.86, **style)


def time_against_length(lengths: np.ndarray, seconds: Mapping[str, Sequence[float]]) -> Any:
    """Milliseconds of each token, and seconds of all tokens so far, for each way to write."""
    drawn, (one, all_so_far) = figure(7.2, 3.2, ncols=2)
    for (name, times), colour in zip(seconds.items(), (COLOURS[1], COLOURS[0]), strict=True):
        times = np.asarray(times)
        one.plot(lengths, 1000 * times, ".", markersize=3, color=colour)
        all_so_far.plot(lengths, times.cumsum(), color=colour, label=name)
    highest = 1000 * np.quantile(np.concatenate(list(seconds.values())), 0.995)  # a pause of the machine is no news
    one.set(xlabel="tokens in the text", ylabel="milliseconds", title="one more token", ylim=(0, 1.1 * highest))
    all_so_far.set(xlabel="tokens in the text", ylabel="seconds", title="all of them", ylim=(0, None))
    for ax in (one, all_so_far):
        ax.grid(True)
    all_so_far.legend(loc="upper left")
    return drawn


def cache_memory(tokens: np.ndarray, gigabytes: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> Any:
    """Gigabytes of the cache by the length of the text, and for each model where they are as many as its weights."""
    drawn, ax = figure(7.2, 3.4)
    for name, sizes in gigabytes.items():
        (line,) = ax.plot(tokens, sizes, label=name)
        ax.plot(weights[name] * tokens[0] / sizes[0], weights[name], "o", markersize=8, color=line.get_color())
    ax.plot([], [], "o", color=INK, label="as large as the weights")
    ax.set(xscale="log", yscale="log", xlabel="tokens in the text", ylabel="gigabytes", xlim=(tokens[0], tokens[-1]))
    ax.set_xticks(tokens[::2], [f"{n:,}" for n in tokens[::2]])
    ax.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    ax.minorticks_off()
    ax.grid(True)
    ax.legend(loc="upper left", fontsize=9)
    return drawn
