"""Compiled kernels, which Numba keeps on disk where it can.

Keeping them only saves time, so nothing that goes wrong with it ends a run: kernels that cannot be written are compiled
anew by every run, and kernels that cannot be read, or are damaged, are compiled once more.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from typing import Any

from numba import njit, typeof
from numba.core import config
from numba.core.caching import FunctionCache, NullCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps

log = logging.getLogger("minillama")
ANEW = "every run compiles them anew; set NUMBA_CACHE_DIR to a folder that can be written"
_told: set[str] = set()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called with arguments of these types. It runs without Python's lock."""
    compiled = njit(nogil=True)(function)
    if not config.DISABLE_JIT:
        try:
            compiled._cache = _Kept(function)
        except (RuntimeError, OSError):  # no folder: neither beside the file nor the user's own
            compiled._cache = _NotKept()
    return compiled


class _Kept(FunctionCache):
    """Numba's folder of compiled code, whose errors are told and not raised.

    Each entry holds a digest of itself and of its key. Damaged machine code would end the process. And Numba writes its
    index first: where it could not write the code, a new entry names the file of an old one.
    """

    def load_overload(self, signature: Any, context: Any) -> Any:
        context.refresh()
        try:
            entry = self._cache_file.load(self._index_key(signature, context.codegen()))
            if entry is None:
                return None
            digest, code = entry
            if digest != self._digest(signature, context.codegen(), code):
                raise ValueError("they are damaged, or others")
            return self._impl.rebuild(context, pickle.loads(code))
        except Exception as error:  # unpickling raises anything
            log.info("compiled kernels in %s cannot be read, and are made anew: %s", self.cache_path, error)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        try:
            if not self._impl.check_cachable(result):
                return
            self._impl.locator.ensure_cache_path()
            code = dumps(self._impl.reduce(result))
            entry = (self._digest(signature, result.codegen, code), code)
            key = self._index_key(signature, result.codegen)
            try:
                self._cache_file.save(key, entry)
            except Exception as error:  # its index cannot be read: begin a new one
                if isinstance(error, OSError) and not isinstance(error, PermissionError):
                    raise
                self._cache_file.flush()
                self._cache_file.save(key, entry)
        except Exception as error:
            _tell("compiled kernels cannot be kept in %s (%s): " + ANEW, self.cache_path, _reason(error))

    def _digest(self, signature: Any, codegen: Any, code: bytes) -> bytes:
        _, machine, function = self._index_key(signature, codegen)
        of = repr((self._impl.locator.get_source_stamp(), str(signature), machine, function))
        return hashlib.sha256(of.encode() + code).digest()


class _NotKept(NullCache):
    """What stands for a folder where there is none."""

    def save_overload(self, signature: Any, result: Any) -> None:
        _tell("compiled kernels cannot be kept, as no folder for them can be written: " + ANEW)


def _tell(message: str, *values: object) -> None:
    """Say it once: what cannot be kept of one kernel cannot be of the others."""
    if message not in _told:
        _told.add(message)
        log.warning(message, *values)


def _reason(error: Exception) -> object:
    return getattr(error, "strerror", None) or error


def is_kept(kernel: Any) -> bool:
    """Whether there is a folder for what is compiled of a kernel."""
    return isinstance(getattr(kernel, "_cache", None), _Kept)


def is_compiled(kernel: Any, arguments: Sequence[Any]) -> bool:
    """Whether a call of a kernel with such arguments needs no compilation.

    Numba has no public way to ask; where it keeps compiled code in another way than is known here, the answer is no.
    """
    signature = tuple(map(typeof, arguments))
    try:
        return signature in kernel.overloads or kernel._cache.load_overload(signature, kernel.targetctx) is not None
    except AttributeError:
        return False


if hasattr(os, "register_at_fork"):
    # A process that is forked while a thread compiles would find the compiler locked for ever, and at work on something
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
