"""The fast tokenizer beside that of transformers 5, and each reading what the other has saved.

transformers 5 makes its LlamaTokenizer anew from the pieces and merges of a tokenizer.json, with a marker before a
text only where it does not begin with a space already; PreTrainedTokenizerFast takes the file as it is, as
transformers 4 and minillama do. So the second is the judge of everything, and the first of texts that begin otherwise.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from minillama.shipped import tale_model
from minillama.tokenizer import AutoTokenizer, LlamaTokenizer, LlamaTokenizerFast
from tests.tiny import LLAMA2_TOKENIZER, needs_llama2_tokenizer
from tests.tokenizer.beside import BATCHES, Pair, calls, cases, plain, quiet, rows_differ, same, same_tokenizers  # noqa: F401
from tests.tokenizer.test_json_file import BEGIN, TEXT, byte_level
from tests.tokenizer.texts import ANY_IDS, SPIKY, WITH_SPECIAL

transformers = pytest.importorskip("transformers", reason="needs the oracle extra")
if int(transformers.__version__.split(".")[0]) < 5:
    pytest.skip("needs transformers 5", allow_module_level=True)
# The libraries' own deprecation notes are not ours to fail on
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

often = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def as_it_is(folder: Path, **how: Any) -> Any:
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder, **how)


@pytest.fixture(
    scope="module",
    params=[
        *(f"tale, {way}" for way in ("shipped", "legacy", "not legacy")),
        *(pytest.param(f"Llama 2, {way}", marks=needs_llama2_tokenizer) for way in ("legacy", "not legacy")),
    ],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Ours, made from a sentencepiece model or read, and what transformers reads of it when it is saved."""
    vocabulary, way = request.param.split(", ")
    how = {"pad_token": "</s>"}
    if way == "shipped":
        return LlamaTokenizerFast.from_pretrained(tale_model(), **how), as_it_is(tale_model(), **how)
    model = LLAMA2_TOKENIZER if vocabulary == "Llama 2" else tale_model() / "tokenizer.model"
    ours = LlamaTokenizerFast(model, legacy=way == "legacy", **how)
    folder = tmp_path_factory.mktemp("saved")
    ours.save_pretrained(folder)
    return ours, as_it_is(folder)


@often
@given(text=WITH_SPECIAL)
def test_text_to_ids_and_back(pair: Pair, text: str) -> None:
    ids = same(pair, lambda t: t.encode(text))
    same(pair, lambda t: t.encode(text, add_special_tokens=False))
    same(pair, lambda t: t.tokenize(text))
    for skip in (False, True):
        same(pair, lambda t, skip=skip: t.decode(ids, skip_special_tokens=skip))
        same(pair, lambda t, skip=skip: t.convert_ids_to_tokens(ids, skip_special_tokens=skip))
    same(pair, lambda t: t.convert_tokens_to_string(t.convert_ids_to_tokens(ids)))


@often
@given(ids=ANY_IDS)
def test_any_ids_to_text(pair: Pair, ids: list[int]) -> None:
    same(pair, lambda t: t.decode(ids))
    same(pair, lambda t: t.batch_decode([ids, ids[:2]], skip_special_tokens=True))


def test_clean_up_is_done_where_it_is_asked_for(pair: Pair) -> None:
    """As transformers 4 does; transformers 5 does it for no byte-pair model unless it is told twice."""
    ours, theirs = pair
    ids = ours.encode("Hello . I 'm")
    assert theirs.decode(ids, clean_up_tokenization_spaces=True) == ours.decode(ids)
    cleaned = ours.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
    assert cleaned == theirs.clean_up_tokenization("Hello . I 'm") == "Hello. I'm"


def test_plain_facts(pair: Pair) -> None:
    for name in ("padding_side", "truncation_side", "model_input_names", "is_fast", "vocab_size", "model_max_length"):
        if name != "padding_side":  # that of LlamaTokenizer, left, is not that of the class read here
            same(pair, lambda t, name=name: getattr(t, name))
    for name in ("special_tokens_map", "all_special_tokens", "all_special_ids", "added_tokens_encoder"):
        same(pair, lambda t, name=name: getattr(t, name))
    for name in ("bos", "eos", "unk", "pad"):
        same(pair, lambda t, name=name: (getattr(t, f"{name}_token"), getattr(t, f"{name}_token_id")))
    same(pair, len)
    same(pair, lambda t: t.get_vocab())
    same(pair, lambda t: t.num_special_tokens_to_add(pair=True))
    same(pair, lambda t: t.convert_tokens_to_ids(["▁the", "<s>", "no piece of it"]))
    same(pair, lambda t: t.get_special_tokens_mask([1, 5, 2, 0], already_has_special_tokens=True))


SINGLES = [
    ("The fox ran.", None),
    ("a b", "the brown bread"),
    ("One two three four five six seven", "a b c d e f g h"),
    ("Über 🦙", None),
]
CALLS = calls(
    padding_side=st.sampled_from([None, "left", "right"]),
    max_length=st.sampled_from([None, 8, 12, 20]),
    stride=st.sampled_from([0, 1]),
    return_overflowing_tokens=st.booleans(),
    return_offsets_mapping=st.booleans(),
)


@settings(often, max_examples=300)
@given(texts=st.sampled_from(SINGLES + BATCHES), how=CALLS, sides=st.tuples(*[st.sampled_from(["left", "right"])] * 2))
def test_calls(pair: Pair, texts: Any, how: dict[str, Any], sides: tuple[str, str]) -> None:
    for tokenizer in pair:
        tokenizer.padding_side, tokenizer.truncation_side = sides
    if rows_differ(lambda: pair[1](*texts, **how)):
        with pytest.raises(ValueError, match="differ in length"):
            pair[0](*texts, **how)
    else:
        same(pair, lambda t: t(*texts, **how))


