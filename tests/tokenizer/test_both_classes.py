"""LlamaTokenizer and LlamaTokenizerFast made from the same sentencepiece model are the same tokenizer."""

from __future__ import annotations

import copy
import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from minillama.shipped import sample_text, tale_model
from minillama.tokenizer import AutoTokenizer, LlamaTokenizer, LlamaTokenizerFast, Tokenizer
from tests.tiny import LLAMA2_TOKENIZER, needs_llama2_tokenizer
from tests.tokenizer.test_json_file import TEXT, byte_level
from tests.tokenizer.texts import SPECIAL, SPIKY, WITH_SPECIAL

TALE = tale_model() / "tokenizer.model"
LEGACY = pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "not legacy"])
CLASSES = pytest.mark.parametrize("cls", [LlamaTokenizer, LlamaTokenizerFast])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((vocabulary, legacy), id=f"{name}, {'legacy' if legacy else 'not legacy'}", marks=marks)
        for name, vocabulary, marks in (("tale", TALE, ()), ("Llama 2", LLAMA2_TOKENIZER, needs_llama2_tokenizer))
        for legacy in (True, False)
    ],
)
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, Tokenizer]:
    vocabulary, legacy = request.param
    return LlamaTokenizer(vocabulary, legacy=legacy), LlamaTokenizerFast(vocabulary, legacy=legacy)


@given(text=WITH_SPECIAL)
def test_the_same_ids(pair: tuple[Tokenizer, Tokenizer], text: str) -> None:
    slow, fast = pair
    assert fast.encode(text) == slow.encode(text)
    assert fast.tokenize(text) == slow.tokenize(text)


@pytest.mark.parametrize("text", SPIKY)
def test_the_same_ids_of_what_is_hard(pair: tuple[Tokenizer, Tokenizer], text: str) -> None:
    slow, fast = pair
    for variant in (text, f" {text}", f"<s>{text}", f"{text}</s> {text}<unk>{text}"):
        assert fast.encode(variant) == slow.encode(variant)
    assert fast.decode(fast.encode(text), skip_special_tokens=True) == text.replace("▁", " ")


def test_the_same_ids_of_many_texts(pair: tuple[Tokenizer, Tokenizer]) -> None:
    """Characters of every block, and bytes that are no UTF-8, in the company of what is hard. Fifty times as many were
    the same when this was written."""
    rng = random.Random(31)
    blocks = ((0, 0x300), (0x300, 0xD800), (0xE000, 0x20000), (0x20000, 0x110000))

    def some() -> str:
        kind = rng.randrange(4)
        if kind == 0:
            return rng.choice(SPIKY)
        if kind == 1:
            return rng.choice((*SPECIAL, " ", "\n", "the "))
        if kind == 2:
            return bytes(rng.randrange(256) for _ in range(5)).decode("utf-8", "replace")
        return "".join(chr(rng.randrange(*rng.choice(blocks))) for _ in range(5))

    slow, fast = pair
    texts = ["".join(some() for _ in range(rng.randrange(1, 7))) for _ in range(500)]
    assert [fast.encode(text) for text in texts] == [slow.encode(text) for text in texts]
    assert fast(texts)["input_ids"] == slow(texts)["input_ids"]
    tales = sample_text().read_text(encoding="utf-8")
    assert fast.encode(tales) == slow.encode(tales)


def test_the_same_vocabulary(pair: tuple[Tokenizer, Tokenizer]) -> None:
    slow, fast = pair
    assert fast.get_vocab() == slow.get_vocab()
    for name in ("vocab_size", "special_tokens_map", "all_special_ids", "added_tokens_encoder", "legacy"):
        assert getattr(fast, name) == getattr(slow, name)
    assert (slow.padding_side, fast.padding_side) == ("right", "left")
    assert (slow.is_fast, fast.is_fast) == (False, True)


NEW = ("<new>", "<new>er", "fox", "\n", "a b")


@LEGACY
@pytest.mark.parametrize("special", [True, False])
@given(text=st.lists(st.sampled_from((*NEW, *NEW, " ", "<s>", "x")) | WITH_SPECIAL, max_size=5).map("".join))
def test_the_same_ids_of_added_tokens(special: bool, legacy: bool, text: str) -> None:
    slow, fast = WITH_NEW[legacy, special]
    if special or legacy:
        assert fast.encode(text) == slow.encode(text)
    else:  # the marker before a token that is not special stays in the slow class, as in transformers 4.34
        assert fast.encode(f".{text}") == slow.encode(f".{text}")


