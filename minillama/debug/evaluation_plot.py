"""The picture of `python -m minillama.evaluate --plot`: losses along the text, and how far the models are apart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minillama.debug.evaluation import Result
from minillama.files import write_files

SMOOTH = 512  # tokens that a point of the curve averages
LEAST = 1e-9  # nats: what is drawn for a divergence of 0, which a logarithmic axis has no place for


def draw(result: Result, file: Path) -> None:
    """Write the picture as a file of the type its name says, whole or not at all."""
    picture = Figure(figsize=(10, 4.5) if result.divergences else (6, 4), layout="constrained")
    FigureCanvasAgg(picture)
    axes: Any = picture.subplots(1, 2 if result.divergences else 1, squeeze=False)[0]
    for name, scores in zip(result.names, result.scores, strict=True):
        bits = np.array(scores.nll) / np.log(2)
        width = min(SMOOTH, len(bits))
        curve = np.convolve(bits, np.ones(width) / width, "valid")
        axes[0].plot(np.arange(width, len(bits) + 1), curve, linewidth=1, label=name)
    axes[0].set(xlabel="tokens predicted", ylabel=f"bits a token, mean of the last {width}")
    for number, other in enumerate(result.divergences, 1):
        kl = np.sort(np.maximum(other.kl, LEAST))[::-1]
        axes[1].plot(kl, np.arange(1, len(kl) + 1) / len(kl), color=f"C{number}")
        turned = np.sort([m for m, same in zip(other.margin, other.same, strict=True) if not same])[::-1]
        axes[1].plot(turned, np.arange(1, len(turned) + 1) / len(kl), "--", color=f"C{number}")
    if result.divergences:
        axes[1].set(xscale="log", yscale="log", xlabel="nats", ylabel="share of tokens with more")
        axes[1].set_title(f"divergence from {result.names[0]} (dashed: margins overturned)", fontsize=10)
    picture.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    drawn = io.BytesIO()
    picture.savefig(drawn, format=file.suffix[1:], dpi=150)
    write_files({file: drawn.getvalue()})
