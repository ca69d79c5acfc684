"""The bug hunt: the healthy model is the package's, every mutant is wrong where its solution says, grading tells."""

import io
import json
import subprocess
import sys
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama import LlamaForCausalLM, load_tokenizer, tale_model
from minillama.generation.sampling import keep_top_p, penalize_repetition, seen_ids
from minillama.model.ops import softmax
from tests.notebooks.running import COURSE

sys.path.append(str(COURSE))  # as in a notebook, whose folder is on the path

import bughunt
import grade
from bughunt import COUNT, PROMPT, SYMPTOMS, TEXT, first_difference, healthy, mutant, record

FILE = COURSE / "solutions" / "bughunt.json"
SOLUTIONS = json.loads(FILE.read_text(encoding="utf-8"))
NUMBERS = range(1, COUNT + 1)
every = pytest.mark.parametrize("number", NUMBERS)


class Package:
    """The package's own model, to be asked as the mutants are."""

    def __init__(self) -> None:
        self.model, self.tokenizer = LlamaForCausalLM.from_pretrained(tale_model()), load_tokenizer(tale_model())
        self.encode = self.tokenizer.encode
        self.new_cache = self.model.model.decoder.new_cache

    def __call__(self, ids: Any, cache: Any = None, tap: Any = lambda name, array: None) -> Any:
        return self.model(ids, past_key_values=cache, tap=tap).logits

    def decode(self, ids: Any) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def loss(self, ids: Any) -> float:
        return float(self.model(ids, labels=ids).loss)

    def probabilities(
        self, z: Any, seen: Any = (), penalty: float = 1.0, temperature: float = 1.0, top_p: float = 1.0
    ) -> Any:
        z = penalize_repetition(z.astype(float), seen_ids(np.array([*seen], int), len(z)), penalty)
        return softmax(keep_top_p(z / temperature, top_p))


@once
def package() -> Package:
    return Package()


@once
def ids() -> np.ndarray:
    return np.array([package().encode(TEXT)])


@once
def last_logits() -> np.ndarray:
    return np.asarray(package()(ids())[0, -1])


def observations(model: Any) -> dict[str, np.ndarray]:
    """All that can be seen of a model, in the order in which its parts run."""
    seen = {"encode": np.array(model.encode(TEXT)), "decode": np.array([*model.decode(ids()[0])]).view(np.uint32)}
    seen |= record(model, ids())
    cache = model.new_cache()
    model(ids()[:, :-1], cache)
    seen |= {f"cache: {name}": array for name, array in record(model, ids()[:, -1:], cache).items()}
    ways: list[dict[str, Any]] = [{"temperature": 0.5}, {"top_p": 0.9}, {"seen": ids()[0], "penalty": 1.3}]
    choices = [model.probabilities(last_logits(), **way) for way in ways]
    choices.append(np.pad(model.probabilities(np.array([2.0, -2, 1]), [0, 1], 1.3), (0, len(last_logits()) - 3)))
    return seen | {"probabilities": np.array(choices), "loss": np.array(model.loss(ids()))}


@once
def reference() -> dict[str, np.ndarray]:
    return observations(package())


def test_the_healthy_model_is_that_of_the_package() -> None:
    assert list(observations(healthy())) == list(reference())
    assert first_difference(observations(healthy()), reference()) is None
    start = package().encode(PROMPT)
    greedy = package().model.generate(np.array([start]), max_new_tokens=16, do_sample=False, repetition_penalty=1.0)
    for use_cache in (True, False):
        assert healthy().generate(start, 16, use_cache=use_cache) == greedy[0, len(start) :].tolist()


@every
def test_a_mutant_is_wrong_where_its_solution_says_and_not_before(number: int) -> None:
    assert first_difference(observations(mutant(number)), reference()) == SOLUTIONS[str(number)]["first"]


def test_no_two_mutants_are_alike() -> None:
    runs = [observations(mutant(number)) for number in NUMBERS]
    for i, run in enumerate(runs):
        assert not any(first_difference(run, other) is None for other in runs[:i])


# -- symptoms -----------------------------------------------------------------------------------------------------


@every
def test_right_after_one_token_if_the_symptom_says_so(number: int) -> None:
    one, said = ids()[:, :1], SYMPTOMS[number]
    alike = first_difference({"logits": mutant(number)(one)}, {"logits": package()(one)}) is None
    if "After one token all is right" in said:
        assert alike
    if "wrong after one token" in said or "from the first token on" in said:
        assert not alike