def with_new(cls: type[Any], legacy: bool, special: bool) -> Tokenizer:
    tokenizer = cls(TALE, legacy=legacy)
    assert tokenizer.add_tokens(NEW, special_tokens=special) == len(NEW)
    return tokenizer


@CLASSES
def test_offsets_point_to_the_text_of_tokens(cls: type[Any]) -> None:
    tokenizer, text = cls(TALE), "The fox  ran.\n🦙"
    if cls is LlamaTokenizer:
        with pytest.raises(NotImplementedError, match="LlamaTokenizerFast"):
            tokenizer(text, return_offsets_mapping=True)
        return
    encoding = tokenizer(text, return_offsets_mapping=True)
    assert [text[a:b] for a, b in encoding["offset_mapping"]][1:3] == ["The", " fox"]


@CLASSES
def test_unknown_arguments_are_refused(cls: type[Any]) -> None:
    with pytest.raises(TypeError, match="paddding"):
        cls(TALE)("a fox", paddding=True)


@LEGACY
def test_sampling(legacy: bool) -> None:
    how = {"enable_sampling": True, "nbest_size": -1, "alpha": 0.2}
    tokenizer, usual = LlamaTokenizer(TALE, legacy=legacy, sp_model_kwargs=how), LlamaTokenizer(TALE, legacy=legacy)
    sentencepiece.set_random_generator_seed(7)
    drawn = [tokenizer.encode(" the brown fox") for _ in range(20)]
    assert len(set(map(tuple, drawn))) > 5
    for ids in drawn:  # each of them another way to write the same text
        assert tokenizer.decode(ids, skip_special_tokens=True) == usual.decode(usual.encode(" the brown fox")[1:])


# -- files --------------------------------------------------------------------------------------------------------


@LEGACY
@CLASSES
def test_saved_and_read(cls: type[Any], legacy: bool, tmp_path: Path) -> None:
    tokenizer = cls(
        TALE,
        legacy=legacy,
        pad_token="<pad>",
        additional_special_tokens=["<x>"],
        add_eos_token=True,
        padding_side="left",
        model_max_length=77,
        chat_template={"default": "one", "rag": "two"},
        use_default_system_prompt=False,
    )
    tokenizer.add_tokens(["<note>", AddedToken("<strip>", lstrip=True, normalized=False)])
    files = tokenizer.save_pretrained(tmp_path)
    assert sorted(map(Path, files)) == sorted(tmp_path.iterdir())
    names = {path.name for path in tmp_path.iterdir()}
    fast = {"tokenizer.json"} if cls is LlamaTokenizerFast else set()
    settings = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
    assert names == {"tokenizer.model"} | settings | fast
    again = cls.from_pretrained(tmp_path)
    for name in (
        "legacy", "special_tokens_map", "added_tokens_encoder", "all_special_ids", "add_bos_token", "add_eos_token",
        "padding_side", "model_max_length", "chat_template", "use_default_system_prompt",
    ):  # fmt: skip
        assert getattr(again, name) == getattr(tokenizer, name), name
    for text in ("a <x> b<note>c  <strip>d<pad>", " fox", "</s>  e"):
        assert again.encode(text) == tokenizer.encode(text)
    again.save_pretrained(tmp_path / "again")
    for file in map(Path, files):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    plain = cls(TALE)
    plain.save_pretrained(tmp_path)
    assert not (tmp_path / "added_tokens.json").exists()  # it would be read with the new files
    assert len(cls.from_pretrained(tmp_path)) == 4096
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is cls


def test_formats_and_prefixes(tmp_path: Path) -> None:
    slow, fast = LlamaTokenizer(TALE), LlamaTokenizerFast(TALE)
    with pytest.raises(ValueError, match="no other format than the legacy one"):
        slow.save_pretrained(tmp_path / "none", legacy_format=False)
    assert not (tmp_path / "none").exists()
    fast.save_pretrained(tmp_path / "legacy", legacy_format=True, filename_prefix="my")
    assert {path.name for path in (tmp_path / "legacy").iterdir()} == {
        f"my-{name}" for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")
    }
    fast.save_pretrained(tmp_path / "new", legacy_format=False)
    assert not (tmp_path / "new" / "tokenizer.model").exists()
    again = LlamaTokenizerFast.from_pretrained(tmp_path / "new")
    assert again.encode(" the fox") == slow.encode(" the fox")
    with pytest.raises(ValueError, match="was not made from a sentencepiece model"):
        again.save_pretrained(tmp_path / "none", legacy_format=True)


