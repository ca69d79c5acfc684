from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from minillama.shipped import sample_text, tale_model
from minillama.tokenizer import LlamaTokenizer
from tests.tiny import LLAMA2_TOKENIZER, needs_llama2_tokenizer

TALE = LlamaTokenizer.from_pretrained(tale_model())
MARKER = "▁"
# Any Unicode text, often with what tokenizers stumble over. Not in it, because they do not come back: lone surrogates,
# which are no text, the marker, which reads as a space, and special tokens
PIECES = ("  ", " ", "\n", "\t", "the", "Fox", "é", "e\u0301", "中文", "\U0001f98a\u200d", "\ufffd", "\0", "ß")
TEXTS = (
    st.lists(st.sampled_from(PIECES) | st.text(st.characters(codec="utf-8", exclude_characters=MARKER), max_size=6))
    .map("".join)
    .filter(lambda text: not any(special in text for special in ("<s>", "</s>", "<unk>")))
)


@given(TEXTS)
def test_text_comes_back_as_it_was(text: str) -> None:
    expected = text.removeprefix(" ")  # which a legacy model takes for its own, as in transformers 4.34
    assert TALE.decode(TALE.encode(text), skip_special_tokens=True) == expected


def test_tales_come_back_as_they_were() -> None:
    text = sample_text().read_text(encoding="utf-8")
    ids = TALE.encode(text)
    assert TALE.decode(ids, skip_special_tokens=True) == text
    assert len(ids) < len(text) / 2.5  # the vocabulary was made for such text


@given(TEXTS)
def test_without_legacy_text_comes_back_too(text: str) -> None:
    tokenizer = LlamaTokenizer(tale_model() / "tokenizer.model", legacy=False)
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_a_byte_is_its_id_minus_three() -> None:
    assert TALE.encode("\0\x01", add_special_tokens=False)[1:] == [3, 4]  # the marker comes first
    assert TALE.encode("中", add_special_tokens=False)[1:] == [byte + 3 for byte in "中".encode()]
    assert TALE.decode([byte + 3 for byte in "\U0001f98a".encode()]) == "\U0001f98a"
    assert TALE.decode([0xF0 + 3]) == "\ufffd"


def test_what_is_put_around_a_text() -> None:
    plain = TALE.encode("a fox", add_special_tokens=False)
    assert TALE.encode("a fox") == [1, *plain]
    other = LlamaTokenizer(tale_model() / "tokenizer.model", add_bos_token=False, add_eos_token=True)
    assert other.encode("a fox") == [*plain, 2]
    assert TALE.encode("") == [1]
    assert TALE.encode("", add_special_tokens=False) == []


def test_special_tokens_in_the_text_are_recognised() -> None:
    ids = TALE.encode("a</s><s>b", add_special_tokens=False)
    a, b = TALE.encode("a", add_special_tokens=False), TALE.encode("b", add_special_tokens=False)
    assert ids == [*a, 2, 1, *b]
    assert TALE.decode(ids) == " a</s><s>b"  # the space is transformers 4.34's
    assert TALE.decode(ids, skip_special_tokens=True) == "a b"


def test_without_legacy_a_marker_comes_before_the_whole_text_only() -> None:
    tokenizer = LlamaTokenizer(tale_model() / "tokenizer.model", legacy=False)
    marker, a, bare_a = (TALE.vocab[piece] for piece in (MARKER, "▁a", "a"))
    assert tokenizer.encode("a<s>a", add_special_tokens=False) == [a, 1, bare_a]
    assert TALE.encode("a<s>a", add_special_tokens=False) == [a, 1, a]
    assert tokenizer.encode("<s>a", add_special_tokens=False) == [1, bare_a]  # and not before a special token
    assert tokenizer.encode(" <s>a", add_special_tokens=False) == [marker, marker, 1, bare_a]
    assert tokenizer.encode("▁a▁") == tokenizer.encode(" a ")


def test_added_tokens_have_the_ids_beyond_the_model() -> None:
    call, note = AddedToken("<|call|>", special=True, normalized=False), AddedToken("<|note|>")
    tokenizer = LlamaTokenizer(tale_model() / "tokenizer.model", added_tokens_decoder={4096: call, 4097: note})
    assert len(tokenizer) == 4098
    ids = tokenizer.encode("a<|note|><|call|>", add_special_tokens=False)
    assert ids == [*tokenizer.encode("a", add_special_tokens=False), 4097, 4096]
    assert tokenizer.decode(ids) == "a <|note|> <|call|>"  # as in transformers 4.34
    assert tokenizer.decode(ids, spaces_between_special_tokens=False) == "a<|note|><|call|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a <|note|>"


def test_ids_of_pieces() -> None:
    assert (TALE.unk_token_id, TALE.bos_token_id, TALE.eos_token_id, TALE.pad_token_id) == (0, 1, 2, None)
    assert TALE.convert_tokens_to_ids("<0x41>") == 0x41 + 3
    assert TALE.convert_tokens_to_ids("no such piece") == 0
    assert TALE.batch_decode([[1, 0x41 + 3], []], skip_special_tokens=True) == ["A", ""]


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"surrogate, U\+D83D, at position 2"):
        TALE.encode("ab\ud83d")
    for outside in (-1, 4096):
        with pytest.raises(ValueError, match=rf"the id {outside} is outside the tokenizer's 0..4095"):
            TALE.decode([5, outside])
    with pytest.raises(FileNotFoundError, match=r"no-such\.model does not exist"):
        LlamaTokenizer.from_pretrained(tmp_path / "no-such.model")


@needs_llama2_tokenizer
@pytest.mark.parametrize(
    ("text", "legacy", "ids"),
    [
        ("Hello this is a test", True, [1, 15043, 445, 338, 263, 1243]),
        ("Hello this is a test", False, [1, 15043, 445, 338, 263, 1243]),
        ("Hello <s>.", True, [1, 15043, 29871, 1, 869]),
        ("Hello <s>.", False, [1, 15043, 29871, 1, 29889]),
        ("", True, [1]),
        ("", False, [1]),
        (" ", True, [1, 259]),
        (" ", False, [1, 259]),
    ],
)
def test_ids_of_llama_2(text: str, legacy: bool, ids: list[int]) -> None:
    tokenizer = LlamaTokenizer(LLAMA2_TOKENIZER, legacy=legacy)
    assert tokenizer.encode(text) == ids
    assert tokenizer.encode(text, add_special_tokens=False) == ids[1:]


@needs_llama2_tokenizer
@pytest.mark.parametrize("legacy", [True, False])
def test_decoding_drops_the_first_marker_of_llama_2(legacy: bool) -> None:
    tokenizer = LlamaTokenizer(LLAMA2_TOKENIZER, legacy=legacy)
    assert tokenizer.decode([869]) == "."
    assert tokenizer.decode([15043, 869]) == "Hello ."
    assert tokenizer.decode([243]) == "\ufffd"


def test_without_a_prefix_space() -> None:
    tokenizer = LlamaTokenizer(tale_model() / "tokenizer.model", legacy=False, add_prefix_space=False)
    bare_a = TALE.vocab["a"]
    assert tokenizer.encode("a", add_special_tokens=False) == [bare_a]
    assert tokenizer.encode("<s>a", add_special_tokens=False) == [1, bare_a]
    for text in ("a fox", " a fox", "▁", "  "):
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text.replace("▁", " ")
    with pytest.raises(ValueError, match="add_prefix_space=False needs legacy=False"):
        LlamaTokenizer(tale_model() / "tokenizer.model", add_prefix_space=False)
