"""A forked child goes on with what its parent had: it lacks the threads, and must not wait for their locks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.forking import cached_property
from minillama.llama import LlamaForCausalLM
from minillama.weights.mapped import PIECE, MappedFile
from tests.tiny import random_weights, tiny_config

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # Python 3.12 warns of it where there are threads
]
LONG = 60  # seconds after which a child hangs


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    """A model that has run in two threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minillama.runtime.model.SMALL", 0)
        config = tiny_config()
        model = LlamaForCausalLM(config, random_weights(config), engine="numba", dtype="f32", threads=2)
        assert len(answer(model)) > 1000
        yield model


def answer(model: LlamaForCausalLM) -> bytes:
    """Ids and logits, which have the same bits in every process."""
    ids = np.array([[1, 5, 9], [7, 2, 30]])
    return model.generate(ids, max_new_tokens=6).tobytes() + model(ids).logits.tobytes()


def forked(work: Callable[[], bytes]) -> tuple[int, int]:
    """The process id of a child that does some work, and where its bytes can be read."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONG)
        os.write(write, work())
        status = 0
    finally:
        os._exit(status)  # no end of the tests


def got(child: int, read: int) -> bytes:
    with open(read, "rb") as pipe:
        data = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return data


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Another thread has the lock."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_children_answer_with_the_same_bits(model: LlamaForCausalLM) -> None:
    """Several at the same time, as of a server that loads first, and a child's child."""
    children = [forked(lambda: answer(model)) for _ in range(2)]
    children.append(forked(lambda: got(*forked(lambda: answer(model)))))
    assert {got(*child) for child in children} == {answer(model)}


def test_a_fork_while_another_thread_is_at_work(model: LlamaForCausalLM) -> None:
    runner = model._runner
    with held(runner.fast._one_at_a_time), held(runner._making):
        child = forked(lambda: answer(model))
    assert got(*child) == answer(model)


def test_a_fork_while_another_thread_generates(model: LlamaForCausalLM) -> None:
    stop, wanted = threading.Event(), answer(model)

    def work() -> None:
        while not stop.is_set():
            answer(model)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            assert got(*forked(lambda: answer(model))) == wanted
    finally:
        stop.set()
        thread.join()


def test_a_fork_waits_until_nothing_is_being_compiled(model: LlamaForCausalLM) -> None:
    """What Numba has half compiled is of no use to a child."""
    from numba.core.compiler_lock import global_compiler_lock

    def free() -> bytes:
        thread = threading.Thread(target=lambda: global_compiler_lock.acquire())
        thread.start()
        thread.join(10)
        return b"no" if thread.is_alive() else b"yes"

    until = time.monotonic() + 0.2
    taken = threading.Event()

    def compile_something() -> None:
        with global_compiler_lock:
            taken.set()
            time.sleep(until - time.monotonic())

    thread = threading.Thread(target=compile_something)
    thread.start()
    taken.wait()
    child = forked(free)
    assert time.monotonic() >= until
    assert got(*child) == b"yes"
    thread.join()


def test_a_fork_while_another_thread_computes_a_property() -> None:
    class Thing:
        @cached_property
        def slow(self) -> bytes:
            begun.set()
            go.wait()
            return b"computed"

    begun, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: Thing().slow)
    thread.start()
    begun.wait()

    def other() -> bytes:
        go.set()
        return Thing().slow

    child = forked(other)
    go.set()
    assert got(*child) == b"computed"
    thread.join()


def test_a_property_is_computed_once() -> None:
    class Thing:
        @cached_property
        def number(self) -> list[int]:
            return []

    thing = Thing()
    assert thing.number is thing.number
    assert thing.number is not Thing().number


def test_a_child_can_be_interrupted(model: LlamaForCausalLM) -> None:
    ready, write = os.pipe()

    def endless() -> bytes:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            while True:
                answer(model)
                os.write(write, b".")
        except KeyboardInterrupt:
            return b"interrupted"

    child, read = forked(endless)
    assert os.read(ready, 1) == b"."
    os.kill(child, signal.SIGINT)
    assert got(child, read) == b"interrupted"
    for end in (ready, write):
        os.close(end)


_served: list[LlamaForCausalLM] = []


def served(_: int) -> bytes:
    return answer(_served[0])


def test_a_pool_of_processes(model: LlamaForCausalLM) -> None:
    _served[:] = [model]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert set(pool.map(served, range(4))) == {answer(model)}


@pytest.mark.parametrize("absent", [[], ["preadv"], ["preadv", "pread"]])
def test_reading_leaves_the_place_in_a_file_alone(
    absent: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of one fork share it, and would read each other's bytes."""
    for name in absent:
        monkeypatch.delattr(os, name)
    data = np.random.default_rng(3).integers(0, 256, 2 * PIECE + 77, np.uint8).tobytes()
    (tmp_path / "file").write_bytes(data)
    file = MappedFile(tmp_path / "file")
    assert b"".join(bytes(piece) for piece in file.pieces("u1", 5, len(data) - 5)) == data[5:]
    if "pread" not in absent:
        assert os.lseek(file._file.fileno(), 0, os.SEEK_CUR) == 0


def test_every_module_is_there_where_nothing_can_be_forked() -> None:
    """As on Windows, for which locking.py has a branch of its own. What stands beside us in tests and in bench
    may itself be missing, or need what is taken away here."""
    code = """
import os, pkgutil, sys
import jinja2, numba, psutil, sentencepiece, tokenizers, tqdm
for name in ("fork", "register_at_fork", "sched_getaffinity", "preadv", "pread"):
    delattr(os, name)
sys.modules |= dict.fromkeys(("fcntl", "termios", "resource"))
import minillama
for module in pkgutil.walk_packages(minillama.__path__, "minillama."):
    if not module.name.startswith("minillama.testing.adapters") and not module.name.endswith("_peer"):
        __import__(module.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
