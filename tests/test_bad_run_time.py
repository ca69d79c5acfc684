"""Runs that cannot go well, and odd ones that must: settings, prompts, weights, paths, pipes and interruptions."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.loading import load_tokenizer
from minillama.model.engine import NumpyEngine
from minillama.shipped import tale_model
from tests.bad import (
    BOUND,
    CONFIG,
    VOCAB,
    Capture,
    assert_refused,
    assert_runs,
    checkpoint,
    command,
    random_tensors,
    spawn,
)

CONTEXT = CONFIG["max_position_embeddings"]
GREEDY = ("--temperature", 0)
WINDOWS = sys.platform == "win32"
GATE = "model.layers.1.mlp.gate_proj.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound tiny model."""
    return checkpoint(tmp_path_factory.mktemp("model"))


def saying(folder: Path, text: str) -> Path:
    """A model that says `text` after the beginning-of-text, likeliest tokens taken; no token may come twice.

    Its layers add nothing, so that a token's embedding, one axis for each, is what the head sees.
    """
    ids = [*load_tokenizer(tale_model()).encode(text), 2]
    assert len(set(ids)) == len(ids)
    settings = {"hidden_size": 32, "tie_word_embeddings": False}
    tensors = {name: np.zeros_like(array) for name, array in random_tensors(CONFIG | settings).items()}
    tensors["model.norm.weight"] += 1
    for axis, (before, after) in enumerate(pairwise(ids)):
        tensors["model.embed_tokens.weight"][before, axis] = tensors["lm_head.weight"][after, axis] = 1
    return checkpoint(folder, tensors, **settings)


def prompt_of(tokens: int) -> str:
    prompt = " ".join(["the"] * (tokens - 1))
    assert len(load_tokenizer(tale_model()).encode(prompt)) == tokens
    return prompt


# -- settings -----------------------------------------------------------------------------------------------------

