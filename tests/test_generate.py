"""The command on sound input: what settings mean, and where they come from; conversations."""

import io
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from minillama.arrays import Array
from minillama.generation import Continuation, Sampling, generate
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.model.engine import NumpyEngine
from minillama.shipped import tale_model
from minillama.tokenizer import StreamDecoder
from tests.bad import Capture, Outcome, assert_refused, assert_runs, checkpoint, command


def text(capfd: Capture, folder: Path, *arguments: object) -> str:
    return assert_runs(capfd, ["--weights", folder, "--max-new-tokens", 20, *arguments])


def write_settings(folder: Path, **settings: Any) -> None:
    (folder / "generation_config.json").write_text(json.dumps(settings))


def test_sampling_defaults_are_the_checkpoints(tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path)
    greedy, sampled = text(capfd, folder, "--temperature", 0), text(capfd, folder)
    penalized = text(capfd, folder, "--temperature", 0, "--repetition-penalty", 5)
    assert len({greedy, sampled, penalized}) == 3
    write_settings(folder, do_sample=False)
    assert text(capfd, folder) == greedy
    assert text(capfd, folder, "--temperature", 0.8) == sampled
    write_settings(folder, do_sample=False, repetition_penalty=5.0, top_k=None)
    assert text(capfd, folder) == penalized
    assert text(capfd, folder, "--repetition-penalty", 1) == greedy


def test_the_seed_decides(tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path)
    assert text(capfd, folder, "--seed", 3) == text(capfd, folder, "--seed", 3) != text(capfd, folder, "--seed", 4)


