import json
import shutil
from pathlib import Path

import pytest

from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer import AutoTokenizer, LlamaTokenizer, LlamaTokenizerFast
from minillama.tokenizer.settings import read_settings

FILES = {"tokenizer.json": LlamaTokenizerFast, "tokenizer.model": LlamaTokenizer}


def test_a_folder_with_both_gives_the_json_file() -> None:
    assert type(load_tokenizer(tale_model())) is LlamaTokenizerFast


@pytest.mark.parametrize("name", FILES)
def test_a_folder_with_one_gives_that(tmp_path: Path, name: str) -> None:
    shutil.copy(tale_model() / name, tmp_path)
    assert type(load_tokenizer(tmp_path)) is FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_that_with_the_settings_beside_it(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"of-my-model{Path(name).suffix}"
    shutil.copy(tale_model() / name, file)
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false, "add_eos_token": true}')
    tokenizer = load_tokenizer(str(file))
    assert type(tokenizer) is FILES[name]
    ids = tokenizer.encode("a fox")
    assert (ids[0] == 1, ids[-1] == 2) == (False, True)


def test_settings_from_all_the_files_beside_a_vocabulary(tmp_path: Path) -> None:
    contents = {
        "special_tokens_map.json": {"bos_token": {"content": "<bos>"}, "pad_token": "<pad>"},
        "added_tokens.json": {"<pad>": 4096, "<note>": 4097},
        "tokenizer_config.json": {
            "pad_token": "<filler>", "legacy": False, "unk_token": None,
            "added_tokens_decoder": {"4097": {"content": "<note>", "special": False}},
        },
    }  # fmt: skip
    for name, settings in contents.items():
        (tmp_path / name).write_text(json.dumps(settings))
    settings = read_settings(tmp_path)
    assert settings["bos_token"].content == "<bos>"
    assert settings["pad_token"].content == "<filler>"  # of two files, tokenizer_config.json is right
    assert (settings["unk_token"], settings["legacy"]) == (None, False)
    added = {index: (token.content, token.special) for index, token in settings["added_tokens_decoder"].items()}
    assert added == {4096: ("<pad>", False), 4097: ("<note>", False)}  # only what has a name is special
    assert read_settings(tmp_path / "empty") == {}


def test_the_chat_template_of_a_checkpoint(tmp_path: Path) -> None:
    shutil.copy(tale_model() / "tokenizer.model", tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"chat_template": "one"}')
    assert load_tokenizer(tmp_path).chat_template == "one"
    config.write_text('{"chat_template": [{"name": "default", "template": "two"}, {"name": "rag", "template": "3"}]}')
    assert load_tokenizer(tmp_path).chat_template == {"default": "two", "rag": "3"}
    (tmp_path / "chat_template.jinja").write_text("four")
    assert load_tokenizer(tmp_path).chat_template == "four"
    (tmp_path / "chat_template.jinja").unlink()
    for wrong in ("[1]", "3", '[{"name": "x"}]'):
        config.write_text(f'{{"chat_template": {wrong}}}')
        with pytest.raises(ValueError, match=r"tokenizer_config\.json: (a list of chat templates|chat_template) must"):
            load_tokenizer(tmp_path)


def test_the_class_that_the_files_ask_for(tmp_path: Path) -> None:
    assert type(AutoTokenizer.from_pretrained(tale_model())) is LlamaTokenizerFast
    assert type(AutoTokenizer.from_pretrained(tale_model(), use_fast=False)) is LlamaTokenizer
    shutil.copy(tale_model() / "tokenizer.model", tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is LlamaTokenizer
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizerFast"}')
    fast = AutoTokenizer.from_pretrained(tmp_path, padding_side="right", add_eos_token=True)
    assert (type(fast), fast.padding_side) == (LlamaTokenizerFast, "right")
    assert fast.encode("a fox") == [*load_tokenizer(tale_model()).encode("a fox"), 2]
    with pytest.raises(TypeError, match="AutoTokenizer has no instances"):
        AutoTokenizer()


@pytest.mark.parametrize(
    ("named", "side"),
    [("PreTrainedTokenizerFast", "right"), ("LlamaTokenizerFast", "left"), ("LlamaTokenizer", "left")],
)
def test_the_side_of_padding_is_that_of_the_class_in_the_folder(named: str, side: str, tmp_path: Path) -> None:
    shutil.copy(tale_model() / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(f'{{"tokenizer_class": "{named}"}}')
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == side
    (tmp_path / "tokenizer_config.json").write_text(f'{{"tokenizer_class": "{named}", "padding_side": "left"}}')
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "left"


def test_legacy_is_read_from_the_settings(tmp_path: Path) -> None:
    shutil.copy(tale_model() / "tokenizer.model", tmp_path)
    assert LlamaTokenizer.from_pretrained(tmp_path).legacy is True
    (tmp_path / "tokenizer_config.json").write_text('{"legacy": false}')
    assert LlamaTokenizer.from_pretrained(tmp_path).legacy is False


@pytest.mark.parametrize("name", FILES)
def test_settings_that_say_nothing(name: str, tmp_path: Path) -> None:
    shutil.copy(tale_model() / name, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"truncation_side": null, "model_max_length": Infinity}')
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.truncation_side, tokenizer.model_max_length) == ("right", int(1e30))


@pytest.mark.parametrize("name", FILES)
def test_a_list_that_is_given_stays_the_callers(name: str) -> None:
    names = ["input_ids"]
    tokenizer = FILES[name].from_pretrained(tale_model(), model_input_names=names)
    names.append("attention_mask")
    assert tokenizer.model_input_names == ["input_ids"]


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer.json and no tokenizer.model"):
        load_tokenizer(tmp_path)
