"""What a panic of the tokenizers library says is not written. Stand-ins panic: no input here makes the library."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from minillama import generate
from minillama.shipped import tale_model
from minillama.tokenizer import AutoTokenizer, LlamaTokenizerFast, json_file
from minillama.tokenizer.library import Quiet, quietly
from tests.bad import Capture, assert_refused

SAID = b"\nthread '<unnamed>' panicked at src/x.rs:1:2:\nno such thing\nnote: run with `RUST_BACKTRACE=1`\n"
WORDS = "the tokenizers library fails: no such thing"


class PanicException(BaseException):  # as the library's own is called
    pass


def panic(*args: Any, **kwargs: Any) -> Any:
    os.write(2, SAID)
    raise PanicException("no\nsuch thing")


class Panics:
    """An object of the library of which one method panics, and the others are those of a sound one."""

    def __init__(self, sound: tokenizers.Tokenizer, method: str):
        self._sound, self._method = sound, method

    def __getattr__(self, name: str) -> Any:
        return panic if name == self._method else getattr(self._sound, name)


@pytest.mark.parametrize(
    ("method", "use"),
    [
        ("encode", lambda t: t.encode("a")),
        ("encode", lambda t: t.tokenize("a")),
        ("encode_batch", lambda t: t(["a", "b"])),
        ("enable_padding", lambda t: t(["a", "b c"], padding=True)),
        ("enable_truncation", lambda t: t("a", truncation=True, max_length=2)),
        ("decode", lambda t: t.decode([5])),
        ("id_to_token", lambda t: t.convert_ids_to_tokens([5])),
        ("token_to_id", lambda t: t.convert_tokens_to_ids(["a"])),
        ("add_tokens", lambda t: t.add_tokens(["new"])),
        ("add_special_tokens", lambda t: t.add_special_tokens({"pad_token": "<pad>"})),
        ("get_vocab", lambda t: t.get_vocab()),
        ("to_str", lambda t: t.encode("a", split_special_tokens=True)),
    ],
)
def test_every_call_is_quiet(method: str, use: Any, capfd: Capture) -> None:
    tokenizer = LlamaTokenizerFast.from_pretrained(tale_model(), pad_token="</s>")
    tokenizer.backend = Quiet(Panics(tokenizer.backend_tokenizer, method))
    with pytest.raises(ValueError, match=WORDS):
        use(tokenizer)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["from_file", "from_str"])
def test_a_file_that_the_library_panics_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    def refuse(*args: Any) -> Any:
        raise Exception("another form")  # as the library does, plainly

    class StandIn:
        from_file = staticmethod(panic if name == "from_file" else refuse)
        from_str = staticmethod(panic)

    monkeypatch.setattr(json_file.tokenizers, "Tokenizer", StandIn)
    file = tmp_path / "tokenizer.json"
    file.write_bytes((tale_model() / "tokenizer.json").read_bytes())
    words = f"{file} is not a sound tokenizer.json ({WORDS}): get it again"
    assert_refused(capfd, ["--tokenizer", file], words, run=generate.main)  # one line, and nothing else


def test_what_others_write_meanwhile_is_not_lost(capfd: Capture) -> None:
    @quietly
    def sound() -> int:
        os.write(2, b"a warning\n" * 1000)
        return quietly(os.write)(2, b"another\n")  # a call within a call

    assert sound() == 8
    assert capfd.readouterr() == ("", "a warning\n" * 1000 + "another\n")

    @quietly
    def unsound() -> None:
        print("a line before", file=sys.stderr, flush=True)
        panic()

    with pytest.raises(ValueError, match=WORDS):
        unsound()
    os.write(2, b"and after\n")
    assert capfd.readouterr() == ("", "a line before\nand after\n")


def test_threads_that_are_in_the_library_together(capfd: Capture) -> None:
    """They are told apart from each other. A panic's own words are seen, as there are other threads."""
    gate, failed = threading.Barrier(5, timeout=30), []

    @quietly
    def meet() -> None:
        gate.wait()
        panic()

    def work() -> None:
        try:
            meet()
        except ValueError as error:
            failed.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [WORDS] * 5
    print("still here", file=sys.stderr)
    assert capfd.readouterr() == ("", SAID.decode() * 5 + "still here\n")


def test_a_program_that_another_thread_starts_meanwhile_speaks(capfd: Capture) -> None:
    within, started = threading.Event(), threading.Event()

    @quietly
    def work() -> None:
        within.set()
        started.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    within.wait(30)
    code = "import sys; sys.stdin.read(); print('from the other', file=sys.stderr)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True) as other:
        started.set()
        thread.join()
        other.communicate("")
    assert capfd.readouterr() == ("", "from the other\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_forked_within_the_library_speaks(capfd: Capture) -> None:
    @quietly
    def fork() -> int:
        return os.fork()

    if (child := fork()) == 0:
        os.write(2, b"from the child\n")
        with contextlib.suppress(ValueError):
            quietly(panic)()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert capfd.readouterr() == ("", "from the child\n")


def test_other_errors_stay_what_they_are() -> None:
    for error in (ValueError("a"), TypeError("b"), KeyboardInterrupt(), SystemExit(3), OSError(2, "c")):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            quietly(fail)()
        assert caught.value is error


def test_a_closed_standard_error() -> None:
    code = (
        "import os; os.close(2); from minillama.tokenizer import AutoTokenizer;"
        "from minillama.shipped import tale_model;"
        "print(AutoTokenizer.from_pretrained(tale_model()).encode('The'))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.split() == [b"[1,", b"346]"]


def test_a_tokenizer_is_copied_and_pickled() -> None:
    tokenizer = AutoTokenizer.from_pretrained(tale_model())
    for copied in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        copied.add_tokens(["<new>"])
        assert copied.encode("<new>", add_special_tokens=False)[-1] == 4096
    assert len(tokenizer) == 4096
