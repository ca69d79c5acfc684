"""Imports run one way: arrays and config are the ground, on it stand rooms that do not know each other."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "minillama"
FILES = sorted(PACKAGE.rglob("*.py"))
GROUND = {
    "arrays",
    "compat",
    "config",
    "fields",
    "files",
    "forking",
    "growing_text",
    "layout",
    "messages",
    "vocabulary",
}
# What the files of a room may import of the package, their own room aside. A new room needs a line here
MAY_IMPORT = {
    "arrays": set(),
    "compat": set(),
    "fields": set(),
    "files": set(),
    "forking": set(),
    "growing_text": set(),
    "locking": set(),
    "commands": {"__init__", "files", "messages"},
    "staging": {"files", "locking"},
    "config": {"arrays", "files", "messages"},
    "layout": set(),
    "messages": set(),
    "vocabulary": set(),
    "shipped": set(),
    "model": GROUND,
    "weights": GROUND,
    "tokenizer": GROUND,
    "generation": GROUND,
    "kernels": GROUND,
    "runtime": GROUND | {"kernels", "model", "weights"},  # of the model its rotary frequencies, which have one owner
    "outputs": GROUND | {"model"},
    "engines": GROUND | {"weights", "kernels"},
    "copying": GROUND | {"weights"},
    "pretrained": GROUND | {"copying", "model", "weights", "engines", "runtime"},
    "loading": GROUND | {"tokenizer", "weights"},
    "chat": GROUND | {"generation", "tokenizer"},
    "converting": GROUND
    | {"__init__", "loading", "staging", "weights", "tokenizer", "generation", "engines", "runtime"},
    "checking": GROUND | {"loading", "staging", "converting", "weights", "tokenizer", "generation"},
    "llama": GROUND | {"model", "weights", "generation", "outputs", "pretrained", "runtime"},
    "debug": GROUND | {"model", "weights"},
    "testing": GROUND | {"model", "weights", "generation", "kernels", "runtime"},  # the last two for adapters alone
    "benchmarks": GROUND
    | {"__init__", "model", "weights", "generation", "llama", "loading", "kernels", "engines", "runtime", "shipped"}
    | {"commands", "debug", "trace"},  # which is timed
}
# The map of the package, and the commands
MAY_IMPORT_ALL = {"__init__", "generate", "convert", "bench", "evaluate", "notebooks", "trace", "compare"}
FRAMEWORKS = {"torch", "transformers"}
PEER = PACKAGE / "benchmarks" / "transformers_peer.py"  # runs in a process of its own, when it is asked for


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path) -> Iterator[str]:
    """The dotted names of all modules a file imports, inside functions and for type checking too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import: write it out"
            for alias in node.names:
                # `from minillama import config` imports the module that `from minillama.config import x` does
                yield f"{node.module}.{alias.name}" if node.module == "minillama" else str(node.module)


def rooms_imported(file: Path) -> set[str]:
    names = (name.split(".") for name in imported(file))
    return {"__init__" if len(parts) == 1 else parts[1] for parts in names if parts[0] == "minillama"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_what_it_stands_on(file: Path) -> None:
    room = room_of(file)
    if room not in MAY_IMPORT_ALL:
        assert rooms_imported(file) <= MAY_IMPORT[room] | {room}


def test_what_is_expected_of_others_does_not_come_from_kernels() -> None:
    for file in FILES:
        if room_of(file) == "testing" and file.parent.name != "adapters":
            assert not rooms_imported(file) & {"kernels", "runtime"}, file


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_framework_is_imported_anywhere(file: Path) -> None:
    if file == PEER:
        importers = {name for other in FILES for name in imported(other)}
        assert "minillama.benchmarks.transformers_peer" not in importers
    else:
        assert not FRAMEWORKS & {name.split(".")[0] for name in imported(file)}


def test_the_reader_of_imports_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(
        "import minillama\nfrom minillama import config\nimport minillama.weights.names as n, torch.nn\n"
        "def f():\n    from minillama.model.rope import rotate\n"
    )
    assert rooms_imported(file) == {"__init__", "config", "weights", "model"}
    assert "torch.nn" in set(imported(file))
    assert len(FILES) > 25


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import minillama", {"numpy", "numba", "torch", "sentencepiece", "tokenizers", "minillama.llama"}),
        ("from minillama import LlamaForCausalLM", {"numba", "torch", "sentencepiece", "minillama.tokenizer"}),
        ("from minillama import load_tokenizer", {"numba", "torch", "jinja2", "minillama.model", "minillama.weights"}),
    ],
)
def test_importing_brings_in_no_more_than_is_needed(statement: str, absent: set[str]) -> None:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "minillama" in done.stdout.split()
    assert not absent & set(done.stdout.split())
