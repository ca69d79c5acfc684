"""The fast model: packed weights, a cache for each sequence, and an engine that runs kernels/ on them."""

from __future__ import annotations

import contextlib
import logging
import threading

from minillama.kernels.decoder import forward
from minillama.kernels.kept import is_kept
from minillama.runtime.decoder import FastDecoder
from minillama.runtime.engine import NumbaEngine
from minillama.runtime.model import FastModel

__all__ = ["FastDecoder", "FastModel", "NumbaEngine", "compile_kernels"]

log = logging.getLogger("minillama")
SOON = 2.0  # seconds that opening takes where the kernels are compiled already


def compile_kernels(model: FastModel) -> None:
    """Make a model ready to run. The first of a format on a machine waits for its kernels, and is told so."""
    once = ", which this machine does once" if is_kept(forward) else ""
    note = "compiling the kernels for %s%s: 10 to 20 seconds"
    told = threading.Timer(SOON, log.info, (note, model.form, once))
    told.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread is left for it
        told.start()
    try:
        model.compile()
    finally:
        told.cancel()
