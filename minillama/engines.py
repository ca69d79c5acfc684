"""Which engine runs a model, and in which number format: what a user asks for, or what is best."""

from __future__ import annotations

import importlib
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import DTypeLike

from minillama import kernels
from minillama.config import LlamaConfig
from minillama.kernels import ACTIVATIONS
from minillama.layout import BITS, COMPRESSED, MADE, PACKED, QUANTIZED
from minillama.messages import shown
from minillama.weights.formats import FLOATS
from minillama.weights.mixed import main_format, matrix_forms, stored_format
from minillama.weights.names import EMBED_TOKENS
from minillama.weights.parameters import count
from minillama.weights.safetensors import Tensor

ENGINES = ("auto", "numpy", "numba")
# Number formats by their short names, with those of NumPy and torch
FORMATS = {
    "float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "bf16z": "bf16z",
    "q8_0": "q8_0", "q4_0": "q4_0",
}  # fmt: skip
DTYPES = ("auto", *FORMATS.values())
CACHE_DTYPES = ("auto", "f32", "f16", "bf16")
OF_NUMPY = ("f64", "f32")  # what the NumPy model computes in
STORED_AS = {"F64": "f32", "F32": "f32", "F16": "f16", "BF16": "bf16"} | {form.upper(): form for form in PACKED}
LARGE = 50_000_000  # weights: from here on compiled kernels are worth their compilation
WORTH_A_WORD = 100e6  # bytes of weights in the checkpoint's own format
log = logging.getLogger("minillama")


class Choice(NamedTuple):
    """An engine, "numpy" or "numba", and the format it has the weights in."""

    engine: str
    form: str


def cores() -> int:
    """How many cores this process may use, those of one core's two threads counted once."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def checked_format(dtype: DTypeLike) -> str:
    """The short name of a number format, or "auto". ValueError for one that is unknown."""
    if str(dtype).startswith("torch."):  # a type of torch
        dtype = str(dtype).removeprefix("torch.")
    name = "auto" if dtype is None else dtype if isinstance(dtype, str) else np.dtype(dtype).name
    form = FORMATS.get(name, name)
    if form not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {shown(name)}")
    return form


def checked_cache_format(dtype: DTypeLike) -> str:
    """The short name of a number format of the cache, or "auto". ValueError for another."""
    form = checked_format(dtype)
    if form not in CACHE_DTYPES:
        raise ValueError(f"cache_dtype must be one of {', '.join(CACHE_DTYPES)}, not {shown(form)}")
    return form


def check_engine(engine: str, form: str, compat: str | None, cache_form: str = "auto") -> None:
    """ValueError for an engine that is unknown, or does not do what is asked for."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {shown(engine)}")
    if engine == "numba" and form == "f64":
        raise ValueError("engine 'numba' has no float64: use engine 'numpy' for it")
    if engine == "numpy" and form not in ("auto", *OF_NUMPY):
        raise ValueError(f"engine 'numpy' computes in f32 or f64: use engine 'numba' for {form}")
    if engine == "numpy" and cache_form != "auto":
        raise ValueError(f"engine 'numpy' caches what it computes in: use engine 'numba' for a cache in {cache_form}")
    if compat is not None and (engine == "numba" or form not in ("auto", *OF_NUMPY)):
        raise ValueError(
            f"compat {shown(compat)} is a way of engine 'numpy': leave compat out, or take that, in f32 or f64"
        )


def choose(
    engine: str, form: str, compat: str | None, config: LlamaConfig, tensors: Mapping[str, Tensor], where: object
) -> Choice:
    """What to run a model with. "auto" takes numba for large models that it can run.

    The format "auto" of numba is the checkpoint's own if the memory that is free has room for it, else q8_0, else
    q4_0; a line of the log says which and why. MemoryError if there is room for none.
    """
    known = isinstance(config.hidden_act, str) and config.hidden_act in ACTIVATIONS
    if engine == "auto":
        only_numba = form not in ("auto", *OF_NUMPY)
        large = count(tensors) >= LARGE and form != "f64" and compat is None and known
        if large and not only_numba and (trouble := kernels_trouble()):
            log.warning("engine numpy runs, which is slower: %s", trouble)
            large = False
        engine = "numba" if only_numba or large else "numpy"
    if engine == "numpy":
        return Choice(engine, "f32" if form == "auto" else form)
    if not known:
        raise ValueError(
            f"engine 'numba' has no hidden_act {shown(config.hidden_act)}, a function: use engine 'numpy', in f32"
        )
    return Choice(engine, _fitting(form, tensors, where))


