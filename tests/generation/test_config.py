import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.config import LlamaConfig
from minillama.generation import GenerationConfig
from minillama.generation.config import _CHECKS, DEFAULTS


def test_fields_that_are_not_set_read_as_their_defaults() -> None:
    config = GenerationConfig(top_p=0.5, num_beams=None)
    assert (config.top_p, config.num_beams, config.max_length, config.top_k) == (0.5, 1, 20, 50)
    assert config.to_dict() == {"top_p": 0.5}
    config.top_p = None
    assert config.top_p == 1.0
    with pytest.raises(AttributeError, match="no field 'top_q'"):
        _ = config.top_q


def test_every_field_has_a_check_and_every_default_passes_it() -> None:
    assert set(_CHECKS) == set(DEFAULTS)
    GenerationConfig(**DEFAULTS)


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("max_length", [0, 1.5, True, "9"], [1, 10**6]),
        ("max_new_tokens", [0, -1], [1]),
        ("min_length", [-1], [0]),
        ("min_new_tokens", [-1, 2.0], [0]),
        ("do_sample", [1, "yes"], [True, False]),
        ("num_beams", [0], [1, 5]),
        ("num_return_sequences", [0], [3]),
        ("temperature", [-0.1, float("nan"), float("inf"), "hot", True], [0, 0.7]),
        ("top_k", [-1, 1.5], [0, 3]),
        ("top_p", [-0.1, 1.1], [0, 1, 0.5]),
        ("min_p", [-0.1, 1.1], [0, 1]),
        ("typical_p", [0, 1.1], [1, 0.5]),
        ("repetition_penalty", [0, -1, float("inf")], [0.5, 2]),
        ("no_repeat_ngram_size", [-1], [0, 3]),
        ("bad_words_ids", [[], [[]], [3], [[3, -1]], [["a"]]], [[[3], [4, 5]]]),
        ("length_penalty", ["long", 101, float("nan")], [-1, 0.5]),
        ("early_stopping", ["always", 2], [True, "never"]),
        ("pad_token_id", ["<pad>", 1.0], [0, -1]),
        ("bos_token_id", [[1]], [1]),
        ("eos_token_id", [[], "</s>", [2, -1], [2, True]], [2, [2, 7]]),
        ("stop_strings", ["", ["a", ""], 3, [3]], ["a", ["a", "b"]]),
        ("seed", [-1, 0.5], [7]),
    ],
)
def test_values_that_make_no_sense_are_named(name: str, bad: list[Any], good: list[Any]) -> None:
    for value in bad:
        with pytest.raises(ValueError, match=f"^{name} must be "):
            GenerationConfig(**{name: value})
    for value in good:
        assert getattr(GenerationConfig(**{name: value}), name) == value


def test_update_returns_what_it_did_not_use_and_changes_all_or_nothing() -> None:
    config = GenerationConfig(top_k=5, custom="a")
    assert config.update(top_k=6, custom="b", unknown=1) == {"unknown": 1}
    assert config == GenerationConfig(top_k=6, custom="b")
    with pytest.raises(ValueError, match="top_k"):
        config.update(num_beams=4, top_k=-6)
    assert config == GenerationConfig(top_k=6, custom="b")


def test_files_keep_what_is_set_and_what_is_unknown(tmp_path: Path) -> None:
    config = GenerationConfig(eos_token_id=[2, 9], temperature=0.6, transformers_version="5.0")
    config.save_pretrained(tmp_path / "new")
    file = tmp_path / "new" / "generation_config.json"
    assert json.loads(file.read_text()) == config.to_dict() == json.loads(config.to_json_string())
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert GenerationConfig.from_pretrained(file) == GenerationConfig.from_pretrained(file.parent) == config
    assert GenerationConfig.from_pretrained(file) != GenerationConfig(eos_token_id=2)
    assert eval(repr(config)) == config


@pytest.mark.parametrize(
    ("text", "message"), [("[1]", "list"), ("{", "not valid JSON"), ('{"top_k": "many"}', "top_k must be")]
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "generation_config.json"
    with pytest.raises(FileNotFoundError, match=r"generation_config\.json is missing"):
        GenerationConfig.from_pretrained(tmp_path)
    file.write_text(text)
    with pytest.raises(ValueError, match=rf"generation_config\.json.*{message}"):
        GenerationConfig.from_pretrained(tmp_path)


def test_from_the_config_of_a_model() -> None:
    config = LlamaConfig(eos_token_id=[2, 3], temperature=0.5)
    assert GenerationConfig.from_model_config(config) == GenerationConfig(
        bos_token_id=1, eos_token_id=[2, 3], temperature=0.5, use_cache=True
    )


def test_numbers_and_arrays_of_numpy_are_numbers_and_lists() -> None:
    given = {
        "max_new_tokens": np.array(3), "temperature": np.array(0.5), "top_k": np.int64(7), "top_p": np.float64(0.5),
        "do_sample": np.array(True), "eos_token_id": np.array([2, 5]), "seed": np.uint8(9),
        "bad_words_ids": ((np.int64(4), 5), np.array([6])), "pad_token_id": np.array(1),
        "stop_strings": np.array(["a"]),
    }  # fmt: skip
    plain = {
        "max_new_tokens": 3, "temperature": 0.5, "top_k": 7, "top_p": 0.5, "do_sample": True, "eos_token_id": [2, 5],
        "seed": 9, "bad_words_ids": [[4, 5], [6]], "pad_token_id": 1, "stop_strings": ["a"],
    }  # fmt: skip
    config = GenerationConfig(**given)
    assert config.to_dict() == plain
    assert json.loads(config.to_json_string()) == plain
    assert {name: type(value) for name, value in config.to_dict().items()} == {n: type(v) for n, v in plain.items()}


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "stop_strings"])
@pytest.mark.parametrize("value", [np.array(["x"]), np.array("x"), np.array(1 + 2j), np.array(np.nan)], ids=str)
def test_other_arrays_are_refused_by_the_name_of_the_field(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be "):
        GenerationConfig(**{name: value})
