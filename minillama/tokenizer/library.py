"""Calls into the tokenizers library, whose panics write to standard error before they can be caught."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from minillama.forking import renew_after_fork

Result = TypeVar("Result")
Given = ParamSpec("Given")
_STDERR = 2
_PANIC = re.compile(rb"^\n?thread '[^\n]* panicked at ", re.MULTILINE)  # how Rust begins to tell of one


def quietly(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function, whose panics and plain Exceptions become ValueErrors of one sentence, with nothing written."""

    @wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with _capture:
            try:
                return function(*args, **kwargs)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # a panic is not an Exception, and the library's other errors are plain ones
                if isinstance(error, Exception) and type(error) is not Exception:
                    raise
                if not isinstance(error, Exception):
                    _capture.panicked = True
                words = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"the tokenizers library fails: {words}") from None

    return call


class Quiet:
    """An object of the library, each of its methods called quietly."""

    def __init__(self, inner: Any):
        self.__dict__["inner"] = inner

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of copying, which is this object's own affair
            raise AttributeError(name)
        value = getattr(self.__dict__["inner"], name)
        return quietly(value) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        quietly(setattr)(self.inner, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Capture:
    """Keeps what is written to standard error while any thread is in the library; when the last leaves, that is written
    after all, except what a panic said.

    Standard error is of the whole process: a program that another thread starts meanwhile would inherit what is put in
    its place. So nothing is kept while other threads of the program run (daemons and ours start nothing), and then a
    panic's own words are seen.
    """

    def __init__(self) -> None:
        self._real: int | None = None
        self.renew()

    def renew(self) -> None:
        """In a child process: lock and file are the parent's, and standard error is put back."""
        if self._real is not None:
            os.dup2(self._real, _STDERR)
            os.close(self._real)
        self._lock = threading.Lock()
        self._inside = 0
        self._file: Any = None
        self._real = None
        self.panicked = False

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            try:
                if self._inside == 1 and not _others_run():
                    self._begin()
            except BaseException:  # Ctrl-C in between
                self._leave()
                raise

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._leave()

    def _leave(self) -> None:
        self._inside = max(self._inside - 1, 0)  # a child forked in here begins with 0
        if self._inside == 0:
            self._end()

    def _begin(self) -> None:
        self.panicked = False
        with contextlib.suppress(OSError):  # closed, or no room for a file: then nothing is caught
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # kept for the next call
                atexit.register(self._file.close)
            if self._real is None:  # else Ctrl-C came before it was put back
                self._real = os.dup(_STDERR)
            os.dup2(self._file.fileno(), _STDERR)

    def _end(self) -> None:
        if self._real is None:
            return
        os.dup2(self._real, _STDERR)
        os.close(self._real)
        self._real = None
        if size := self._file.tell():  # the two descriptors have one place in the file
            self._file.seek(0)
            written = self._file.read(size)
            self._file.seek(0)
            self._file.truncate()
            panic = _PANIC.search(written) if self.panicked else None
            with contextlib.suppress(OSError):
                for part in _parts(written[: panic.start()] if panic else written):
                    os.write(_STDERR, part)


def _others_run() -> bool:
    others = (thread for thread in threading.enumerate() if thread is not threading.current_thread())
    return any(not thread.daemon and not thread.name.startswith("minillama") for thread in others)


def _parts(written: bytes) -> Iterator[bytes]:
    """In pieces that a pipe takes whole."""
    for start in range(0, len(written), 4096):
        yield written[start : start + 4096]


_capture = _Capture()
renew_after_fork(_capture)
