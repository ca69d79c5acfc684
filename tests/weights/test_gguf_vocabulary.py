"""The vocabulary in the metadata of a GGUF file, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minillama.loading import load_tokenizer
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast
from minillama.vocabulary import Vocabulary
from minillama.weights.gguf_vocabulary import gguf_vocabulary
from tests.ggufs import SETTINGS, gguf_bytes
from tests.tokenizer.test_from_pieces import byte_level, of_the_tales

P = "tokenizer.ggml."


def metadata_of(vocabulary: Vocabulary, **more: Any) -> dict[str, Any]:
    said = {
        f"{P}model": vocabulary.kind, f"{P}tokens": list(vocabulary.pieces), f"{P}scores": list(vocabulary.scores),
        f"{P}token_type": list(vocabulary.types), f"{P}merges": list(vocabulary.merges), f"{P}pre": vocabulary.pre,
        f"{P}bos_token_id": vocabulary.bos, f"{P}eos_token_id": vocabulary.eos, f"{P}unknown_token_id": vocabulary.unk,
    }  # fmt: skip
    said = SETTINGS | said | {key if "." in key else f"{P}{key}": value for key, value in more.items()}
    return {key: value for key, value in said.items() if value not in (None, [], "")}


def write(folder: Path, metadata: dict[str, Any]) -> Path:
    (folder / "model.gguf").write_bytes(gguf_bytes(metadata, []))
    return folder / "model.gguf"


def test_a_vocabulary_of_scores(tmp_path: Path) -> None:
    file = write(tmp_path, metadata_of(of_the_tales(), add_bos_token=False, add_eos_token=True, add_space_prefix=False))
    assert gguf_vocabulary(file) == of_the_tales(add_bos=False, add_eos=True, space_prefix=False, merges=[])
    tokenizer = load_tokenizer(file)
    assert isinstance(tokenizer, LlamaTokenizer)
    assert tokenizer.encode("a fox")[-1] == 2
    assert load_tokenizer(tmp_path).encode("a fox") == tokenizer.encode("a fox")  # a folder with nothing else


def test_a_vocabulary_of_merges(tmp_path: Path) -> None:
    template = {"tokenizer.chat_template": "{{ 1 }}", "tokenizer.chat_template.rag": "{{ 2 }}"}
    file = write(tmp_path, metadata_of(byte_level(), **template))
    tokenizer = load_tokenizer(file)
    assert isinstance(tokenizer, LlamaTokenizerFast)
    assert tokenizer.tokenize("hello") == ["hello"]
    assert tokenizer.chat_template == {"default": "{{ 1 }}", "rag": "{{ 2 }}"}


def test_no_vocabulary(tmp_path: Path) -> None:
    file = write(tmp_path, SETTINGS)
    assert gguf_vocabulary(file) is None
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json and no tokenizer.model"):
        load_tokenizer(file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{P}model": "bert"}, "of the kind 'bert', and LLaMA's are 'llama' and 'gpt2'"),
        ({f"{P}model": 1}, "model must be of type str"),
        ({f"{P}tokens": None}, "have no tokenizer.ggml.tokens"),
        ({f"{P}tokens": "abc"}, "or it is no array of texts"),
        ({f"{P}tokens": [1, 2]}, "or it is no array of texts"),
        ({f"{P}scores": None}, "4096 pieces and 0 scores"),
        ({f"{P}scores": ["a"]}, "scores is no array of numbers"),
        ({f"{P}scores": [1]}, "scores is no array of numbers"),
        ({f"{P}token_type": [0.5]}, "token_type is no array of whole numbers"),
        ({f"{P}token_type": 3}, "token_type is no array of whole numbers"),
        ({f"{P}token_type": [1, 2]}, "4096 pieces and 2 types"),
        ({f"{P}token_type": [-1] * 4096}, "unknown type -1"),
        ({f"{P}merges": 4}, "or it is no array of texts"),
        ({f"{P}bos_token_id": "<s>"}, "bos_token_id must be of type int"),
        ({f"{P}eos_token_id": 4096}, "eos token is 4096, and it has 4096 pieces"),
        ({f"{P}add_bos_token": 1}, "add_bos_token must be of type bool"),
        ({"tokenizer.chat_template": 1}, "chat_template must be of type str"),
        ({"tokenizer.chat_template.rag": ["a"]}, "chat_template.rag must be of type str"),
        ({f"{P}pre": 2}, "pre must be of type str"),
    ],
)
def test_vocabularies_that_are_none(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    said = {key: value for key, value in (metadata_of(of_the_tales()) | changes).items() if value is not None}
    file = write(tmp_path, said)
    with pytest.raises(ValueError, match=words) as caught:
        load_tokenizer(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_no_special_id_as_some_write_it(tmp_path: Path) -> None:
    file = write(tmp_path, metadata_of(of_the_tales(), padding_token_id=2**32 - 1))
    assert load_tokenizer(file).pad_token_id is None
