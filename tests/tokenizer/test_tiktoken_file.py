"""Llama 3's own tokenizer.model, beside an encoder that does nothing but what tiktoken says it does."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from tokenizers import pre_tokenizers, trainers
from tokenizers.models import BPE

from minillama.loading import load_tokenizer
from minillama.tokenizer import AutoTokenizer, LlamaTokenizer, LlamaTokenizerFast
from minillama.tokenizer.from_pieces import from_pieces
from minillama.tokenizer.tiktoken_file import MAX_SIZE, SPECIAL, as_text, open_tiktoken
from minillama.tokenizer.to_pieces import to_pieces
from minillama.tokenizer.word_cuts import LLAMA3_WORDS
from tests.tokenizer.texts import SPIKY

SAMPLE = Path(__file__).parents[2] / "data" / "sample.txt"
CUT = pre_tokenizers.Split(tokenizers.Regex(LLAMA3_WORDS), "isolated")
STAND_INS = {as_text(bytes([byte])): byte for byte in range(256)}
SIZE = 900  # tokens


@cache
def ranks() -> dict[bytes, int]:
    """A vocabulary as it is made for tiktoken: bytes, then pairs in the order in which a training joins them."""
    learner = tokenizers.Tokenizer(BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [CUT, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    learner.train_from_iterator(SAMPLE.read_text(encoding="utf-8").splitlines(keepends=True), trainer)
    return {bytes(STAND_INS[character] for character in piece): i for piece, i in learner.get_vocab().items()}


def lines(of: dict[bytes, int]) -> list[bytes]:
    return [b"%s %d" % (base64.b64encode(token), rank) for token, rank in sorted(of.items(), key=lambda item: item[1])]


def written(folder: Path, contents: bytes | None = None) -> Path:
    file = folder / "tokenizer.model"
    file.write_bytes(b"\n".join(lines(ranks())) + b"\n" if contents is None else contents)
    return file


def expected(text: str) -> list[int]:
    """Each word by itself: whole if it is a token, else its bytes, of which always those neighbours are joined first
    that make the token of the lowest rank."""
    ids = []
    for word, _ in CUT.pre_tokenize_str(text):
        parts = [word.encode()] if word.encode() in ranks() else [bytes([byte]) for byte in word.encode()]
        while True:
            found = [(ranks()[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ranks()]
            if not found:
                break
            place = min(found)[1]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        ids += [ranks()[part] for part in parts]
    return ids


def test_ids_are_those_of_tiktoken(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(written(tmp_path))
    assert isinstance(tokenizer, LlamaTokenizerFast)
    assert len(tokenizer) == SIZE + 256
    for text in (*SPIKY, SAMPLE.read_text(encoding="utf-8")[:5000]):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == expected(text)
        assert tokenizer.decode(ids) == text


def test_bytes_have_the_characters_of_the_library() -> None:
    assert sorted(STAND_INS) == sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for character in "\0 a\x7f\xad\xff€":
        assert tokenizer.pre_tokenize_str(character)[0][0] == as_text(character.encode())


def test_special_tokens_have_the_ids_behind_the_last_rank(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(written(tmp_path))
    assert len(set(SPECIAL)) == 256
    # Llama 3's own numbers, counted from its 128000 ranks
    for token, index in {
        "<|begin_of_text|>": 0, "<|end_of_text|>": 1, "<|finetune_right_pad_id|>": 4, "<|start_header_id|>": 6,
        "<|end_header_id|>": 7, "<|eom_id|>": 8, "<|eot_id|>": 9, "<|python_tag|>": 10,
        "<|reserved_special_token_3|>": 11, "<|reserved_special_token_247|>": 255,
    }.items():  # fmt: skip
        assert tokenizer.convert_tokens_to_ids(token) == SIZE + index
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (SIZE, SIZE + 1)
    text = "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    words = [SIZE + 6, *expected("user"), SIZE + 7, *expected("\n\nHi"), SIZE + 9]
    assert tokenizer.encode(text) == [SIZE, *words]
    assert tokenizer.decode(words, skip_special_tokens=True) == "user\n\nHi"


def test_it_is_told_from_a_sentencepiece_model_by_what_it_holds(tmp_path: Path) -> None:
    file = written(tmp_path)
    for tokenizer in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path, use_fast=False)):
        assert tokenizer.encode("The fox") == [SIZE, *expected("The fox")]
    assert AutoTokenizer.from_pretrained(file, padding_side="right").padding_side == "right"
    (tmp_path / "7B").mkdir()
    (tmp_path / "7B" / "params.json").write_text("{}")
    assert len(load_tokenizer(tmp_path / "7B")) == SIZE + 256
    with pytest.raises(ValueError, match="is a vocabulary of tiktoken, as Meta has it"):
        LlamaTokenizer(file)


def test_lines_may_come_in_any_order_and_end_in_any_way(tmp_path: Path) -> None:
    ids = load_tokenizer(written(tmp_path)).encode(SPIKY[14])
    for contents in (b"\n".join(lines(ranks())[::-1]), b"\r\n".join(lines(ranks())) + b"\r\n\r\n"):
        assert open_tiktoken(written(tmp_path, contents)).encode(SPIKY[14]) == ids


def test_it_is_saved_as_a_tokenizer_json_and_taken_apart(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(written(tmp_path))
    tokenizer.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["model"]["ignore_merges"]
    for again in (load_tokenizer(tmp_path / "saved"), from_pieces(to_pieces(tokenizer))):
        for text in (*SPIKY, "a<|eot_id|>b"):
            assert again.encode(text) == tokenizer.encode(text)


def with_line(line: bytes) -> Callable[[], bytes]:
    return lambda: b"\n".join([*lines(ranks()), line])


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "not base64": (with_line(b"!!!! 900"), "the token in line 901 is not base64"),
    "base64 cut short": (with_line(b"QUJ 900"), "the token in line 901 is not base64"),
    "a rank twice": (with_line(b"QUJDREVG 7"), "line 901 has the rank 7 again"),
    "a token twice": (with_line(b"IQ== 900"), "it has a token twice"),
    "a rank left out": (with_line(b"QUJDREVG 901"), "no token has the rank 900"),
    "a rank of a thousand digits": (with_line(b"QUJDREVG " + b"9" * 1000), "line 901 is not a token and its rank"),
    "a negative rank": (with_line(b"QUJDREVG -1"), "line 901 is not a token and its rank"),
    "no rank": (with_line(b"QUJDREVG"), "line 901 is not a token and its rank"),
    "a token of nothing": (with_line(b"==== 900"), "the token in line 901 is not base64"),
    "a long token": (
        with_line(base64.b64encode(b"a" * 257) + b" 900"),
        "the token in line 901 has 257 bytes, not 1 to 256",
    ),
    "a special token": (with_line(base64.b64encode(b"<|eot_id|>") + b" 900"), "has the piece '<|eot_id|>' twice"),
    "a byte missing": (lambda: b"\n".join(lines({b"a": 0, b"b": 1})), "it has no token for the byte 0"),
    "cut in a line": (lambda: b"\n".join(lines(ranks()))[:-3], "line 900 is not a token and its rank"),
    "another thing below": (with_line(b"\0" * 5000), "line 901 is not a token and its rank"),
    "huge": (lambda: b"IQ== 0\n" * (MAX_SIZE // 7 + 1), f"more than the {MAX_SIZE} allowed"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_sound_is_refused(case: str, tmp_path: Path) -> None:
    make, words = BAD[case]
    with pytest.raises(ValueError, match="is not a sound vocabulary of tiktoken") as caught:
        load_tokenizer(written(tmp_path, make()))
    assert words in str(caught.value)
    assert str(tmp_path / "tokenizer.model") in str(caught.value)
    assert len(str(caught.value)) < 400
