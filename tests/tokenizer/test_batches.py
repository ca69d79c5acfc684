"""Texts to batches, for both classes, with the tale model's vocabulary."""

import copy
import pickle
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.shipped import tale_model
from minillama.tokenizer import BatchEncoding, LlamaTokenizer, LlamaTokenizerFast, Tokenizer
from minillama.tokenizer.batches import CallOptions

SLOW = LlamaTokenizer.from_pretrained(tale_model(), pad_token="</s>")
FAST = LlamaTokenizerFast.from_pretrained(tale_model(), pad_token="</s>")
both = pytest.mark.parametrize("tokenizer", [SLOW, FAST], ids=["slow", "fast"])
TEXTS = ["A fox", "Once upon a time there was a crow", ""]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


@both
def test_one_and_several(tokenizer: Tokenizer) -> None:
    one = tokenizer("A fox")
    ids = [1, *ids_of(tokenizer, "A fox")]
    assert dict(one) == {"input_ids": ids, "attention_mask": [1] * len(ids)}
    assert dict(tokenizer.encode_plus("A fox")) == dict(one)
    several = tokenizer(TEXTS)
    assert several.input_ids == [tokenizer.encode(text) for text in TEXTS]
    assert dict(tokenizer.batch_encode_plus(TEXTS)) == dict(several)
    assert tokenizer([]).input_ids == []
    pairs = tokenizer(TEXTS[:2], TEXTS[1:])
    assert pairs["input_ids"][0] == [*tokenizer.encode(TEXTS[0]), *tokenizer.encode(TEXTS[1])]
    assert tokenizer(TEXTS[:1], TEXTS[1:2], return_token_type_ids=True).token_type_ids == [
        [0] * len(tokenizer.encode(TEXTS[0])) + [1] * len(tokenizer.encode(TEXTS[1]))
    ]


@both
def test_arrays(tokenizer: Tokenizer) -> None:
    batch = tokenizer(TEXTS, padding=True, return_tensors="np")
    width = len(tokenizer.encode(TEXTS[1]))
    assert batch.input_ids.shape == batch.attention_mask.shape == (3, width)
    for row, mask, text in zip(batch.input_ids, batch.attention_mask, TEXTS, strict=True):
        assert row[mask == 1].tolist() == tokenizer.encode(text)
        assert set(row[mask == 0]) <= {2}
        assert mask[0 if tokenizer.padding_side == "right" else -1] == 1
    assert tokenizer("A fox", return_tensors="np").input_ids.shape == (1, len(tokenizer.encode("A fox")))
    with pytest.raises(ValueError, match="the rows of input_ids differ in length and make no array: give padding=True"):
        tokenizer(TEXTS, return_tensors="np")
    with pytest.raises(ValueError, match="return_tensors must be 'np', not 'pt': minillama has NumPy arrays only"):
        tokenizer("A fox", return_tensors="pt")


@both
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_of_padding_for_a_call(tokenizer: Tokenizer, side: str) -> None:
    own = tokenizer.padding_side
    rows = [tokenizer.encode(text) for text in TEXTS[:2]]
    width = len(rows[1])
    short = [2] * (width - len(rows[0]))
    expected = [short + rows[0] if side == "left" else rows[0] + short, rows[1]]
    how: dict[str, Any] = {"padding_side": side}
    assert tokenizer(TEXTS[:2], padding=True, **how).input_ids == expected
    assert tokenizer.pad({"input_ids": rows}, **how).input_ids == expected
    assert tokenizer.encode(TEXTS[0], padding="max_length", max_length=width, **how) == expected[0]
    assert (
        tokenizer.prepare_for_model(rows[0][1:], padding="max_length", max_length=width, **how)["input_ids"]
        == expected[0]
    )
    assert tokenizer.padding_side == own
    with pytest.raises(ValueError, match="padding_side must be one of left, right, not 'middle'"):
        tokenizer("A fox", padding_side="middle")


