"""Finding out where two implementations differ, and why.

recording      record(model): every intermediate of what is called within; traces: what holds them, and its file
names          what intermediates there are, their axes, which of them are chosen
perplexity, divergence, evaluation, evaluation_plot: predictions, how far two models' are apart, and how it is told
"""

from minillama.debug.recording import record
from minillama.debug.traces import Trace

__all__ = ["Trace", "record"]
