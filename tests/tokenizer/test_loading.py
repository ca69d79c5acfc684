import json
import shutil
from pathlib import Path

import pytest

from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast, load_tokenizer
from minillama.tokenizer.base import SpecialTokens

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
    special = SpecialTokens.from_folder(tmp_path)
    assert special == SpecialTokens(
        bos_token="<bos>", unk_token=None, pad_token="<filler>",  # of two files, tokenizer_config.json is right
        legacy=False, added={"<pad>": 4096, "<note>": 4097}, hidden={"<pad>"},
    )  # fmt: skip
    assert SpecialTokens.from_folder(tmp_path / "empty") == SpecialTokens()


def test_legacy_is_read_from_the_settings(tmp_path: Path) -> None:
    shutil.copy(tale_model() / "tokenizer.model", tmp_path)
    assert LlamaTokenizer.from_pretrained(tmp_path).legacy is True
    (tmp_path / "tokenizer_config.json").write_text('{"legacy": false}')
    assert LlamaTokenizer.from_pretrained(tmp_path).legacy is False


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer.json and no tokenizer.model"):
        load_tokenizer(tmp_path)