def cache_format(cache_form: str, form: str, weights: int) -> str:
    """The format of the cache of numba: as asked for, or float16, in which it takes half the memory and time; float32
    for weights in that, and for small models, where it costs nothing and keeps texts the same on both engines."""
    if cache_form != "auto":
        return cache_form
    return "f32" if form == "f32" or weights < LARGE else "f16"


def maybe_compiled() -> bool:
    """Whether kernels may have been compiled on this machine before, which is known without Numba; where it keeps them
    elsewhere than beside this package, it has to be asked."""
    folder = Path(kernels.__file__).parent
    if os.environ.get("NUMBA_CACHE_DIR") or not os.access(folder, os.W_OK):
        return True
    return any((folder / "__pycache__").glob("decoder*.nbi"))


def kernels_trouble() -> str | None:
    """Why the kernels cannot run on this machine, if they cannot. Numba is imported for it."""
    try:
        from numba import config

        importlib.import_module("minillama.kernels.decoder")
    except Exception as error:  # ImportError, or what a broken installation of Numba or LLVM raises
        return f"Numba cannot be used here ({error or type(error).__name__}), install it again"
    return "NUMBA_DISABLE_JIT is set, unset it for engine numba" if config.DISABLE_JIT else None


def memory_needed(form: str, tensors: Mapping[str, Tensor]) -> int:
    """Bytes that the weights take in a format; those that are stored in it stay mapped, and are wanted in memory all
    the same."""
    forms = matrix_forms(form, tensors)
    sizes: dict[int, int] = {}
    for name, tensor in tensors.items():
        if name != EMBED_TOKENS:
            bits = BITS[forms.get(name, form)] if len(tensor.shape) == 2 else 32
            sizes[id(tensor)] = int(math.prod(tensor.shape) * bits / 8)
    return sum(sizes.values())


def _fitting(form: str, tensors: Mapping[str, Tensor], where: object) -> str:
    own = STORED_AS.get(main_format(tensors), "q8_0")  # what the kernels have no format for is quantized anew
    free = psutil.virtual_memory().available
    candidates = [own, *(other for other in MADE if BITS[other] < BITS[own])] if form == "auto" else [form]
    for candidate in candidates:
        need = memory_needed(candidate, tensors)
        if need <= free:
            if form == "auto" and (need >= WORTH_A_WORD or candidate != own):
                why = f"{need / 1e9:.1f} GB" + ("" if candidate == own else f", as {own} does not fit the memory free")
                if candidate in QUANTIZED and _compressed_would_fit(own, tensors, free):
                    why += (
                        f"; {COMPRESSED} would, with {memory_needed(COMPRESSED, tensors) / 1e9:.1f}, and loses nothing"
                    )
                log.log(logging.INFO if candidate == own else logging.WARNING, "weights in %s, %s", candidate, why)
            for target, others in _quantized_otherwise(candidate, tensors).items():
                log.warning("what is in %s is quantized anew, to %s", ", ".join(others), target)
            return candidate
    raise MemoryError(
        f"{where} needs {memory_needed(candidates[-1], tensors) / 1e9:.1f} GB of memory in {candidates[-1]} and "
        f"{free / 1e9:.1f} GB are free: {_what_would_fit(own, tensors, free)}"
    )


def _compressed_would_fit(own: str, tensors: Mapping[str, Tensor], free: int) -> bool:
    return own == "bf16" and memory_needed(COMPRESSED, tensors) <= free


def _what_would_fit(own: str, tensors: Mapping[str, Tensor], free: int) -> str:
    """The largest of the smaller formats that fits; if none does, how much is missing for the smallest."""
    if _compressed_would_fit(own, tensors, free):
        return f"{COMPRESSED} would do with {memory_needed(COMPRESSED, tensors) / 1e9:.1f}, and loses nothing"
    for form in sorted(MADE, key=BITS.__getitem__, reverse=True):
        need = memory_needed(form, tensors)
        if need <= free:
            return f"{form} would do with {need / 1e9:.1f}"
    most = free * 8 / BITS[form]
    return (
        f"{form} would do with {(need - free) / 1e9:.1f} GB more, "
        f"and a model of up to {most / 1e9:.1f} billion weights with what is free"
    )


def _quantized_otherwise(form: str, tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The formats of quantized matrices that are to be quantized to another, by that other."""
    found: dict[str, set[str]] = {}
    for name, target in matrix_forms(form, tensors).items():
        stored = stored_format(tensors[name])
        if target in QUANTIZED and stored not in (*FLOATS, target.upper()):
            found.setdefault(target, set()).add(stored)
    return {target: sorted(formats) for target, formats in found.items()}