def test_the_end_of_a_text_is_the_checkpoints(tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path)
    arguments = ["--weights", folder, "--max-new-tokens", 5, "--temperature", 0, "--json"]
    first, second = json.loads(command(capfd, *arguments).out)["ids"][:2]
    for stated, ids in ((first, [first]), ([7, second], [first, second])):
        write_settings(folder, eos_token_id=stated)
        answer = json.loads(command(capfd, *arguments).out)
        assert (answer["ids"], answer["finish_reason"]) == (ids, "eos")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -1}, "temperature must be"),
        ({"top_p": "most"}, "top_p must be a number between 0 and 1"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be an id or a list of one or more"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path)
    write_settings(folder, **settings)
    assert_refused(capfd, ["--weights", folder], folder / "generation_config.json", words)


def test_several_prompts_are_answered_in_order(tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path)
    out = text(capfd, folder, "--prompt", "One", "--prompt", "Two or three", "--temperature", 0)
    first, second = out.split("\n---\n")
    assert first.startswith("One")
    assert second.startswith("Two or three")
    assert first + "\n" == text(capfd, folder, "--prompt", "One", "--temperature", 0)


def test_a_prompt_that_fills_the_context_leaves_the_others_their_room(tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path, max_position_embeddings=300)
    long = " the" * 298
    out = command(capfd, "--weights", folder, "--prompt", long, "--prompt", "One", "--json").out
    answers = [json.loads(line) for line in out.splitlines()]
    room = 300 - len(answers[0]["prompt_ids"]) + 1
    assert [len(answer["ids"]) for answer in answers] == [room, 256]


# -- conversations ------------------------------------------------------------------------------------------------

TEMPLATE = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no rules') if 'rule' in messages[0].content }}{% endif %}"
    "{% for m in messages %}{{ bos_token if loop.first }}{{ m.role }}: {{ m.content.strip() }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
CHAT = ("--chat", "--temperature", 0, "--max-new-tokens", 8)


def chat_checkpoint(folder: Path, template: str | None = TEMPLATE, **settings: Any) -> Path:
    """A sound tiny model with a chat template."""
    # A head of its own: one tied to the embeddings says the same word again and again
    checkpoint(folder, **{"max_position_embeddings": 400, "tie_word_embeddings": False} | settings)
    file = folder / "tokenizer_config.json"
    stated = json.loads(file.read_text()) | ({} if template is None else {"chat_template": template})
    file.write_text(json.dumps(stated))
    return folder


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_checkpoint(tmp_path_factory.mktemp("talker"))


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def talk(
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    typed: str | bytes,
    *arguments: object,
    terminal: bool = False,
) -> Outcome:
    """Run the command with --chat and `typed` as its standard input."""
    data = io.BytesIO(typed if isinstance(typed, bytes) else typed.encode())
    monkeypatch.setattr(sys, "stdin", (Terminal if terminal else io.TextIOWrapper)(data, encoding="utf-8"))
    return command(capfd, "--weights", folder, *CHAT, *arguments)


def answers_from_scratch(folder: Path, *said: str, system: str | None = None, tokens: Sequence[int] = ()) -> list[str]:
    """Each answer of a conversation, by an engine that knows nothing of the turn before; of 8 tokens, or so many."""
    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    messages = [] if system is None else [{"role": "system", "content": system}]
    answers = []
    for text, limit in zip(said, tokens or [8] * len(said), strict=True):
        messages.append({"role": "user", "content": text})
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        results: list[Continuation] = []
        how: dict[str, Any] = {"max_new_tokens": limit, "eos_token_ids": [2]}
        decoders = [StreamDecoder(tokenizer, ids)]
        list(generate(model.new_engine(), [ids], Sampling(), decoders=decoders, results=results, **how))
        answers.append(results[0].text)
        messages.append({"role": "assistant", "content": results[0].text})
    return answers


def test_a_conversation_says_what_each_turn_by_itself_would(
    talker: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["Hello there", "Who was the king?", "Grüße 🦙 </s>"]
    answers = answers_from_scratch(talker, *said)
    assert len(set(answers)) == 3
    status, out, err = talk(capfd, monkeypatch, talker, "\n\n  ".join(said))  # empty lines are no messages
    assert (status, err) == (0, "")
    assert out == "".join(answer.lstrip() + "\n" for answer in answers)


def test_the_cache_is_kept_between_turns(talker: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    prefill, read = NumpyEngine.prefill, []

    def watched(engine: NumpyEngine, rows: Sequence[Sequence[int]]) -> Array:
        read.append(len(rows[0]))
        return prefill(engine, rows)

    monkeypatch.setattr(NumpyEngine, "prefill", watched)
    long = "Once upon a time there was a king who had three sons and a horse"
    status, _, err = talk(capfd, monkeypatch, talker, f"{long}\nAnd then?\n", "--stats")
    first, second = err.splitlines()
    tokenizer = load_tokenizer(talker)
    begin = tokenizer.apply_chat_template([{"role": "user", "content": long}], add_generation_prompt=True)
    [answer] = answers_from_scratch(talker, long)
    whole = tokenizer.apply_chat_template(
        [*({"role": role, "content": text} for role, text in (("user", long), ("assistant", answer))),
         {"role": "user", "content": "And then?"}], add_generation_prompt=True,
    )  # fmt: skip
    assert status == 0
    assert read[0] == len(begin)
    assert read[1] <= len(whole) - len(begin)  # all of the first turn's prompt is held, and most of its answer
    assert first.startswith(f"read: {len(begin)} new tokens of {len(begin)}, ")
    assert second.startswith(f"read: {read[1]} new tokens of {len(whole)}, ")
    assert "; answer: 7 tokens, " in first  # the eighth is not fed back


def test_reset_begins_anew(talker: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    out = talk(capfd, monkeypatch, talker, "One\nTwo\n/reset\nOne\n").out
    first, second = answers_from_scratch(talker, "One", "Two")
    assert out == "".join(answer.lstrip() + "\n" for answer in (first, second, first))


def test_a_system_message(talker: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, told = answers_from_scratch(talker, "One"), answers_from_scratch(talker, "One", system="Be brief.")
    assert plain != told
    out = talk(capfd, monkeypatch, talker, "One\n/reset\nOne\n", "--system", "Be brief.").out
    assert out == (told[0].lstrip() + "\n") * 2


def test_sampling_and_stopping_apply(talker: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def out(*arguments: object) -> str:
        return talk(capfd, monkeypatch, talker, "One\nOne\n", *arguments).out

    warm = ("--temperature", 1)
    assert out(*warm, "--seed", 3) == out(*warm, "--seed", 3) != out(*warm, "--seed", 4)
    (answer,) = answers_from_scratch(talker, "One")
    stop = answer.strip()[3:6]
    assert out("--stop", stop).splitlines()[0] == answer.lstrip().partition(stop)[0]


def test_the_end_of_an_answer_is_the_checkpoints(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = chat_checkpoint(tmp_path)
    ids = load_tokenizer(folder).apply_chat_template([{"role": "user", "content": "One"}], add_generation_prompt=True)
    results: list[Continuation] = []
    model = LlamaForCausalLM.from_pretrained(folder)
    list(generate(model.new_engine(), [ids], Sampling(), max_new_tokens=3, results=results))
    write_settings(folder, eos_token_id=[4000, results[0].ids[2]])
    (answer,) = answers_from_scratch(folder, "One", tokens=[2])
    assert talk(capfd, monkeypatch, folder, "One").out == answer.lstrip() + "\n"


def test_without_a_template_that_of_llama_2_is_used(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = chat_checkpoint(tmp_path, template=None)
    status, out, err = talk(capfd, monkeypatch, folder, "One\n")
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith("minillama: the checkpoint has no chat template, so that of Llama 2 is used")
    assert out == answers_from_scratch(folder, "One")[0].lstrip() + "\n"


def test_a_context_that_is_full(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = chat_checkpoint(tmp_path, max_position_embeddings=40)
    typed, full = "the " * 30 + "\nOne\n", "the context of 40 tokens is full: begin anew with /reset"
    too_long = "tokens and the model's context is 40: shorten it, or begin anew with /reset"
    status, out, err = talk(capfd, monkeypatch, folder, typed)
    noted, refused = err.splitlines()
    assert (status, out.count("\n")) == (1, 1)
    assert noted == f"minillama: {full}"
    assert refused.endswith(too_long)

    status, out, err = talk(capfd, monkeypatch, folder, typed + "/reset\nOne\n", terminal=True)
    assert (status, out.count("\n")) == (0, 2)  # at a terminal the conversation goes on
    assert too_long in err
    assert out.splitlines()[1] == answers_from_scratch(folder, "One")[0].strip()


def test_a_terminal_is_told_what_to_type(talker: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = talk(capfd, monkeypatch, talker, "One\n\n", terminal=True)
    assert (status, out) == (0, answers_from_scratch(talker, "One")[0].lstrip() + "\n")
    assert err.startswith("Ctrl-C stops an answer, /reset begins anew, Ctrl-")
    assert err.endswith("ends\n> > > \n")


@pytest.mark.parametrize("call", [1, 4], ids=["while the message is read", "while the answer is made"])
def test_an_interruption_ends_the_answer(
    call: int, talker: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = NumpyEngine._append, []

    def interrupted(engine: NumpyEngine, ids: Array, mask: Array) -> Array:
        logits = append(engine, ids, mask)
        calls.append(ids)
        if len(calls) == call:
            raise KeyboardInterrupt
        return logits

    whole, part = answers_from_scratch(talker, "One")[0], answers_from_scratch(talker, "One", tokens=[call - 1])
    monkeypatch.setattr(NumpyEngine, "_append", interrupted)
    status, out, _ = talk(capfd, monkeypatch, talker, "One\n/reset\nOne\n", terminal=True)
    shown, again = out.splitlines()
    assert status == 0
    assert again == whole.lstrip()
    assert shown == part[0].lstrip() if call > 1 else shown == ""

    calls.clear()
    status, out, err = talk(capfd, monkeypatch, talker, "One\nTwo\n")  # no terminal: that ends it all
    assert (status, out, err) == (130, shown + "\n", "")


def test_after_an_interruption_the_part_that_came_was_said(
    talker: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows is what follows a conversation with that answer, or, where there was none, without the message."""
    append, calls = NumpyEngine._append, []

    def interrupted(engine: NumpyEngine, ids: Array, mask: Array) -> Array:
        calls.append(ids)
        if len(calls) in (4, 5):  # in the first answer, and before the second
            raise KeyboardInterrupt
        return append(engine, ids, mask)

    expected = answers_from_scratch(talker, "One", "Three", tokens=[3, 8])
    monkeypatch.setattr(NumpyEngine, "_append", interrupted)
    out = talk(capfd, monkeypatch, talker, "One\nTwo\nThree\n", terminal=True).out
    assert out == f"{expected[0].lstrip()}\n\n{expected[1].lstrip()}\n"


REFUSED: dict[str, tuple[list[object], str]] = {
    "prompt": (["--prompt", "x"], "--chat takes its messages from standard input and prints the answers: leave out"),
    "prompt file": (["--prompt-file", "x"], "leave out --prompt, --prompt-file, --json and --no-echo"),
    "json": (["--json"], "leave out --prompt, --prompt-file, --json and --no-echo"),
    "no echo": (["--no-echo"], "leave out --prompt, --prompt-file, --json and --no-echo"),
    "no tokens": (["--max-new-tokens", 0], "--max-new-tokens must be at least 1 with --chat, not 0"),
    "system message": (["--system", "rules"], "the chat template refuses this conversation: no rules"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_chat(case: str, talker: Path, capfd: Capture) -> None:
    arguments, words = REFUSED[case]
    assert_refused(capfd, ["--weights", talker, "--chat", *arguments], words)


def test_refused_in_a_conversation(talker: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(capfd, ["--weights", talker, "--system", "x"], "--system is said before a conversation: give --chat")
    status, _, err = talk(capfd, monkeypatch, talker, b"\xff\n")
    assert (status, err) == (1, "minillama: standard input is not UTF-8 text: convert it first\n")
    monkeypatch.setattr(sys, "stdin", None)
    assert_refused(capfd, ["--weights", talker, "--chat"], "--chat reads standard input, and that is closed")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for %}", "the chat template is not sound Jinja"),
        (
            "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
            "takes more than 500000 steps",
        ),
    ],
)
def test_a_bad_template_is_told_before_anything_is_typed(
    template: str, words: str, tmp_path: Path, capfd: Capture
) -> None:
    assert_refused(capfd, ["--weights", chat_checkpoint(tmp_path, template), "--chat"], words)


@pytest.mark.parametrize("dtype", ["auto", "f32", "bfloat16", "q8_0"])
def test_the_compiled_engine_tells_the_same_story(dtype: str, capfd: Capture) -> None:
    """Greedily, and for a while: rounding may turn a later choice."""
    arguments = ["--temperature", 0, "--max-new-tokens", 20]
    assert assert_runs(capfd, [*arguments, "--engine", "numba", "--dtype", dtype, "--threads", 2]) == assert_runs(
        capfd, [*arguments, "--engine", "numpy"]
    )


@pytest.mark.parametrize("compiled", [True, False])
def test_auto_takes_the_kernels_for_a_small_model_once_they_are_compiled(
    compiled: bool, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr("minillama.engines.maybe_compiled", lambda: True)
    monkeypatch.setattr("minillama.runtime.model.is_compiled", lambda kernel, arguments: compiled)
    made = []
    new_engine = LlamaForCausalLM.new_engine
    monkeypatch.setattr(LlamaForCausalLM, "new_engine", lambda model: made.append(model.engine) or new_engine(model))
    arguments = ["--temperature", 0, "--max-new-tokens", 20]
    text = assert_runs(capfd, arguments)
    assert assert_runs(capfd, [*arguments, "--engine", "numpy"]) == text  # float32 is cached, as NumPy does
    assert_runs(capfd, [*arguments, "--dtype", "f32"])  # which is asked for
    assert made == ["numba" if compiled else "numpy", "numpy", "numpy"]


@pytest.mark.parametrize("cache_dtype", ["f32", "float16", "bf16"])
def test_keys_and_values_are_cached_as_asked_for(cache_dtype: str, capfd: Capture) -> None:
    arguments = ["--temperature", 0, "--max-new-tokens", 10, "--engine"]
    asked = assert_runs(capfd, [*arguments, "numba", "--cache-dtype", cache_dtype])
    assert asked == assert_runs(capfd, [*arguments, "numpy"])


def test_numpy_has_no_cache_in_float16(capfd: Capture) -> None:
    refused = command(capfd, "--engine", "numpy", "--cache-dtype", "f16")
    assert refused.status == 1
    assert "engine 'numpy' caches what it computes in: use engine 'numba' for a cache in f16" in refused.err


def test_quantized_weights_are_kept(tmp_path: Path, capfd: Capture) -> None:
    arguments = ["--temperature", 0, "--max-new-tokens", 20]
    made = assert_runs(capfd, [*arguments, "--dtype", "q4_0", "--save-quantized", tmp_path / "kept"])
    assert {file.name for file in (tmp_path / "kept").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer.model",
        "tokenizer_config.json",
    }  # fmt: skip
    assert assert_runs(capfd, [*arguments, "--engine", "numba", "--weights", tmp_path / "kept"]) == made


def test_no_checkpoint_is_written_over(tmp_path: Path, capfd: Capture) -> None:
    """Not that of other weights, nor the one that is read."""
    own = shutil.copytree(tale_model(), tmp_path / "own")
    before = {file.name: file.read_bytes() for file in own.iterdir()}
    arguments: list[Any] = ["--dtype", "q4_0", "--max-new-tokens", 3, "--save-quantized", own]
    for more in ([], ["--weights", own]):
        refused = command(capfd, *arguments, *more)
        assert (refused.status, refused.out) == (1, "")
        assert f"--save-quantized {own} has a checkpoint already (" in refused.err
    assert {file.name: file.read_bytes() for file in own.iterdir()} == before
    file = own / "config.json"
    assert_refused(capfd, ["--dtype", "q4_0", "--save-quantized", file], f"--save-quantized {file} is a file: name a")


def test_only_quantized_weights_are_kept(tmp_path: Path, capfd: Capture) -> None:
    refused = command(capfd, "--engine", "numpy", "--save-quantized", tmp_path / "kept")
    assert refused.status == 1
    assert "--save-quantized keeps bf16z, q8_0 or q4_0, and the weights are in f32: add --dtype q8_0" in refused.err
    assert not (tmp_path / "kept").exists()
