"""Logits to the next id to text: sampling, stopping, and the one loop that any engine runs in."""

from minillama.generation.engine import Engine
from minillama.generation.loop import Continuation, generate
from minillama.generation.sampling import Sampling

__all__ = ["Continuation", "Engine", "Sampling", "generate"]
