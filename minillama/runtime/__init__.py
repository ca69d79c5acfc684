"""The fast model: packed weights, a cache for each sequence, and an engine that runs kernels/ on them."""

from __future__ import annotations

import logging
import threading

from minillama.runtime.decoder import FastDecoder
from minillama.runtime.engine import NumbaEngine
from minillama.runtime.model import FastModel

__all__ = ["FastDecoder", "FastModel", "NumbaEngine", "compile_kernels"]

log = logging.getLogger("minillama")
SOON = 2.0  # seconds that opening takes where the kernels are compiled already


def compile_kernels(model: FastModel) -> None:
    """Make a model ready to run. The first of a format on a machine waits for its kernels, and is told so."""
    note = "compiling the kernels for %s, which this machine does once: 10 to 20 seconds"
    told = threading.Timer(SOON, log.info, (note, model.form))
    told.daemon = True
    told.start()
    try:
        model.compile()
    finally:
        told.cancel()
