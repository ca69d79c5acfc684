"""The vocabulary in the metadata of a GGUF file, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minillama.loading import load_tokenizer
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast
from minillama.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, Vocabulary
from minillama.weights.gguf_vocabulary import gguf_vocabulary
from tests.ggufs import SETTINGS, gguf_bytes
from tests.tokenizer.test_from_pieces import TALES, byte_level, of_the_tales
from tests.tokenizer.texts import SPIKY

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
        ({f"{P}tokens": "abc"}, "or it is not an array of texts"),
        ({f"{P}tokens": [1, 2]}, "or it is not an array of texts"),
        ({f"{P}scores": [0.5]}, "4096 pieces and 1 scores"),
        ({f"{P}scores": ["a"]}, "scores is not an array of numbers"),
        ({f"{P}scores": 0.5}, "scores is not an array of numbers"),
        ({f"{P}token_type": [0.5]}, "token_type is not an array of whole numbers"),
        ({f"{P}token_type": 3}, "token_type is not an array of whole numbers"),
        ({f"{P}token_type": [1, 2]}, "4096 pieces and 2 types"),
        ({f"{P}token_type": [-1] * 4096}, "unknown type -1"),
        ({f"{P}merges": 4}, "or it is not an array of texts"),
        ({f"{P}bos_token_id": "<s>"}, "bos_token_id must be of type int"),
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


def with_types(**kinds: int) -> list[int]:
    """The types of the tales' pieces, some changed: p0=CONTROL for that of piece 0."""
    types = list(of_the_tales().types)
    for place, kind in kinds.items():
        types[int(place[1:])] = kind
    return types


@pytest.mark.parametrize("unk", [0, None])
@pytest.mark.parametrize("types", [with_types(p0=CONTROL), with_types(p0=NORMAL), with_types(p1=UNKNOWN)])
def test_what_is_unknown_need_not_be_said(types: list[int], unk: int | None, tmp_path: Path) -> None:
    """llama.cpp's converter types <unk> as control where a tokenizer_config.json lists it: 0, if no id is stated."""
    scores = [-1000.0] * 3 + list(of_the_tales().scores[3:])
    tokenizer = load_tokenizer(write(tmp_path, metadata_of(of_the_tales(types=types, scores=scores, unk=unk))))
    for text in (*SPIKY, "a <unk>b</s> c"):
        if types[0] != NORMAL or "<unk>" not in text:
            assert tokenizer.encode(text) == TALES.encode(text), text
    assert tokenizer.unk_token_id == 0


def test_pieces_from_a_tokenizer_json_alone(tmp_path: Path) -> None:
    """llama.cpp's converter gives all of them one score: the leftmost neighbours that make a piece are joined first."""
    types = [CONTROL] * 3 + [BYTE] * 256 + [NORMAL] * 3837
    said = metadata_of(of_the_tales(types=types, scores=[-1000.0] * 4096, unk=None))
    tokenizer = load_tokenizer(write(tmp_path, said))
    assert tokenizer.encode("A fox<s>\nŒ") == [1, 361, 1565, 1, 4019, 13, 200, 149]


def test_special_ids_that_are_not_said_or_out_of_range(tmp_path: Path) -> None:
    """llama.cpp takes 1, 2 and 0 for bos, eos and unknown."""
    said = metadata_of(of_the_tales(bos=None, eos=4096, unk=None), padding_token_id=4096, add_eos_token=True)
    tokenizer = load_tokenizer(write(tmp_path, said))
    assert tokenizer.encode("") == [1, 2]
    assert (tokenizer.unk_token_id, tokenizer.pad_token_id) == (0, None)


def test_no_special_ids_where_their_pieces_are_normal(tmp_path: Path) -> None:
    """A piece that is a text like others would be taken out of every text."""
    pieces = ["<unk>", "a", "b", "ab", "▁"]
    given = Vocabulary("llama", pieces, [0.0] * 5, [UNKNOWN, *[NORMAL] * 4])
    tokenizer = load_tokenizer(write(tmp_path, metadata_of(given)))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (None, None)
    assert tokenizer.encode("abc") == [4, 3, 0]


def test_scores_that_are_missing_whole_or_too_many_and_an_empty_piece(tmp_path: Path) -> None:
    given = of_the_tales()
    pieces = [*given.pieces[:300], "", *given.pieces[301:]]
    tokenizers = []
    for scores in (None, [0] * 4099, [0.0] * 4096):
        said = metadata_of(of_the_tales(pieces=pieces, scores=[])) | {f"{P}token_type": [*given.types, NORMAL]}
        said |= {} if scores is None else {f"{P}scores": scores}
        tokenizers.append(load_tokenizer(write(tmp_path, said)))
    for text in SPIKY:
        assert tokenizers[0].encode(text) == tokenizers[1].encode(text) == tokenizers[2].encode(text)
    assert tokenizers[0].convert_ids_to_tokens(300) == "[EMPTY_300]"


def test_an_unused_piece_with_a_name_is_kept(tmp_path: Path) -> None:
    given = of_the_tales()
    more = of_the_tales(
        pieces=[*given.pieces, "[PAD4096]", "[PAD4097]"], scores=[*given.scores, -1.0, -1.0],
        types=[*given.types, UNUSED, UNUSED], pad=4096,
    )  # fmt: skip
    tokenizer = load_tokenizer(write(tmp_path, metadata_of(more, padding_token_id=4096)))
    assert (len(tokenizer), tokenizer.pad_token_id) == (4097, 4096)