def test_what_cannot_be_saved_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LlamaTokenizer(TALE).save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="cannot be written: No space left"):
        LlamaTokenizer(TALE, pad_token="<pad>").save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_merges_are_saved_in_the_form_that_old_versions_read(tmp_path: Path) -> None:
    LlamaTokenizerFast(TALE).save_pretrained(tmp_path)
    contents = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert all(isinstance(merge, str) for merge in contents["model"]["merges"])


@pytest.mark.parametrize("put", [["<|begin|>"], ["<|end|>"], ["<|begin|>", "<|end|>"], []], ids=str)
def test_what_a_file_puts_around_is_found_out_and_saved(put: list[str], tmp_path: Path) -> None:
    around = [{"SpecialToken": {"id": token, "type_id": 0}} for token in put]
    template = [TEXT, *around] if put == ["<|end|>"] else [*around[:1], TEXT, *around[1:]]
    file = byte_level(tmp_path, template)
    tokenizer = LlamaTokenizerFast(tokenizer_file=file, bos_token="<|begin|>", eos_token="<|end|>")
    assert (tokenizer.add_bos_token, tokenizer.add_eos_token) == ("<|begin|>" in put, "<|end|>" in put)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = LlamaTokenizerFast.from_pretrained(tmp_path / "saved")
    assert again.encode("ab") == tokenizer.encode("ab")
    assert len(again.encode("ab")) == 2 + len(put)
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # its pieces are not a LlamaTokenizer's


def test_a_model_that_rewrites_its_text_has_no_fast_form(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(TALE.read_bytes() + b"\x1a\x02\x20\x01")  # normalizer_spec.remove_extra_whitespaces = true
    for legacy in (True, False):
        tokenizer = LlamaTokenizer(file, legacy=legacy)
        assert tokenizer.encode("a  fox") == LlamaTokenizer(TALE).encode("a fox")
        with pytest.raises(ValueError, match=r"tokenizer\.model rewrites its text"):
            LlamaTokenizerFast(file, legacy=legacy)
    # The one marker is encode's own, and the space of the text is stripped behind it
    assert tokenizer.tokenize("<s> fox") == ["<s>", "▁fox"]


@CLASSES
def test_copies(cls: type[Any]) -> None:
    tokenizer = cls(TALE, pad_token="<pad>")
    for copied in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert copied.encode("a fox<pad>") == tokenizer.encode("a fox<pad>")
        copied.add_tokens(["fox"])
        assert len(copied) == len(tokenizer) + 1


def test_added_tokens_of_a_tokenizer_json_are_known_to_the_slow_class(tmp_path: Path) -> None:
    LlamaTokenizerFast(TALE, pad_token="<pad>").save_pretrained(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        (tmp_path / name).unlink()
    shutil.copy(TALE, tmp_path)
    assert LlamaTokenizer.from_pretrained(tmp_path).encode("a<pad>") == [1, *LlamaTokenizer(TALE).encode("a")[1:], 4096]
    for wrong, words in (("[1]", "must be a list of objects"), ('[{"content": "<x>", "id": "y"}]', "the id 'y'")):
        (tmp_path / "tokenizer.json").write_text(f'{{"added_tokens": {wrong}}}')
        with pytest.raises(ValueError, match=rf"tokenizer\.json.*{words}"):
            LlamaTokenizer.from_pretrained(tmp_path)


WITH_NEW = {
    (legacy, special): (with_new(LlamaTokenizer, legacy, special), with_new(LlamaTokenizerFast, legacy, special))
    for legacy in (True, False)
    for special in (True, False)
}


@pytest.mark.parametrize("kind", [LlamaTokenizer, LlamaTokenizerFast])
@pytest.mark.parametrize("made_with", [False, True])
def test_a_call_may_say_otherwise_whether_special_tokens_are_split(kind: Any, made_with: bool) -> None:
    tokenizer = kind.from_pretrained(tale_model(), split_special_tokens=made_with)
    whole, split = [1, 1], [1, *tokenizer.encode("<", add_special_tokens=False)]
    for said in (None, False, True):
        ids = tokenizer.encode("<s>", split_special_tokens=said)
        expected = split if (made_with if said is None else said) else whole
        assert ids[: len(expected)] == expected
        assert tokenizer("<s>", split_special_tokens=said).input_ids == ids
        assert tokenizer.tokenize("<s>", split_special_tokens=said) == tokenizer.convert_ids_to_tokens(ids[1:])
