"""Every reader on inputs that were found by fuzzing, and on some thousand that are drawn from a seed.

Whatever a file holds, reading it ends soon, in little memory, and works or is refused in a sentence that names it.
"""

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, execute, seeds_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, about numbers in the files that overflow
CORPUS = Path(__file__).parent / "corpus"
DRAWN = 300  # of each target
SECONDS = 1.0  # of the processor; a thousand times what most take
# Python has some hundred bytes for the three of `{},`, a reader some objects for each tensor, NumPy its float64s; the
# first use of a module or a tokenizer is not the input's doing
MULTIPLE, ROOM = 100, 8 << 20


@pytest.fixture(scope="module", autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def assert_within_bounds(name: str, data: bytes, folder: Path) -> bool:
    """Run one input; whether it was sound."""
    tracemalloc.reset_peak()
    before, begin = tracemalloc.get_traced_memory()[0], time.process_time()
    error = execute(TARGETS[name], data, folder)
    assert time.process_time() - begin < SECONDS
    assert tracemalloc.get_traced_memory()[1] - before < ROOM + MULTIPLE * len(data)
    assert not isinstance(error, MemoryError)
    return error is None


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_stays_found(name: str, tmp_path: Path) -> None:
    TARGETS[name].beside(tmp_path)
    assert all(assert_within_bounds(name, seed, tmp_path) for seed in seeds_of(name)[:1]), "a seed is sound"
    for file in sorted((CORPUS / name).glob("*")):
        assert_within_bounds(name, file.read_bytes(), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_drawn_changes_of_sound_files(name: str, tmp_path: Path) -> None:
    target, rng, pool = TARGETS[name], Random(name), list(seeds_of(name))
    target.beside(tmp_path)
    sound = 0
    for _ in range(DRAWN):
        sound += assert_within_bounds(name, mutated(rng.choice(pool), pool, rng, target.shape), tmp_path)
    assert sound < DRAWN
