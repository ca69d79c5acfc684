"""Checkpoints in and out: the only rooms that know tensor names, on-disk layouts and number formats.

safetensors (one file, checked and mapped) -> checkpoint (a folder of them) -> names (which tensor is which)
-> parameters (what the model reads, widened when it is read); guess makes a config where none is stored. llama2c reads
another format; lora merges an adapter into the weights of any.
"""

from minillama.weights.checkpoint import Checkpoint, open_checkpoint
from minillama.weights.parameters import Parameters

__all__ = ["Checkpoint", "Parameters", "open_checkpoint"]
