"""The command on sound input: what settings mean, and where they come from."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bad import Capture, assert_refused, assert_runs, checkpoint, command


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
        ({"top_p": "most"}, "must be numbers"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a whole number or a list"),
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
