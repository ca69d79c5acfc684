"""The picture of `python -m minillama.evaluate --plot`: losses along the text, and how far the models are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minillama.debug.evaluation import Result

SMOOTH = 512  # tokens that a point of the curve averages
LEAST = 1e-9  # nats: what is drawn for a divergence of 0, which a logarithmic axis has no place for


def draw(result: Result, file: Path) -> None:
    """Write the picture as a file of the type its name says."""
    picture = Figure(figsize=(10, 4) if result.divergences else (6, 4), layout="constrained")
    FigureCanvasAgg(picture)
    axes: Any = picture.subplots(1, 2 if result.divergences else 1, squeeze=False)[0]
    for name, scores in zip(result.names, result.scores, strict=True):
        bits = np.array(scores.nll) / np.log(2)
        width = min(SMOOTH, len(bits))
        axes[0].plot(np.arange(width, len(bits) + 1), np.convolve(bits, np.ones(width) / width, "valid"), label=name)
    axes[0].set(xlabel="tokens predicted", ylabel=f"bits a token, mean of the last {width}")
    axes[0].legend(frameon=False)
    for number, (name, other) in enumerate(zip(result.names[1:], result.divergences, strict=True), 1):
        kl = np.sort(np.maximum(other.kl, LEAST))[::-1]
        axes[1].plot(kl, np.arange(1, len(kl) + 1) / len(kl), color=f"C{number}", label=name)
        turned = np.sort([m for m, same in zip(other.margin, other.same, strict=True) if not same])[::-1]
        if len(turned):
            share = np.arange(1, len(turned) + 1) / len(kl)
            axes[1].plot(turned, share, "--", color=f"C{number}", label=f"{name}: margins overturned")
    if result.divergences:
        axes[1].set(xscale="log", yscale="log", xlabel="nats", ylabel="share of tokens with more")
        axes[1].set_title(f"divergence from {result.names[0]}", fontsize=10)
        axes[1].legend(frameon=False, fontsize=8)
    picture.savefig(file, dpi=150)
