"""How the figures of the course look: readable on light and dark backgrounds and in print.

    from figures import figure
    from figures.chapter_03 import residual_norms

The background is transparent and every line of text a grey that stands out from white and from black alike.
"""

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

INK = "#7d8590"  # text and axes: contrast 3.8 on white, 5.0 on #0d1117
# Eight colours of middle lightness that the colour-blind tell apart
COLOURS = ["#2f81d6", "#e0731d", "#26a269", "#c061cb", "#d6404a", "#8f7a2b", "#17a2b8", "#8a8f98"]
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"

mpl.rcParams.update(
    {
        "figure.dpi": 110,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.titlesize": 11,
        "axes.labelsize": 10,
        "axes.prop_cycle": mpl.cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "text.color": INK,
        "legend.frameon": False,
        "grid.color": INK,
        "grid.alpha": 0.25,
        "lines.linewidth": 1.8,
        "font.size": 10,
    }
)


def figure(width: float = 7.2, height: float = 3.4, **subplots: Any) -> tuple[Any, Any]:
    """A figure and its axes, as wide as the text of a notebook; sizes in inches, the rest as plt.subplots takes it."""
    return plt.subplots(figsize=(width, height), layout="constrained", **subplots)
