"""Vocabularies taken out of tokenizers, and tokenizers made of them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast, Tokenizer
from minillama.tokenizer.from_pieces import from_pieces
from minillama.tokenizer.to_pieces import to_pieces
from minillama.vocabulary import BYTE, CONTROL, UNKNOWN, USER_DEFINED
from tests.tiny import LLAMA2_TOKENIZER, needs_llama2_tokenizer
from tests.tokenizer.test_from_pieces import byte_level, of_the_tales
from tests.tokenizer.texts import SPECIAL, SPIKY


def assert_same(ours: Tokenizer, theirs: Tokenizer) -> None:
    for text in (*SPIKY, *SPECIAL, "a <s> b</s>c<note>d<pad>"):
        assert ours.encode(text) == theirs.encode(text), text
    assert ours.special_tokens_map == theirs.special_tokens_map


@pytest.mark.parametrize("how", [{}, {"legacy": False, "add_prefix_space": False}, {"add_eos_token": True}])
def test_a_sentencepiece_model(how: dict[str, Any]) -> None:
    tokenizer = LlamaTokenizer.from_pretrained(tale_model(), pad_token="<pad>", chat_template="x", **how)
    tokenizer.add_tokens(["<note>"])
    vocabulary = to_pieces(tokenizer)
    assert vocabulary.pieces[:4096] == of_the_tales().pieces
    assert vocabulary.types[:4096] == of_the_tales().types
    assert (vocabulary.pieces[4096:], vocabulary.types[4096:]) == (["<pad>", "<note>"], [CONTROL, USER_DEFINED])
    assert_same(from_pieces(vocabulary), tokenizer)
    assert to_pieces(from_pieces(vocabulary)) == vocabulary


@pytest.mark.parametrize("with_model", [True, False])
def test_a_file_of_merges_with_bytes(with_model: bool, tmp_path: Path) -> None:
    """Without the sentencepiece model beside it, scores are made of the order of its merges."""
    for name in ("tokenizer.json", "tokenizer_config.json", *["tokenizer.model"] * with_model):
        (tmp_path / name).write_bytes((tale_model() / name).read_bytes())
    tokenizer = load_tokenizer(tmp_path)
    assert isinstance(tokenizer, LlamaTokenizerFast)
    vocabulary = to_pieces(tokenizer)
    assert (vocabulary.types[0], vocabulary.types[1], vocabulary.types[3]) == (UNKNOWN, CONTROL, BYTE)
    assert_same(from_pieces(vocabulary), LlamaTokenizer.from_pretrained(tale_model()))


@needs_llama2_tokenizer
def test_the_tokenizer_of_llama_2() -> None:
    tokenizer = LlamaTokenizer(LLAMA2_TOKENIZER)
    made = from_pieces(to_pieces(tokenizer))
    assert made.encode("Hello this is a test") == [1, 15043, 445, 338, 263, 1243]
    assert_same(made, tokenizer)


@pytest.mark.parametrize("pre", ["llama-bpe", "smaug-bpe", "gpt-2", "smollm", "qwen2", "tekken", "deepseek-coder"])
def test_byte_level_pairs(pre: str) -> None:
    tokenizer = from_pieces(byte_level(pre=pre, add_bos=True))
    vocabulary = to_pieces(tokenizer)
    assert vocabulary == byte_level(pre=pre, add_bos=True, add_eos=False, space_prefix=False)
    assert_same(from_pieces(vocabulary), tokenizer)


def changed(tmp_path: Path, **changes: Any) -> LlamaTokenizerFast:
    """A byte-level tokenizer whose file says something else."""
    from_pieces(byte_level(pre=changes.pop("pre", "llama-bpe"))).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    contents = json.loads(file.read_text(encoding="utf-8"))
    contents["model"] |= {key: changes.pop(key) for key in ("ignore_merges",) if key in changes}
    file.write_text(json.dumps(contents | changes), encoding="utf-8")
    return LlamaTokenizerFast.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalizer": {"type": "NFC"}}, "normalizer NFC has no place"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer Whitespace has no place"),
        ({"ignore_merges": True, "pre": "gpt-2"}, "ignore_merges is not what goes with cutting words as gpt2"),
    ],
)
def test_what_has_no_such_vocabulary(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        to_pieces(changed(tmp_path, **changes))
