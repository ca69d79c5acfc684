import shutil
from pathlib import Path

import pytest

from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer import AutoTokenizer, LlamaTokenizer, LlamaTokenizerFast
from tests.ggufs import SETTINGS
from tests.tokenizer.test_from_pieces import of_the_tales
from tests.weights.test_gguf_vocabulary import metadata_of, write


def test_files_and_folders() -> None:
    assert type(load_tokenizer(tale_model())) is LlamaTokenizerFast
    assert type(load_tokenizer(tale_model() / "tokenizer.model")) is LlamaTokenizer
    assert type(load_tokenizer(str(tale_model() / "tokenizer.json"))) is LlamaTokenizerFast


def test_files_of_a_tokenizer_come_before_that_of_a_gguf_file_beside_them(tmp_path: Path) -> None:
    file = write(tmp_path, metadata_of(of_the_tales()))
    assert type(load_tokenizer(tmp_path)) is LlamaTokenizer
    shutil.copy(tale_model() / "tokenizer.json", tmp_path)
    assert type(load_tokenizer(tmp_path)) is LlamaTokenizerFast
    assert type(load_tokenizer(file)) is LlamaTokenizer


def test_a_gguf_file_without_a_vocabulary_takes_the_files_beside_it(tmp_path: Path) -> None:
    file = write(tmp_path, SETTINGS)
    shutil.copy(tale_model() / "tokenizer.json", tmp_path)
    assert type(load_tokenizer(file)) is LlamaTokenizerFast


def test_of_two_gguf_files_neither_is_taken(tmp_path: Path) -> None:
    shutil.copy(write(tmp_path, metadata_of(of_the_tales())), tmp_path / "other.gguf")
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_what_it_makes_is_saved_as_real_files(tmp_path: Path) -> None:
    made = load_tokenizer(write(tmp_path, metadata_of(of_the_tales())))
    made.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.model").read_bytes()[:1] == b"\n"
    again = LlamaTokenizer.from_pretrained(tmp_path / "saved")
    assert again.encode("<s>a fox ran</s>") == made.encode("<s>a fox ran</s>")


def test_a_gguf_file_of_any_name(tmp_path: Path) -> None:
    blob = write(tmp_path, metadata_of(of_the_tales())).rename(tmp_path / "sha256-0f00")
    assert type(load_tokenizer(blob)) is LlamaTokenizer
    with pytest.raises(ValueError, match=r"sha256-0f00 is a GGUF file: minillama\.load_tokenizer reads the vocabulary"):
        AutoTokenizer.from_pretrained(blob)
    (tmp_path / "folder.gguf").mkdir()
    shutil.copy(tale_model() / "tokenizer.model", tmp_path / "folder.gguf")
    assert type(load_tokenizer(tmp_path / "folder.gguf")) is LlamaTokenizer