@often
@given(text=WITH_SPECIAL)
def test_which_characters_a_token_stands_for(pair: Pair, text: str) -> None:
    encodings = [t(text, return_offsets_mapping=True) for t in pair]
    assert plain(encodings[0]) == plain(encodings[1])
    length = len(encodings[0]["input_ids"])
    for name in ("tokens", "word_ids", "sequence_ids"):
        assert getattr(encodings[0], name)() == getattr(encodings[1], name)()
    for at in range(0, len(text), 3):
        assert encodings[0].char_to_token(at) == encodings[1].char_to_token(at)
    for at in range(0, length, 2):
        ours, theirs = (encoding.token_to_chars(at) for encoding in encodings)
        assert ours == (None if theirs is None else tuple(theirs))


def test_words_and_labels(pair: Pair) -> None:
    words = [["The", "fox"], ["brown", "bread", "!"]]
    same(pair, lambda t: t(words, is_split_into_words=True, padding=True))
    same(pair, lambda t: t(words[0], words[1], is_split_into_words=True))
    same(pair, lambda t: t("The fox", text_target="the bread"))
    same(pair, lambda t: t(["a", "b"], text_target=["c", "d e f"], padding=True))


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("flags", list(product([False, True], repeat=3)), ids=str)
def test_added_tokens(flags: tuple[bool, ...], special: bool) -> None:
    how = dict(zip(("lstrip", "rstrip", "single_word"), flags, strict=True))
    pair = LlamaTokenizerFast.from_pretrained(tale_model()), as_it_is(tale_model())
    tokens = [AddedToken(t, normalized=False, **how) for t in ("<new>", "<new>er", "the", "a b")]
    assert same(pair, lambda t: t.add_tokens(tokens, special_tokens=special)) is not None
    for text in (*SPIKY, "a<new>b <new> c", "<new>er <new>erx", "the theatre the", " a b a bc", "<s><new></s>"):
        ids = same(pair, lambda t, text=text: t.encode(text))
        same(pair, lambda t, ids=ids: t.decode(ids))
        same(pair, lambda t, ids=ids: t.decode(ids, skip_special_tokens=True))
    same(pair, len)


def test_a_byte_level_tokenizer(tmp_path: Path) -> None:
    """In the manner of Llama 3."""
    file = byte_level(tmp_path, [BEGIN, TEXT])
    names = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    ours = LlamaTokenizerFast(tokenizer_file=file, **names)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), **names)
    ours.save_pretrained(tmp_path / "saved")
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in ("é <|end|> plain\n", "", "🦙  two"):
        assert ours.encode(text) == theirs.encode(text) == saved.encode(text)
        for skip in (False, True):
            decoded = {t.decode(ours.encode(text), skip_special_tokens=skip) for t in (ours, theirs, saved)}
            assert len(decoded) == 1


# -- files --------------------------------------------------------------------------------------------------------

CASES = cases(padding_side="right")
FACTS = (
    "bos_token", "pad_token", "pad_token_id", "added_tokens_encoder", "all_special_ids", "padding_side",
    "truncation_side", "model_max_length", "chat_template", "vocab_size",
)  # fmt: skip
# None begins, nor does what follows a special token, with a space: see the top
TEXTS = ("The fox <x>ran<y>.", "a<pad>b", "c<note>d", "</s>e", "The brown  bread\n", "Ünïcode 🦙")
agree = partial(same_tokenizers, FACTS, TEXTS)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("legacy", [True, False])
def test_what_is_saved_here_they_read(legacy: bool, case: str, tmp_path: Path) -> None:
    ours = LlamaTokenizerFast(tale_model() / "tokenizer.model", legacy=legacy, **CASES[case])
    ours.add_tokens([AddedToken("<note>", normalized=False)])
    ours.save_pretrained(tmp_path)
    agree(ours, transformers.LlamaTokenizer.from_pretrained(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "LlamaTokenizer"
    agree(ours, theirs)
    agree(ours, as_it_is(tmp_path))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("legacy", [True, False])
def test_what_they_save_is_read_here(legacy: bool, case: str, tmp_path: Path) -> None:
    theirs = transformers.LlamaTokenizer.from_pretrained(tale_model(), legacy=legacy, **CASES[case])
    theirs.add_tokens([AddedToken("<note>", normalized=False)])
    theirs.save_pretrained(tmp_path)  # but for `legacy`, so that they read another tokenizer than they saved
    ours = LlamaTokenizerFast.from_pretrained(tmp_path)
    agree(ours, theirs)
    for text in SPIKY:  # their own file, so spaces at the beginning too
        assert ours.encode(text) == as_it_is(tmp_path).encode(text)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is LlamaTokenizerFast


def test_a_space_that_begins_a_text_is_kept_here() -> None:
    """It is lost by transformers 5, for both of whose ways there are test vectors that it does not meet."""
    for legacy in (True, False):
        theirs = transformers.LlamaTokenizer.from_pretrained(tale_model(), legacy=legacy)
        ours = LlamaTokenizerFast(tale_model() / "tokenizer.model", legacy=legacy)
        assert theirs.encode(" fox") == theirs.encode("fox") == ours.encode("fox")
        slow = LlamaTokenizer(tale_model() / "tokenizer.model", legacy=legacy)
        assert ours.encode(" fox") == slow.encode(" fox") != ours.encode("fox")
        assert ours.decode(ours.encode(" fox"), skip_special_tokens=True) == " fox"
