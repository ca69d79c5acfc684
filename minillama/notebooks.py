"""Hand out the course, as a copy to work in, and open it:  python -m minillama.notebooks"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until main runs, Ctrl-C ends without a traceback

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from minillama import commands
from minillama.files import write_files
from minillama.shipped import course

FOLDER = "minillama-course"
FIRST = "00_the_map.ipynb"
NEEDED = ("jupyterlab", "matplotlib")
NAMED = 5  # of the files that stay, in the message

EXAMPLES = """examples:
  python -m minillama.notebooks
  python -m minillama.notebooks lessons --no-open --no-solutions
"""


def parser() -> argparse.ArgumentParser:
    p = commands.parser(
        "notebooks",
        "Copy the course into a folder and open it in JupyterLab. What is in the folder stays as it is; what is "
        "missing is added, so that a chapter deleted comes back fresh.",
        EXAMPLES,
        allow_abbrev=False,
    )
    p.add_argument("folder", nargs="?", metavar="DIR", default=FOLDER, help=f"where to (default: {FOLDER})")
    p.add_argument("--no-open", action="store_true", help="copy only")
    p.add_argument("--no-solutions", action="store_true", help="leave the solutions out, to hand the folder to a class")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status. 0: done; 1: it could not be done; 2: wrong usage; 130: interrupted; else
    that of JupyterLab."""
    p = parser()
    args = p.parse_args(argv)
    if not args.folder:
        p.error("a path is empty")
    return commands.status_of(lambda: run(Path(args.folder), not args.no_solutions, not args.no_open))


def run(folder: Path, solutions: bool, opened: bool) -> int:
    """Hand the course out, and open it if it is to be; the exit status."""
    changed = hand_out(folder, solutions)
    if changed:
        print(f"minillama: {kept(folder, changed)}", file=sys.stderr)
    if opened:
        return open_in_jupyter(folder)
    print(f"the course is in {folder}; begin with {FIRST}", flush=True)
    return 0


def hand_out(folder: Path, solutions: bool = True) -> list[str]:
    """Copy what is missing of the course into a folder; the names of the files there that are not as they come.

    No file that exists is ever written to. OSError, one sentence, if the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder: name one, or a new one, for the course")
    missing, changed = {}, []
    for name, contents in course_files(solutions).items():
        place = folder / name
        if not place.exists():
            missing[place] = contents
        elif not place.is_file() or place.read_bytes() != contents:
            changed.append(name)
    if missing:
        write_files(missing)
    return changed


def course_files(solutions: bool = True) -> dict[str, bytes]:
    """The files of the course by their names within its folder, those aside that running it leaves there."""
    here = course()
    names = {file: file.relative_to(here) for file in sorted(here.rglob("*")) if file.is_file()}
    return {
        name.as_posix(): file.read_bytes()
        for file, name in names.items()
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        and (solutions or name.parts[0] != "solutions")
    }


def kept(folder: Path, changed: Sequence[str]) -> str:
    """A sentence about the files that stay."""
    more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
    return (
        f"{', '.join(changed[:NAMED])}{more} in {folder} will stay as changed there: "
        "name another folder to get them as they come"
    )


def open_in_jupyter(folder: Path) -> int:
    """Run JupyterLab in the folder until it ends; its exit status."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        print(
            f"minillama: the course is in {folder}, and to run it {' and '.join(absent)} is missing: "
            "python -m pip install jupyter matplotlib",
            file=sys.stderr,
        )
        return 1
    jupyter = subprocess.Popen([sys.executable, "-m", "jupyterlab", FIRST], cwd=folder)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # JupyterLab takes Ctrl-C, and asks whether it was meant
    try:
        return jupyter.wait()
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    commands.end(main)
