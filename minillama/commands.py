"""What the commands have in common: how they read their arguments and texts, say what went wrong, and end."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from threadpoolctl import threadpool_limits

import minillama
from minillama.files import read_bytes
from minillama.messages import printable, shown

LONGEST = 500  # characters of a message that others worded
# Without the name of a file these are of standard output: minillama.files writes all else, and names it
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

# argparse speaks of its types
_INVALID = re.compile(r"^argument (?:-\w, |-\w/)?(--\S+): invalid (int|float) value:")
_KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        """End the command with status 2."""
        message = _INVALID.sub(lambda found: f"{found[1]} must be {_KINDS[found[2]]}, not", message)
        self.exit(2, f"minillama: {one_line(message)}: see {self.prog} --help\n")


def one_line(message: object) -> str:
    """A message in one line of bounded length, fit for a terminal."""
    text = printable(" ".join(str(message).split()))
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def sentence(error: Exception) -> str:
    """What an error says, in one line. What only the system worded gets the name of what it is about."""
    if isinstance(error, OSError) and error.strerror is not None:
        if error.filename is not None:
            return printable(f"{os.fsdecode(error.filename)} cannot be opened: {error.strerror}")
        if error.errno in UNWRITABLE:
            return f"standard output cannot be written: {error.strerror}"
    return printable(str(error) or type(error).__name__)


def parser(name: str, description: str, examples: str, **settings: Any) -> argparse.ArgumentParser:
    """The parser of `python -m minillama.NAME`, with --version, and examples below its help."""
    p = Parser(
        prog=f"python -m minillama.{name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **settings,
    )
    p.add_argument("--version", action="version", version=f"minillama {minillama.__version__}")
    return p


class OneLine(logging.Formatter):
    """Formats each message of the log as one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))


def begin() -> bool:
    """Have warnings told on standard error and texts in UTF-8 on standard output; whether the former is a terminal,
    where it is told what takes its time, too."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("minillama: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO if on_terminal else logging.WARNING)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    return on_terminal


def status_of(work: Callable[[], int | None], failed: int = 1) -> int:
    """Do the work; the exit status: what it returns, 0 for None; `failed` after an error, which is told in one line;
    130 if it was interrupted. An unforeseen error has a traceback under `python -X dev`."""
    try:
        status = work() or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, MemoryError) as error:
        if reader_has_gone(error):
            # As with `| head`. Python would complain once more when it closes standard output
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"minillama: {sentence(error)}", file=sys.stderr)
        return failed
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        print(
            f"minillama: unexpected {one_line(f'{type(error).__name__}: {error}')}: "
            "please report it, with what the same command prints under python -X dev",
            file=sys.stderr,
        )
        return failed


def reader_has_gone(error: Exception) -> bool:
    """Whether the program that standard output was piped to has ended. Windows says only that the pipe is invalid."""
    invalid = sys.platform == "win32" and isinstance(error, OSError) and error.errno == errno.EINVAL
    return isinstance(error, BrokenPipeError) or invalid


def end(main: Callable[[], int]) -> NoReturn:
    """Run a command as a program. Its file lets Ctrl-C end it without a traceback until this is called."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(main())
    except KeyboardInterrupt:  # while the arguments are read
        sys.exit(130)


def check_threads(threads: int | None) -> None:
    """ValueError for fewer threads than one."""
    if threads is not None and threads < 1:
        raise ValueError(f"--threads must be at least 1, not {threads}")


def limited_threads(threads: int | None) -> AbstractContextManager[Any]:
    """So many threads for matrix products, from here on until the context ends; None: all."""
    return threadpool_limits(threads, user_api="blas") if threads else nullcontext()


def read_text(source: str, option: str = "-") -> str:
    """A text of UTF-8: a file, or standard input for `-`. ValueError or OSError, one sentence, if it cannot be read.

    option: how it was asked for, in the message that standard input is closed.
    """
    try:
        if source != "-":
            return decoded(source, read_bytes(source))
    except OSError as error:
        raise OSError(f"{source} cannot be read: {error.strerror}") from None
    if sys.stdin is None:
        raise ValueError(f"{option} reads standard input, and that is closed")
    try:
        data = sys.stdin.buffer.read()
    except OSError as error:
        raise OSError(f"standard input cannot be read: {error.strerror}") from None
    return decoded("standard input", data)


def decoded(source: str, data: bytes) -> str:
    """Bytes as text, a mark of the byte order taken off. ValueError if they are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not UTF-8 text (byte {error.start}): convert it first") from None


def check_paths(*paths: str | None) -> None:
    """ValueError for a path that is empty, as an unset variable of a shell leaves it."""
    if "" in paths:
        raise ValueError("a path is empty: name a file or a folder")


def check_picture(file: str | None) -> None:
    """ValueError if no picture can be drawn into a file, which is known before anything is measured."""
    if file is None:
        return
    if find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: run `pip install matplotlib`")
    check_output("--plot", file, (".png", ".svg"))


def check_output(option: str, file: str, endings: Sequence[str]) -> None:
    """ValueError if a file that an option names cannot be one of these kinds, or has no folder to be written into."""
    if Path(file).suffix not in endings:
        raise ValueError(f"{option} writes a {' or '.join(endings)} file, not {shown(file)}")
    if Path(file).is_dir():
        raise ValueError(f"{option} cannot write {file}: a folder has its name")
    if not Path(file).absolute().parent.is_dir():
        raise ValueError(f"{option} cannot write {file}: make its folder first")
