"""Finding out where two implementations differ, and why.

a run         names: what intermediates there are, with their axes; recording: record(model); traces: what holds
              them, and its file; capture: hooks on a PyTorch model
another's     dumps: files of any kind; mapping: its names and layouts as ours, mappings/ by program
both          errors: how far arrays are apart, and may be; comparison: two traces; report: how it is told
why           steps: each intermediate computed from those before; hypotheses/: what may be wrong with them, a file
              a component; diagnosis: which of these it is
predictions   perplexity, divergence, evaluation, evaluation_plot: how far those of two models are apart
"""

from minillama.debug.recording import record
from minillama.debug.traces import Trace

__all__ = ["Trace", "record"]
