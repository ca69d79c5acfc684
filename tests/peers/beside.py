"""llama.cpp, where llama-cpp-python is installed (the peers extra); with MINILLAMA_PEERS=1 it is an error if that is
missing. Not in a module of tests: pytest leaves half of one behind that is skipped while another imports it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array

if os.environ.get("MINILLAMA_PEERS") == "1":
    import llama_cpp  # it has to be there
else:
    llama_cpp = pytest.importorskip("llama_cpp")


def theirs(file: Path) -> Any:
    """The model in llama.cpp, with a cache of float32 instead of its own float16."""
    return llama_cpp.Llama(str(file), n_ctx=512, n_threads=1, verbose=False, logits_all=True, type_k=0, type_v=0)


def their_logits(file: Path, ids: list[int]) -> Array:
    """Those after each of the ids, (T, V)."""
    model = theirs(file)
    model.eval(ids)
    return np.array(model.scores[: len(ids)])