@both
def test_longer_and_shorter(tokenizer: Tokenizer) -> None:
    long = tokenizer.encode(TEXTS[1])
    assert tokenizer(TEXTS[1], truncation=True, max_length=4).input_ids == long[:4]
    assert tokenizer.encode(TEXTS[1], max_length=4) == long[:4]
    padded = tokenizer("A fox", padding="max_length", max_length=9, pad_to_multiple_of=4)
    assert (len(padded.input_ids), sum(padded.attention_mask)) == (12, len(tokenizer.encode("A fox")))
    batch = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=3, return_length=True)
    assert batch["length"] == [3, 3, 3] if tokenizer.is_fast else [len(tokenizer.encode(t)[:3]) for t in TEXTS]
    assert {len(row) for row in batch.input_ids} == {3}


@both
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"text": None}, "there is nothing to encode"),
        ({"text": ["a", "b"], "text_pair": ["c"]}, "text_pair must be a list of as many"),
        ({"text": "a", "padding": "most"}, "padding must be one of longest, max_length, do_not_pad, not 'most'"),
        ({"text": "a", "truncation": "some"}, "truncation must be one of longest_first, .*, not 'some'"),
        ({"text": 3}, "text must be"),
        ({"text": [["a", 3]]}, "text must be"),
        ({"text": "ab\ud83d"}, "lone surrogate"),
        ({"text": ["x", "ab\ud83d"]}, "lone surrogate"),
    ],
)
def test_what_cannot_be_encoded(tokenizer: Tokenizer, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer(**how)


def test_offsets_and_overflowing_rows() -> None:
    text = "A fox and a crow"
    out = FAST(text, return_offsets_mapping=True)
    assert [text[a:b].strip() for a, b in out.offset_mapping][1:3] == ["A", "fox"]
    assert out.tokens()[:2] == ["<s>", "▁A"]
    assert (out.word_ids()[0], out.sequence_ids()[1], out.is_fast) == (None, 0, True)
    assert out.token_to_chars(2) == tuple(out.offset_mapping[2])
    rows = FAST([text, "A"], truncation=True, max_length=4, stride=1, return_overflowing_tokens=True)
    assert rows.overflow_to_sample_mapping[-1] == 1
    first = [row for row, sample in zip(rows.input_ids, rows.overflow_to_sample_mapping, strict=True) if sample == 0]
    assert all(row[0] == 1 for row in first)
    assert first[0][-1] == first[1][1]  # one token of each row stands in the next as well
    with pytest.raises(NotImplementedError, match="only LlamaTokenizerFast knows the offsets"):
        SLOW(text, return_offsets_mapping=True)
    with pytest.raises(ValueError, match="only the encodings of LlamaTokenizerFast know this"):
        SLOW(text).tokens()


def test_an_encoding_is_a_dictionary_with_attributes() -> None:
    encoding = BatchEncoding({"input_ids": [[1, 2]]})
    assert encoding.input_ids is encoding["input_ids"]
    assert {**encoding} == {"input_ids": [[1, 2]]}
    with pytest.raises(AttributeError, match="the encoding has no 'labels', it has input_ids"):
        encoding.labels  # noqa: B018
    assert copy.deepcopy(encoding) == pickle.loads(pickle.dumps(encoding)) == encoding
    assert encoding.convert_to_tensors("np").input_ids.dtype == np.int64


@both
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t("a", pad_to_multiple_of=-4), "pad_to_multiple_of must be a whole number of at least 1, not -4"),
        (lambda t: t("a", max_length="2"), "max_length must be a whole number of at least 0, not '2'"),
        (lambda t: t(np.array(["a", "b"])), "a text must be"),
        (lambda t: t.batch_encode_plus("abc"), "a batch must be a list of texts"),
        (lambda t: t.tokenize(None), "a text must be a str, not 'None' of type NoneType"),
        (lambda t: t.decode("12"), "ids must be a list of whole numbers, not '12'"),
        (lambda t: t.decode([1.7]), r"ids must be a list of whole numbers, not \[1.7\]"),
        (lambda t: t.decode([[1, 2]]), "for several lists, batch_decode"),
        (lambda t: t.convert_tokens_to_ids([5]), "a piece must be a text, not 5"),
        (lambda t: setattr(t, "additional_special_tokens", "<x>"), "additional_special_tokens must be a list"),
        (lambda t: setattr(t, "bos_token", 5), "bos_token must be a text, an AddedToken or None, not 5"),
    ],
)
def test_calls_that_make_no_sense(tokenizer: Tokenizer, call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(tokenizer)


@both
def test_unknown_options_are_named(tokenizer: Tokenizer) -> None:
    for call in (tokenizer, tokenizer.encode, tokenizer.tokenize):
        with pytest.raises(TypeError, match="a tokenizer takes no argument 'padd'"):
            call("a", padd=True)


def test_the_signatures_are_those_of_the_options() -> None:
    """Names and defaults, for they are written out in each for those who read them."""

    def written(call: Any, *others: str) -> dict[str, Any]:
        return {name: p.default for name, p in signature(call).parameters.items() if name not in ("self", *others)}

    texts = ("text", "text_pair", "text_target", "text_pair_target")
    by_name_alone = {"split_special_tokens": None, "verbose": True}
    assert written(Tokenizer.__call__, *texts, "how") | by_name_alone == vars(CallOptions())
    assert written(Tokenizer.prepare_for_model, "ids", "pair_ids", "prepend_batch_axis") == CallOptions().of_a_row()


@pytest.mark.parametrize("kind", [LlamaTokenizer, LlamaTokenizerFast])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bos_token": 5}, "bos_token must be a text"),
        ({"additional_special_tokens": "<x>"}, "additional_special_tokens must be a list of texts, not '<x>'"),
        ({"model_max_length": "12"}, "model_max_length must be a number of tokens, not '12'"),
        ({"model_input_names": "input_ids"}, "model_input_names must be a list of names"),
        ({"padding_side": "middle"}, "padding_side must be left or right, not 'middle'"),
        ({"chat_template": 5}, "chat_template must be a text, or several by name, not 5"),
    ],
)
def test_settings_that_make_no_sense(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(tale_model() / "tokenizer.model", **settings)


def test_flags_may_be_numbers_and_one_id_may_stand_alone() -> None:
    a = ids_of(SLOW, "a")
    for kind in (LlamaTokenizer, LlamaTokenizerFast):
        tokenizer = kind(tale_model() / "tokenizer.model", add_bos_token=0, add_eos_token=np.bool_(True))
        assert tokenizer.encode("a") == [*a, 2]
    assert SLOW.decode(a[0]) == SLOW.decode(np.array(a[0])) == SLOW.decode(np.array(a)) == "a"
    assert FAST.convert_ids_to_tokens(np.int64(a[0])) == "▁a"


@both
def test_arrays_are_padded_to_arrays_and_empty_ones_are_of_integers(tokenizer: Tokenizer) -> None:
    padded = tokenizer.pad([{"input_ids": np.array([1, 2])}, {"input_ids": np.array([3])}])
    assert padded.input_ids.shape == (2, 2)
    assert tokenizer("", add_special_tokens=False, return_tensors="np").input_ids.dtype == np.int64
    assert tokenizer.pad(tokenizer("a b", return_length=True))["length"] in (3, [3])


def test_the_vocabulary_handed_out_is_a_copy() -> None:
    SLOW.vocab.clear()
    SLOW.get_vocab().clear()
    assert len(SLOW) == len(SLOW.vocab) == 4096


@pytest.mark.parametrize("cls", [LlamaTokenizer, LlamaTokenizerFast])
def test_numbers_of_numpy(cls: type[Tokenizer], tmp_path: Path) -> None:
    tokenizer = cls.from_pretrained(tale_model(), model_max_length=np.int64(3), kept=np.float32(0.5))
    assert (tokenizer.model_max_length, type(tokenizer.model_max_length)) == (3, int)
    tokenizer.save_pretrained(tmp_path)
    assert cls.from_pretrained(tmp_path).init_kwargs["kept"] == 0.5
    ids = [np.int64(5), np.int32(6)]
    assert tokenizer.encode(ids) == tokenizer.encode([5, 6])
    assert (
        tokenizer(["a b c d"], max_length=np.int64(2), truncation=True)["input_ids"][0]
        == tokenizer.encode("a b c d")[:2]
    )
    assert tokenizer.decode(np.array([346, 1565])) == tokenizer.decode([346, 1565])
