import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.growing_text import REPLACEMENT
from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast, StreamDecoder, Tokenizer
from tests.tiny import LLAMA2_TOKENIZER, needs_llama2_tokenizer
from tests.tokenizer.test_json_file import byte_level
from tests.tokenizer.test_sentencepiece_model import TEXTS

SLOW = LlamaTokenizer.from_pretrained(tale_model())
FAST = LlamaTokenizerFast.from_pretrained(tale_model())
NOT_LEGACY = LlamaTokenizer(tale_model() / "tokenizer.model", legacy=False)
tokenizers = pytest.mark.parametrize("tokenizer", [SLOW, FAST, NOT_LEGACY], ids=["slow", "fast", "not legacy"])


def comes_back(tokenizer: Tokenizer, text: str) -> str:
    """What a text decodes to: a legacy model takes the first space for its own, as in transformers 4.34."""
    return text.removeprefix(" ") if isinstance(tokenizer, LlamaTokenizer) and tokenizer.legacy else text


def stream(tokenizer: Tokenizer, ids: list[int], before: list[int]) -> str:
    decoder = StreamDecoder(tokenizer, before)
    pieces = [decoder.push(index) for index in ids]
    assert not any(piece.endswith(REPLACEMENT) for piece in pieces)
    return "".join(pieces) + decoder.finish()


@tokenizers
@given(TEXTS)
def test_the_pieces_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    assert stream(tokenizer, tokenizer.encode(text), []) == comes_back(tokenizer, text)


@tokenizers
@given(TEXTS, TEXTS)
def test_a_prompt_is_continued_with_its_spaces(tokenizer: Tokenizer, prompt: str, text: str) -> None:
    before, ids = tokenizer.encode(prompt), tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.decode(before + ids, skip_special_tokens=True)
    shown = comes_back(tokenizer, prompt)
    assert whole.startswith(shown)
    assert stream(tokenizer, ids, before) == whole[len(shown) :]


@tokenizers
def test_the_space_after_a_prompt_is_kept(tokenizer: Tokenizer) -> None:
    before, fox = tokenizer.encode("the"), tokenizer.encode("fox", add_special_tokens=False)
    assert stream(tokenizer, fox, before) == " fox"
    assert stream(tokenizer, fox, []) == "fox"


# Some ids are bytes, most of them no UTF-8, and some are special: no text encodes to such ids, but a model may say them
ANY_IDS = st.lists(st.integers(0, 258) | st.integers(0, 4095), max_size=20)


@given(ANY_IDS)
def test_any_ids_stream_to_what_they_decode_to(ids: list[int]) -> None:
    assert stream(SLOW, ids, []) == SLOW.decode(ids, skip_special_tokens=True)
    assert stream(NOT_LEGACY, ids, []) == NOT_LEGACY.decode(ids, skip_special_tokens=True)


@given(TEXTS, ANY_IDS)
def test_any_ids_continue_a_prompt(prompt: str, ids: list[int]) -> None:
    before = SLOW.encode(prompt)
    whole = SLOW.decode(before + ids, skip_special_tokens=True)
    assert comes_back(SLOW, prompt) + stream(SLOW, ids, before) == whole


@tokenizers
def test_a_character_comes_when_its_last_byte_comes(tokenizer: Tokenizer) -> None:
    decoder = StreamDecoder(tokenizer)
    fox = [byte + 3 for byte in "\U0001f98a".encode()]
    assert [decoder.push(index) for index in fox] == ["", "", "", "\U0001f98a"]
    assert decoder.push(fox[0]) == ""
    assert decoder.finish().startswith(REPLACEMENT)
    assert decoder.finish() == ""


@tokenizers
def test_special_tokens_are_silent(tokenizer: Tokenizer) -> None:
    decoder = StreamDecoder(tokenizer)
    (a,) = tokenizer.encode("a", add_special_tokens=False)
    assert [decoder.push(index) for index in (1, a, 2, a)] == ["", "a", "", " a"]


@needs_llama2_tokenizer
@given(TEXTS)
def test_the_pieces_are_the_text_with_llama_2(text: str) -> None:
    tokenizer = LlamaTokenizer(LLAMA2_TOKENIZER)
    assert stream(tokenizer, tokenizer.encode(text), []) == comes_back(tokenizer, text)


# -- decoders that rewrite what is out ----------------------------------------------------------------------------


def byte_ids(text: str | bytes) -> list[int]:
    return [byte + 3 for byte in (text.encode() if isinstance(text, str) else text)]


@pytest.mark.parametrize(
    "text", ["name == 'main' , yes ?", "s = 'some'", "do n't , I 'm he 's we 've they 're .", "a . b ! c ? ' d"]
)
def test_a_clean_up_of_spaces_takes_no_letters(text: str, tmp_path: Path) -> None:
    byte_level(tmp_path, [{"Sequence": {"id": "A", "type_id": 0}}], merges=["Ġ '", "Ġ ,", "m a", "i n", "ma in", "Ġ ="])
    (tmp_path / "tokenizer_config.json").write_text('{"clean_up_tokenization_spaces": true}')
    tokenizer = LlamaTokenizerFast.from_pretrained(tmp_path)
    assert tokenizer.clean_up_tokenization_spaces
    assert stream(tokenizer, tokenizer.encode(text), []) == text
    for kind in (LlamaTokenizer, LlamaTokenizerFast):
        tokenizer = kind.from_pretrained(tale_model(), clean_up_tokenization_spaces=True)
        assert stream(tokenizer, tokenizer.encode(text), []) == text


@tokenizers
def test_a_stray_byte_spoils_no_character_beside_it(tokenizer: Tokenizer) -> None:
    """The tokenizers library gives U+FFFD for every byte of a run of byte tokens in which one is wrong."""
    stray, fox = byte_ids(b"\xf0"), byte_ids("狐")
    (word,) = tokenizer.encode("fox", add_special_tokens=False)
    assert stream(tokenizer, [*fox, *stray, word], []) == f"狐{REPLACEMENT} fox"
    assert stream(tokenizer, [*fox, *stray], []) == f"狐{REPLACEMENT}"
    assert stream(tokenizer, [word, *stray, *fox, *fox], []) == f"fox{REPLACEMENT}狐狐"
    decoder = StreamDecoder(tokenizer)
    assert [decoder.push(index) for index in [*fox, *stray, *fox]] == ["", "", "狐", "", "", "", f"{REPLACEMENT}狐"]


@tokenizers
def test_a_character_that_the_prompt_began_is_completed(tokenizer: Tokenizer) -> None:
    before = [*tokenizer.encode("fox"), *byte_ids("狐")[:1]]
    assert stream(tokenizer, byte_ids("狐")[1:], before) == "狐"


@given(ANY_IDS)
def test_both_classes_stream_the_same_text(ids: list[int]) -> None:
    """Except how many U+FFFD stand for wrong bytes, and the spaces at the beginning and beside special tokens."""
    ids = [index for index in ids if index > 2]
    ours, others = (re.sub(f"{REPLACEMENT}+", REPLACEMENT, stream(each, ids, [])) for each in (FAST, NOT_LEGACY))
    assert ours.lstrip(" ") == others.lstrip(" ")