BAD_SETTINGS: dict[str, tuple[list[object], str]] = {
    "temperature -1": (["--temperature", -1], "temperature must be 0 (greedy) or a finite number above, not -1.0"),
    "temperature inf": (["--temperature", "inf"], "temperature must be 0 (greedy) or a finite number above, not inf"),
    "temperature -inf": (["--temperature=-inf"], "temperature must be 0 (greedy) or a finite number above, not -inf"),
    "temperature NaN": (["--temperature", "nan"], "temperature must be 0 (greedy) or a finite number above, not nan"),
    "top_p 0": (["--top-p", 0], "top_p must be above 0 and at most 1, not 0.0"),
    "top_p 1.5": (["--top-p", 1.5], "top_p must be above 0 and at most 1, not 1.5"),
    "top_p -1": (["--top-p", -1], "top_p must be above 0 and at most 1, not -1.0"),
    "top_p NaN": (["--top-p", "nan"], "top_p must be above 0 and at most 1, not nan"),
    "top_k -1": (["--top-k", -1], "top_k must be 0 (off) or a whole number above, not -1"),
    "min_p -1": (["--min-p", -1], "min_p must be between 0 and 1, not -1.0"),
    "min_p NaN": (["--min-p", "nan"], "min_p must be between 0 and 1, not nan"),
    "repetition penalty 0": (["--repetition-penalty", 0], "repetition_penalty must be between 0.01 and 100, not 0.0"),
    "repetition penalty 1e300": (["--repetition-penalty", 1e300], "repetition_penalty must be between 0.01 and 100"),
    "repetition penalty NaN": (["--repetition-penalty", "nan"], "repetition_penalty must be between 0.01 and 100, not"),
    "seed -1": (["--seed", -1], "--seed must be 0 or more, not -1"),
    "threads 0": (["--threads", 0], "--threads must be at least 1, not 0"),
    "threads -1": (["--threads", -1], "--threads must be at least 1, not -1"),
    "new tokens -1": (["--max-new-tokens", -1], "max_new_tokens must be 0 or more, not -1"),
    "new tokens beyond the context": (["--max-new-tokens", CONTEXT + 1], f"exceed the model's context of {CONTEXT}"),
    "new tokens 10^30": (["--max-new-tokens", 10**30], f"exceed the model's context of {CONTEXT}"),
    "stop string empty": (["--stop", ""], "a stop string is empty"),
    "one of two stop strings empty": (["--stop", "x", "--stop", ""], "a stop string is empty"),
    "numba in float64": (["--engine", "numba", "--dtype", "f64"], "engine 'numba' has no float64: use engine 'numpy'"),
    "numpy in 8 bits": (["--engine", "numpy", "--dtype", "q8_0"], "engine 'numpy' computes in f32 or f64: use engine"),
    "compat in numba": (["--engine", "numba", "--compat", "hf5"], "compat 'hf5' is a way of engine 'numpy'"),
    "no prompt file": (["--prompt-file", "no such.txt"], "no such.txt cannot be read: No such file or directory"),
    "prompt file that is a folder": (["--prompt-file", os.sep], f"{os.sep} cannot be read"),
    "prompt file that is no text": (["--prompt-file", sys.executable], f"{sys.executable} is not UTF-8 text"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_setting(case: str, model: Path, capfd: Capture) -> None:
    arguments, words = BAD_SETTINGS[case]
    assert_refused(capfd, ["--weights", model, *arguments], words)


@pytest.mark.parametrize(
    "arguments",
    [
        *[["--temperature", value] for value in (0, 1e-320, 1e-45, 1e300)],
        *[["--top-p", value] for value in (1, 1e-300)],
        *[["--top-k", value] for value in (0, 1, VOCAB, VOCAB + 1, 10**30)],
        *[["--min-p", value] for value in (0, 1, 1e-300)],
        *[["--repetition-penalty", value] for value in (0.01, 100)],
        ["--seed", 10**30],
        ["--threads", 10**6],
        ["--dtype", "float64"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_an_odd_setting_works(arguments: list[object], model: Path, capfd: Capture) -> None:
    out = assert_runs(capfd, ["--weights", model, "--max-new-tokens", 5, "--json", *arguments])
    assert len(json.loads(out)["ids"]) == 5


def test_no_new_tokens(model: Path, capfd: Capture) -> None:
    assert assert_runs(capfd, ["--weights", model, "--max-new-tokens", 0, "--prompt", "One"]) == "One\n"


# -- prompts ------------------------------------------------------------------------------------------------------


def test_an_empty_prompt(tmp_path: Path, capfd: Capture) -> None:
    assert assert_runs(capfd, ["--weights", saying(tmp_path, "Once."), *GREEDY, "--prompt", ""]) == "Once.\n"


def test_an_empty_prompt_where_nothing_marks_the_beginning(tmp_path: Path, capfd: Capture) -> None:
    checkpoint(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"add_bos_token": False}))
    assert_refused(capfd, ["--weights", tmp_path, "--prompt", ""], "the prompt has no tokens, not even a beginning-of")


@pytest.mark.parametrize("stated", [[], ["--max-new-tokens", 1]], ids=["", "stated"])
def test_a_prompt_as_long_as_the_context(stated: list[object], model: Path, capfd: Capture) -> None:
    out = assert_runs(capfd, ["--weights", model, "--prompt", prompt_of(CONTEXT), "--json", *stated])
    answer = json.loads(out)
    assert (len(answer["prompt_ids"]), len(answer["ids"])) == (CONTEXT, 1)


@pytest.mark.parametrize("tokens", [CONTEXT + 1, 10 * CONTEXT])
def test_a_prompt_longer_than_the_context(tokens: int, model: Path, capfd: Capture) -> None:
    words = f"the prompt has {tokens} tokens and the model's context is {CONTEXT}: shorten it"
    assert_refused(capfd, ["--weights", model, "--prompt", prompt_of(tokens)], words)
    assert_refused(capfd, ["--weights", model, "--prompt", "One", "--prompt", prompt_of(tokens)], words)


STOPS: dict[str, tuple[str, list[str], str]] = {
    "none comes": ("Once upon a time.", ["zebra"], "Once upon a time."),
    "one token": ("Once upon a time.", [" upon"], "Once"),
    "split across tokens": ("Once upon a time.", ["pon a t"], "Once u"),
    "begun and not finished": ("Once upon a time.", ["time. Then"], "Once upon a time."),
    "the earlier of two": ("Once upon a time.", ["time", "a"], "Once upon "),
    "the first letter": ("Once upon a time.", ["O"], ""),
    "unicode": ("One ñu,🦙!", ["ñ"], "One "),
    "unicode split across tokens": ("One ñu,🦙!", ["u,🦙"], "One ñ"),
    "unicode of four bytes": ("One ñu,🦙!", ["🦙"], "One ñu,"),
    "half a character": ("One ñu,🦙!", ["�"], "One ñu,🦙!"),
}


@pytest.mark.parametrize("case", STOPS)
def test_stop_strings(case: str, tmp_path: Path, capfd: Capture) -> None:
    text, stops, shown = STOPS[case]
    arguments = ["--weights", saying(tmp_path, text), *GREEDY, "--prompt", ""]
    for stop in stops:
        arguments += ["--stop", stop]
    assert assert_runs(capfd, arguments) == shown + "\n"
    answer = json.loads(assert_runs(capfd, [*arguments, "--json"]))
    assert (answer["text"], answer["finish_reason"]) == (shown, "eos" if shown == text else "stop")


# -- weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight", GATE])
@pytest.mark.parametrize("everywhere", [True, False], ids=["all of it", "a row"])
def test_weights_that_are_not_finite(everywhere: bool, name: str, value: float, tmp_path: Path, capfd: Capture) -> None:
    tensors = random_tensors(CONFIG)
    tensors[name][slice(None) if everywhere else 1] = value  # 1 is the row of the beginning-of-text
    words = "the model's logits are not finite: its weights have NaN or infinity, or overflow"
    assert_refused(capfd, ["--weights", checkpoint(tmp_path, tensors)], words, out="Once upon a time\n")


def test_all_logits_minus_infinity(tmp_path: Path, capfd: Capture) -> None:
    settings = {"tie_word_embeddings": False}
    tensors = {name: np.zeros_like(array) for name, array in random_tensors(CONFIG | settings).items()}
    tensors["model.norm.weight"] += 1
    tensors["model.embed_tokens.weight"][:, 0] = 1  # normalized, that is 4
    tensors["lm_head.weight"][:, 0] = np.finfo(np.float32).min
    words = "every logit is minus infinity: there is no token left to choose"
    folder = checkpoint(tmp_path, tensors, **settings)
    assert_refused(capfd, ["--weights", folder, "--no-echo"], words, out="\n")


@pytest.mark.parametrize(
    ("dtype", "free", "hint"),
    [
        ("float64", 400_000, "float32 needs half of that"),
        ("float64", 4, "free some, or use a smaller model"),
        ("float32", 4, "free some, or use a smaller model"),
    ],
)
def test_not_enough_memory(
    dtype: str, free: int, hint: str, model: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    assert_refused(
        capfd, ["--weights", model, "--dtype", dtype], model, f"GB of memory in {dtype} and 0.0 GB are", hint
    )


# -- paths --------------------------------------------------------------------------------------------------------

NAMES = [
    "with spaces  and 'quotes'",
    "мой ロボット 🦙 naïve e\u0301",
    "%s {0} $HOME -- ~",
    pytest.param("two\nlines\ttab", marks=pytest.mark.skipif(WINDOWS, reason="no such file names on Windows")),
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_will_do(name: str, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / name)
    prompt = folder / f"{name}.txt"
    prompt.write_text("One")
    for weights in (folder, folder / "model.safetensors"):
        arguments = ["--weights", weights, "--tokenizer", folder, "--config", folder / "config.json"]
        assert assert_runs(capfd, [*arguments, "--prompt-file", prompt, "--max-new-tokens", 2]).startswith("One")


BAD_WEIGHTS = {
    "no such folder": (
        "no/such/folder",
        "no/such/folder does not exist: name a checkpoint folder or a file of weights",
    ),
    "hub name": (
        "meta-llama/Llama-2-7b-hf",
        "minillama downloads nothing: if that is a model's name on a hub, get its",
    ),
    "empty folder": (".", ". has no model.safetensors and no model.safetensors.index.json"),
    "another format": ("notes.txt", "notes.txt is not a .safetensors, .gguf, .pth, .pt, .ckpt or .bin file, an"),
    "a name of 300 letters": ("x" * 300, "xxx does not exist: name a checkpoint folder"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_are_not_there(case: str, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, words = BAD_WEIGHTS[case]
    if case == "another format":
        Path(name).write_text("x")
    assert_refused(capfd, ["--weights", name], words)


def test_a_file_that_may_hold_the_weights_is_pointed_at(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, "if model.bin holds the weights, name that file")


@pytest.mark.parametrize("contents", ["[]", '{"eos_token_id": "2"}', '{"eos_token_id": [2, null]}', "{"])
def test_bad_generation_settings(contents: str, tmp_path: Path, capfd: Capture) -> None:
    file = checkpoint(tmp_path) / "generation_config.json"
    file.write_text(contents)
    assert_refused(capfd, ["--weights", tmp_path], file, "eos_token_id must be" if "eos" in contents else "JSON")


# -- pipes and interruptions, in a process of their own -----------------------------------------------------------


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Arguments that would make text for hours."""
    length = 1 << 20
    folder = checkpoint(tmp_path_factory.mktemp("endless"), max_position_embeddings=length, eos_token_id=VOCAB)
    return ["--weights", folder, "--max-new-tokens", length - 100]


def ending(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit status and standard error, soon."""
    try:
        _, err = process.communicate(timeout=6 * BOUND)  # the start of Python included
    finally:
        process.kill()
    return process.returncode, err.decode()


def test_a_reader_that_leaves(endless: list[object]) -> None:
    process = spawn(*endless)
    assert process.stdout is not None
    process.stdout.read(40)
    process.stdout.close()
    process.stdout = None
    assert ending(process) == (0, "")


@pytest.mark.skipif(WINDOWS, reason="no SIGINT to a child on Windows")
def test_an_interruption_between_tokens(endless: list[object]) -> None:
    process = spawn(*endless)
    assert process.stdout is not None
    assert process.stdout.read(40).startswith(b"Once upon a time")
    process.send_signal(signal.SIGINT)
    assert ending(process) == (130, "")


def test_an_interruption_prints_what_there_is(model: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, calls = NumpyEngine.decode, []

    def interrupted(engine: NumpyEngine, ids: Array) -> Array:
        calls.append(ids)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return decode(engine, ids)

    monkeypatch.setattr(NumpyEngine, "decode", interrupted)
    arguments = ["--weights", model, "--prompt", "One", "--prompt", "Two", "--max-new-tokens", 20]
    status, out, _ = command(capfd, *arguments, "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert status == 130
    assert [(len(answer["ids"]), answer["finish_reason"]) for answer in answers] == [(4, None), (4, None)]

    calls.clear()
    status, out, _ = command(capfd, *arguments)
    assert status == 130
    assert out == "\n---\n".join(answer["prompt"] + answer["text"] for answer in answers) + "\n"


@pytest.mark.skipif(WINDOWS, reason="no SIGINT to a child on Windows")
@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3])
def test_an_interruption_while_python_imports(delay: float) -> None:
    process = spawn()
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    status, err = ending(process)
    assert status in (130, -signal.SIGINT)
    assert "Traceback" not in err or "generate.py" not in err  # before its first line Python is by itself


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_interruption_while_loading(tmp_path: Path) -> None:
    file = checkpoint(tmp_path) / "config.json"
    file.unlink()
    os.mkfifo(file)
    process = spawn("--weights", tmp_path)
    with open(file, "wb"):  # waits for the command to open it for reading; then the command waits for its contents
        process.send_signal(signal.SIGINT)
        assert ending(process) == (130, "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_interruption_after_the_reader_has_left(tmp_path: Path) -> None:
    file = checkpoint(tmp_path) / "config.json"
    file.unlink()
    os.mkfifo(file)
    process = spawn("--weights", tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    with open(file, "wb"):
        process.send_signal(signal.SIGINT)
        assert ending(process) == (130, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_on_a_full_disk(model: Path) -> None:
    with open("/dev/full", "wb") as full:
        status, err = ending(spawn("--weights", model, "--max-new-tokens", 1, stdout=full))
    assert (status, err.count("\n")) == (1, 1)
    assert "No space left on device" in err


@pytest.mark.skipif(WINDOWS, reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("closed", "ends"),
    [
        (">&-", (0, "")),
        ("2>&-", (0, "")),
        ("<&-", (1, "minillama: --prompt - reads standard input, and that is closed\n")),
    ],
    ids=["output", "error", "input"],
)
def test_a_closed_standard_stream(closed: str, ends: tuple[int, str], model: Path) -> None:
    shell = ["sh", "-c", f'"$@" {closed}', "sh"]
    process = spawn("--weights", model, "--max-new-tokens", 1, "--prompt", "One" if ends[0] == 0 else "-", before=shell)
    assert ending(process) == ends


def test_a_refusal_from_a_process_of_its_own(tmp_path: Path) -> None:
    file = checkpoint(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    status, err = ending(spawn("--weights", tmp_path))
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"minillama: {file} is not a sound safetensors file: it is cut short")


def test_arguments_that_are_no_numbers(capfd: Capture) -> None:
    bad: Any
    for bad in (["--top-k", "1.5"], ["--temperature", "hot"], ["--seed", "x"]):
        with pytest.raises(SystemExit, match="2"):
            command(capfd, *bad)
        assert re.search(rf"^minillama: {bad[0]} must be a (whole )?number, not '{bad[1]}'", capfd.readouterr().err)