LOSSES = {1: 2.3, 5: 9.7, 7: 2.3, 9: 8.3, 10: 4.2, 11: 3.1, 12: 2.16, 14: 11.1, 15: 5.7, 16: 2.2, 17: 1.8, 19: 2.15,
          20: 8.3, 21: 3.0, 22: 2.1, 23: 2.27, 26: 2.8, 27: 2.5, 28: 2.1, 29: 2.7, 30: 2.1}  # fmt: skip


@pytest.mark.parametrize("number", LOSSES)
def test_the_loss_that_the_symptom_tells(number: int) -> None:
    digits = 2 if LOSSES[number] * 10 % 1 else 1
    assert round(mutant(number).loss(ids()), digits) == LOSSES[number]
    assert round(healthy().loss(ids()), 2) == 2.10


@pytest.mark.parametrize(
    ("number", "said"), [(6, "henhenhen"), (9, "who who who who"), (10, "a a a, a little, a little")]
)
def test_what_it_writes(number: int, said: str) -> None:
    model = mutant(number)
    assert said in model.decode(model.generate(model.encode(PROMPT), 16))


def test_what_goes_wrong_with_the_draws() -> None:
    z = last_logits()
    assert np.allclose(mutant(13).probabilities(z, temperature=0.5), mutant(13).probabilities(z), rtol=1e-12, atol=0)
    kept = mutant(25).probabilities(z, top_p=0.9) > 0
    assert softmax(z.astype(float))[kept].sum() < 0.9
    penalized = mutant(18).probabilities(z, ids()[0], penalty=1.3)
    assert (penalized > mutant(18).probabilities(z))[ids()[0]].any()


@every
def test_what_follows_changes_what_was_only_where_the_symptom_says_so(number: int) -> None:
    whole, part = mutant(number)(ids())[:, :4], mutant(number)(ids()[:, :4])
    assert (number in (17, 24)) == (first_difference({"logits": part}, {"logits": whole}) is not None)


# -- grading ------------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = grade.main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_solutions_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(grade.KEY) == [*NUMBERS] == [*map(int, SOLUTIONS)] == list(SYMPTOMS)
    status, out, err = run(capsys, FILE)
    assert (status, err) == (0, "")
    assert out.endswith("30 of 30\n")
    assert all(solution["because"] for solution in SOLUTIONS.values())


def test_there_are_decoys_and_no_cause_twice() -> None:
    causes = [cause for part in bughunt.CAUSES.values() for cause in part]
    assert len(causes) == len(set(causes)) >= 2 * COUNT
    assert len({solution["cause"] for solution in SOLUTIONS.values()}) == COUNT


def test_wrong_and_missing_answers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {number: solution["cause"] for number, solution in SOLUTIONS.items()}
    answers |= {"2": "relu", "3": "gelu", "4": "bos-twise"}
    del answers["7"]
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(answers))
    status, out, err = run(capsys, file)
    assert (status, err) == (1, "")
    assert "not relu, but the part is right: mlp" in out
    assert "not gelu: look at the cache" in out
    assert "bos-twise is not in the list of causes: bos-twice is" in out
    assert "not answered: 7\n" in out
    assert out.endswith("26 of 30\n")
    status, out, _ = run(capsys, file, "--json")
    told = json.loads(out)
    assert status == 1
    assert (len(told["right"]), sorted(told["wrong"]), told["missing"], told["of"]) == (26, ["2", "3", "4"], [7], 30)


def test_one_answer_missing_is_not_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answers.json"
    file.write_text(json.dumps({number: solution for number, solution in SOLUTIONS.items() if number != "30"}))
    assert run(capsys, file)[0] == 1


def test_grading_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    grade.grade({1: "scale-missing", "2": ..., 3: "", 4: None})
    assert capsys.readouterr().out.startswith("right: 1\nnot answered: 2, 3, 4, 5,")


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds no object"),
        ('{"31": "gelu"}', "mutant '31'"),
        ('{"two": "gelu"}', "mutant 'two'"),
    ],
)
def test_what_cannot_be_graded(
    contents: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(contents))
    status, out, err = run(capsys, "-")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, tmp_path / "none.json")
    assert status == 2
    assert "none.json cannot be read" in err


def test_the_command_without_the_solutions(tmp_path: Path) -> None:
    """In a student's folder, from which they were left out."""
    for name in ("grade.py", *(f"bughunt/{file.name}" for file in (COURSE / "bughunt").glob("*.py"))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((COURSE / name).read_bytes())
    (tmp_path / "answers.json").write_text('{"1": "scale-missing"}')
    command = [sys.executable, "grade.py", "answers.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("right: 1\n")


@pytest.mark.parametrize("number", [0, 31, "7"])
def test_there_are_thirty(number: Any) -> None:
    with pytest.raises(ValueError, match="1 to 30"):
        mutant(number)
