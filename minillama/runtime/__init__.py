"""The fast model: packed weights, a cache for each sequence, and an engine that runs kernels/ on them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from minillama.config import LlamaConfig
from minillama.runtime.decoder import FastDecoder
from minillama.runtime.engine import NumbaEngine
from minillama.runtime.model import FastModel
from minillama.weights.safetensors import Tensor

__all__ = ["FastDecoder", "FastModel", "NumbaEngine", "fast_model"]

log = logging.getLogger("minillama")
SOON = 2.0  # seconds that opening takes where the kernels are compiled already


def fast_model(config: LlamaConfig, tensors: Mapping[str, Tensor], form: str, threads: int) -> FastModel:
    """A model ready to run. The first of a format on a machine waits for its kernels to be compiled, and is told so."""
    told = threading.Timer(
        SOON, log.info, ("compiling the kernels for %s, which this machine does once: 10 to 20 seconds", form)
    )
    told.daemon = True
    told.start()
    try:
        return FastModel(config, tensors, form, "f32" if form == "f32" else "f16", threads)
    finally:
        told.cancel()
