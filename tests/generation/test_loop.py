"""The loop, driving an engine that has no model: it plays back scripts, and notes what it is asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.generation import Continuation, Sampling, generate
from minillama.generation.loop import SHARED, read

LETTERS = "_abcdefghijklmnopqrstuvwxyz .!"  # the texts of ids 0 to 29; 0 is the end of text


class ScriptedEngine:
    """Wants each row to go on with the letters of its script."""

    vocab_size, context_length = len(LETTERS), 12

    def __init__(self, *scripts: str):
        self.scripts, self.calls = [[LETTERS.index(letter) for letter in script] for script in scripts], []
        self.rows: list[list[int]] = []  # of every active row: what is left of its script
        self.fed: list[Any] = []

    def reset(self) -> None:
        self.calls.append("reset")

    def prefill(self, rows: Sequence[Sequence[int]]) -> Array:
        self.calls.append(("prefill", [list(row) for row in rows]))
        self.rows = [list(script) for script in self.scripts]
        return self._logits()

    def decode(self, ids: Array) -> Array:
        self.calls.append(("decode", ids.tolist()))
        return self._logits()

    def keep(self, rows: Sequence[int]) -> None:
        self.calls.append(("keep", list(rows)))
        self.rows = [self.rows[place] for place in rows]

    def cut(self, length: int) -> None:
        raise AssertionError("the loop never cuts")

    def _logits(self) -> Array:
        logits = np.zeros((len(self.rows), len(LETTERS)))
        for row, scores in zip(self.rows, logits, strict=True):
            scores[row.pop(0)] = 9
        return logits


class Spelling:
    """Decodes an id to its letter, and keeps a `!` back until something follows."""

    def __init__(self) -> None:
        self.held = ""

    def push(self, index: int) -> str:
        text = self.held + LETTERS[index]
        self.held = "!" if text.endswith("!") else ""
        return text.removesuffix("!")

    def finish(self) -> str:
        held, self.held = self.held, ""
        return held


def run(
    engine: ScriptedEngine, prompts: list[list[int]], sampling: Sampling | None = None, **how: Any
) -> tuple[list[Continuation], list[tuple[int, str]]]:
    results: list[Continuation] = []
    how.setdefault("decoders", [Spelling() for _ in prompts])
    pieces = list(generate(engine, prompts, sampling or Sampling(), eos_token_ids=[0], results=results, **how))
    for number, result in enumerate(results):
        if how["decoders"] is not None:
            assert result.text == "".join(text for n, text in pieces if n == number)
    return results, pieces


def ids(text: str) -> list[int]:
    return [LETTERS.index(letter) for letter in text]


def test_one_prompt_to_its_end() -> None:
    engine = ScriptedEngine("fox_zz")
    (result,), pieces = run(engine, [[1, 2]])
    assert result == Continuation(ids("fox_"), "fox", "eos")
    assert pieces == [(0, "f"), (0, "o"), (0, "x")]
    assert engine.calls == [
        "reset", ("prefill", [[1, 2]]),
        ("keep", [0]), ("decode", ids("f")), ("keep", [0]), ("decode", ids("o")), ("keep", [0]), ("decode", ids("x")),
    ]  # fmt: skip


def test_rows_leave_when_they_are_done() -> None:
    engine = ScriptedEngine("ab_", "c_", "defg_")
    results, _ = run(engine, [[1], [2], [3]])
    assert [result.text for result in results] == ["ab", "c", "defg"]
    assert [call for call in engine.calls if call[0] == "decode"] == [
        ("decode", ids("acd")), ("decode", ids("be")), ("decode", ids("f")), ("decode", ids("g")),
    ]  # fmt: skip


def test_a_full_context_has_room_for_one_token_more() -> None:
    engine = ScriptedEngine("abcdefghijkl")
    (result,), _ = run(engine, [[1] * 10])  # the context is 12: two more are fed back, a third is not
    assert (result.text, result.finish_reason) == ("abc", "length")
    assert engine.calls[-1] == ("decode", ids("b"))


@pytest.mark.parametrize(("count", "text"), [(0, ""), (1, "a"), (3, "abc")])
def test_max_new_tokens(count: int, text: str) -> None:
    engine = ScriptedEngine("abcdef")
    (result,), _ = run(engine, [[1]], max_new_tokens=count)
    assert result == Continuation(ids(text), text, "length")
    assert count or not engine.calls


def test_the_end_of_text_as_the_last_token_allowed() -> None:
    (result,), _ = run(ScriptedEngine("ab_"), [[1]], max_new_tokens=3)
    assert result.finish_reason == "eos"


def test_a_stop_string_over_several_tokens() -> None:
    (one, other), pieces = run(ScriptedEngine("the end.zz", "the fox_"), [[1], [1]], stop=["end.", "zz"])
    assert one == Continuation(ids("the end."), "the ", "stop")
    assert other == Continuation(ids("the fox_"), "the fox", "eos")
    assert (0, "e ") in pieces  # of `the `: the letter waited until it was clear that no stop begins with it
    assert not any("d" in text for _, text in pieces)


@pytest.mark.parametrize(
    ("script", "stop", "text", "reason"),
    [
        ("ab!_", [], "ab!", "eos"),  # the decoder held `!` back
        ("ab!_", ["!"], "ab", "stop"),  # and it completes a stop string
        ("aen_", ["end"], "aen", "eos"),  # the stop strings held `en` back
        ("aen", ["end"], "aen", "length"),
    ],
)
def test_what_was_held_back_comes_at_the_end(script: str, stop: list[str], text: str, reason: str) -> None:
    (result,), _ = run(ScriptedEngine(script), [[1]], stop=stop, max_new_tokens=len(script))
    assert (result.text, result.finish_reason) == (text, reason)
    assert result.ids == ids(script)


def test_results_are_up_to_date_at_every_yield() -> None:
    results: list[Continuation] = []
    seen = []
    for _ in generate(
        ScriptedEngine("ab_"), [[1]], Sampling(), eos_token_ids=[0], decoders=[Spelling()], results=results
    ):
        seen.append((list(results[0].ids), results[0].text))
    assert seen == [(ids("a"), "a"), (ids("ab"), "ab")]


def test_without_decoders_there_are_ids_only() -> None:
    (result,), pieces = run(ScriptedEngine("ab_"), [[1]], decoders=None)
    assert result == Continuation(ids("ab_"), "", "eos")
    assert pieces == []


def test_only_allowed_ids_are_chosen() -> None:
    (result,), _ = run(ScriptedEngine("zaz"), [[1]], allowed=26, max_new_tokens=3)  # z is 26
    assert result.ids == [0]  # of the others all are equal, and the first is the end of text
    (result,), _ = run(ScriptedEngine("zaz"), [[1]], allowed=27, max_new_tokens=3)
    assert result.text == "zaz"


class Undecided(ScriptedEngine):
    """Finds a few letters likely, the end of text among them for some rows."""

    def _logits(self) -> Array:
        logits = np.full((len(self.rows), len(LETTERS)), -9.0)
        logits[:, 1:9] = np.linspace(0, 1, 8)
        return logits


def test_the_same_seed_gives_the_same_ids_whatever_runs_beside() -> None:
    sampling = Sampling(temperature=1.0)
    (first, second), _ = run(Undecided("", ""), [[1], [2]], sampling, seed=7, max_new_tokens=9)
    (again, shorter), _ = run(Undecided("", ""), [[1], [2, 2, 2, 2]], sampling, seed=7, max_new_tokens=8)
    assert (again.ids, shorter.ids) == (first.ids[:8], second.ids[:8])
    assert first.ids != second.ids
    (other,), _ = run(Undecided(""), [[1]], sampling, seed=8, max_new_tokens=9)
    assert other.ids != first.ids


def test_the_penalty_is_on_the_prompt_and_on_what_came() -> None:
    (result,), _ = run(Undecided(""), [ids("hg")], Sampling(repetition_penalty=4.0), max_new_tokens=3)
    assert result.text == "fed"  # h and g stand in the prompt: each letter is likelier than those before it


@pytest.mark.parametrize(
    ("prompts", "how", "message"),
    [
        ([[1], []], {}, "no tokens"),
        ([[1] * 13], {}, "13 tokens and the model's context is 12"),
        ([[1] * 5], {"max_new_tokens": 9}, "at most 8"),
        ([[1]], {"max_new_tokens": -1}, "0 or more"),
        ([[1]], {"stop": ["x"], "decoders": None}, "need decoders"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(prompts: list[list[int]], how: Any, message: str) -> None:
    engine = ScriptedEngine("abc")
    with pytest.raises(ValueError, match=message):
        generate(engine, prompts, Sampling(), **{"decoders": [Spelling() for _ in prompts]} | how)
    assert engine.calls == []


@pytest.mark.parametrize("common", [SHARED - 1, SHARED, SHARED + 3])
def test_a_beginning_that_prompts_share_is_read_once(common: int) -> None:
    engine = ScriptedEngine("ab", "cd", "ef")
    beginning = list(range(common))
    prompts = [[*beginning, 7], [*beginning, 8, 9], [*beginning, 7, 7, 7]]
    assert read(engine, prompts).argmax(axis=1).tolist() == [LETTERS.index(letter) for letter in "ace"]
    if common < SHARED:
        assert engine.calls == [("prefill", prompts)]
    else:
        assert engine.calls == [
            ("prefill", [beginning]), ("keep", [0, 0, 0]), ("prefill", [[7], [8, 9], [7, 7, 7]])
        ]  # fmt: skip


def test_every_prompt_keeps_a_token_for_its_logits() -> None:
    engine, prompt = ScriptedEngine("ab", "cd"), list(range(SHARED + 5))
    read(engine, [prompt, prompt[:-1]])
    assert engine.calls[0] == ("prefill", [prompt[:-2]])
    engine = ScriptedEngine("ab")
    read(engine, [prompt])  # nobody to share with
    assert engine.calls == [("prefill", [prompt])]


def test_a_limit_for_each_prompt() -> None:
    results, _ = run(Undecided("", ""), [[1], [2]], max_new_tokens=[2, 5])
    assert [len(result.ids) for result in results] == [2, 5]
