"""Tokenizers made of a vocabulary without files, beside those made of the files it was taken from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast
from minillama.tokenizer.from_pieces import from_pieces
from minillama.tokenizer.word_cuts import LLAMA3_WORDS
from minillama.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary
from tests.tokenizer.texts import SPECIAL, SPIKY

TALES = LlamaTokenizer.from_pretrained(tale_model())


def of_the_tales(**changes: Any) -> Vocabulary:
    sp = TALES.sp_model
    kinds = [(sp.is_unknown, UNKNOWN), (sp.is_control, CONTROL), (sp.is_byte, BYTE)]
    ids = range(len(sp))
    return replace(
        Vocabulary(
            "llama",
            [sp.id_to_piece(i) for i in ids],
            [sp.get_score(i) for i in ids],
            [next((kind for is_kind, kind in kinds if is_kind(i)), NORMAL) for i in ids],
            bos=1, eos=2, unk=0,
        ),
        **changes,
    )  # fmt: skip


BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())  # the characters that stand for bytes


def byte_level(**changes: Any) -> Vocabulary:
    pieces = [*BYTES, "he", "ll", "hell", "Ġhe", "hello", "Ġhello", "12", "<|begin_of_text|>", "<|eot_id|>", "<note>"]
    types = [NORMAL] * (len(pieces) - 3) + [CONTROL, CONTROL, USER_DEFINED]
    merges = ["h e", "l l", "he ll", "Ġ he", "1 2"]
    bos = pieces.index("<|begin_of_text|>")
    return replace(
        Vocabulary("gpt2", pieces, types=types, merges=merges, pre="llama-bpe", bos=bos, eos=bos + 1), **changes
    )


@pytest.mark.parametrize("space_prefix", [True, False])
def test_pieces_and_scores_make_the_tokenizer_they_are_of(space_prefix: bool, tmp_path: Path) -> None:
    made = from_pieces(of_the_tales(space_prefix=space_prefix))
    model = tale_model() / "tokenizer.model"
    same = LlamaTokenizer(model) if space_prefix else LlamaTokenizer(model, legacy=False, add_prefix_space=False)
    made.save_pretrained(tmp_path)
    for tokenizer in (made, load_tokenizer(tmp_path)):
        assert isinstance(tokenizer, LlamaTokenizer)
        for text in (*SPIKY, *SPECIAL, "a <s> b</s>c"):
            assert tokenizer.encode(text) == same.encode(text)
            assert tokenizer.decode(tokenizer.encode(text)) == same.decode(same.encode(text))
    assert not (tmp_path / "tokenizer.json").exists()


def test_types_that_nobody_knows_are_the_usual() -> None:
    assert from_pieces(of_the_tales(types=())).encode("Œ a fox<s>") == TALES.encode("Œ a fox<s>")


def test_what_goes_around_a_text() -> None:
    made = from_pieces(of_the_tales(add_bos=False, add_eos=True, pad=2, chat_template="{{ x }}"))
    assert (made.encode("")[0], made.pad_token_id, made.chat_template) == (2, 2, "{{ x }}")


def test_control_and_user_defined_pieces_are_taken_out_of_a_text() -> None:
    pieces, types = list(of_the_tales().pieces), list(of_the_tales().types)
    more = of_the_tales(
        pieces=[*pieces, "<|user|>", "<note>", "[PAD]", "[PAD2]"],
        types=[*types, CONTROL, USER_DEFINED, UNUSED, UNUSED],
        scores=[*of_the_tales().scores, -1000.0, -1000.0, 0.0, 0.0],
    )
    made = from_pieces(more)
    assert made.encode("a<|user|>fox<note>")[-1] == len(pieces) + 1
    assert len(pieces) in made.encode("a<|user|>fox<note>")
    assert len(pieces) in made.all_special_ids
    assert len(pieces) + 1 not in made.all_special_ids
    assert len(made) == len(pieces) + 2  # those that fill up are left out


def test_merges_make_the_tokenizer_that_a_file_with_them_makes(tmp_path: Path) -> None:
    """The file is written out here by hand, as Llama 3's is."""
    given = byte_level()
    words = {"type": "Split", "pattern": {"Regex": LLAMA3_WORDS}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    added = [
        {"id": given.pieces.index(token), "content": token, "special": token != "<note>", "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False}
        for token in given.pieces[-3:]
    ]  # fmt: skip
    contents = {
        "version": "1.0", "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, level]}, "post_processor": None,
        "decoder": level, "model": {"type": "BPE", "vocab": {p: i for i, p in enumerate(given.pieces[:-3])},
                                    "merges": list(given.merges), "ignore_merges": True},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(contents))
    named: dict[str, Any] = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "add_bos_token": True}
    same = LlamaTokenizerFast(tokenizer_file=tmp_path / "tokenizer.json", **named)
    made = from_pieces(given)
    made.save_pretrained(tmp_path / "saved")
    for tokenizer in (made, load_tokenizer(tmp_path / "saved")):
        assert isinstance(tokenizer, LlamaTokenizerFast)
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (given.bos, given.eos)
        assert tokenizer.all_special_tokens == ["<|begin_of_text|>", "<|eot_id|>"]
        for text in (*SPIKY, "hello hello12345<note> hell<|eot_id|>"):
            assert tokenizer.encode(text) == same.encode(text)
            assert tokenizer.decode(tokenizer.encode(text)[1:]) == text
    assert made.encode("hello")[1:] == [given.pieces.index("hello")]  # which no merge makes, and which is whole


@pytest.mark.parametrize(("pre", "pieces"), [("llama-bpe", ["12", "3", "4"]), ("gpt-2", ["12", "3", "4"]),
                                             ("smollm", ["1", "2", "3", "4"])])  # fmt: skip
def test_ways_to_cut_words(pre: str, pieces: Sequence[str]) -> None:
    made = from_pieces(byte_level(pre=pre))
    assert made.tokenize("1234") == list(pieces)
    assert (made.encode("1")[0] == made.bos_token_id) == (pre == "llama-bpe")


@pytest.mark.parametrize("pre", ["", "default"])
def test_no_name_of_the_cut_is_llama_cpp_s_default(pre: str, caplog: pytest.LogCaptureFixture) -> None:
    """Which is not Llama 3's: a warning says so."""
    made = from_pieces(byte_level(pre=pre))
    assert made.tokenize("hello") == ["hell", "o"]
    assert made.encode("h") == [byte_level().pieces.index("h")]
    assert "llama.cpp's default is another way" in caplog.text
    plain = byte_level(pre=pre, pieces=[*byte_level().pieces[:-3], "<s>", "</s>", "<note>"])
    caplog.clear()
    from_pieces(plain)
    assert not caplog.text


def test_a_cut_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="in the way 'kimi-k2', which is not known"):
        from_pieces(byte_level(pre="kimi-k2"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "bert"}, "of the kind 'bert'"),
        ({"pieces": []}, "0 pieces and 4096 types"),
        ({"pieces": [], "types": []}, "no pieces"),
        ({"pieces": ["a"] * 4096}, "'a' twice"),
        ({"scores": [0.0]}, "4096 pieces and 1 scores"),
        (
            {"pieces": ["a", "b"], "scores": [0, 0], "types": [NORMAL] * 2, "eos": 1, "unk": None},
            "no piece for what is",
        ),
        ({"types": [7] * 4096}, "unknown type 7"),
        ({"types": [UNKNOWN, *[BYTE] * 4095]}, "not a piece for each byte"),
        ({"pieces": ["", *map(str, range(4095))]}, "empty or holds a NUL"),
        ({"pieces": ["a\0", *map(str, range(4095))]}, "empty or holds a NUL"),
        ({"eos": 4096}, "eos token is 4096, and it has 4096 pieces"),
        ({"bos": -1}, "bos token is -1"),
    ],
)
def test_what_is_no_sentencepiece_vocabulary(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_pieces(of_the_tales(**changes))


def test_types_by_which_nothing_is_special() -> None:
    """The names of bytes are enough for them, as in llama.cpp, and the id of the unknown piece is."""
    made = from_pieces(of_the_tales(types=[NORMAL] * 4096))
    for text in SPIKY:
        assert made.encode(text) == TALES.encode(text), text


@pytest.mark.parametrize("merge", ["", "h", "h e l", "h x", " he", "zz z"])
def test_merges_of_pieces_that_are_not_there(merge: str) -> None:
    with pytest.raises(ValueError, match="not two pieces that make a third"):
        from_pieces(byte_level(merges=["h e", merge]))
