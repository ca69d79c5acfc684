"""Both tokenizers beside those of transformers 4.34.1, method by method, on the tale and the Llama 2 vocabulary."""

from __future__ import annotations

import random
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from minillama.shipped import tale_model
from minillama.tokenizer import AutoTokenizer, LlamaTokenizer, LlamaTokenizerFast
from tests.tiny import LLAMA2_TOKENIZER, needs_llama2_tokenizer
from tests.tokenizer.beside import BATCHES, Pair, calls, cases, quiet, rows_differ, same, same_tokenizers  # noqa: F401
from tests.tokenizer.texts import ANY_IDS, PLAIN, SPIKY, WITH_SPECIAL

transformers = pytest.importorskip("transformers", reason="needs the oracle-hf4 extra")
if not transformers.__version__.startswith("4.34"):
    pytest.skip("needs transformers 4.34", allow_module_level=True)
# The libraries' own deprecation notes are not ours to fail on
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

TALE = tale_model() / "tokenizer.model"
KINDS = ("slow, legacy", "slow", "fast")

# Every test function below draws its examples anew for each pair, so some hundreds of them make thousands in all
often = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def both(kind: str, vocabulary: Path = TALE, **how: Any) -> Pair:
    """Our tokenizer and theirs, from the same sentencepiece model."""
    if kind == "fast":
        return LlamaTokenizerFast(vocabulary, **how), transformers.LlamaTokenizerFast(str(vocabulary), **how)
    how = {"legacy": kind == "slow, legacy", **how}
    return LlamaTokenizer(vocabulary, **how), transformers.LlamaTokenizer(str(vocabulary), **how)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((kind, file), id=f"{kind} {name}", marks=marks)
        for kind in KINDS
        for name, file, marks in (("tale", TALE, ()), ("Llama 2", LLAMA2_TOKENIZER, needs_llama2_tokenizer))
    ],
)
def pair(request: pytest.FixtureRequest) -> Pair:
    return both(*request.param)


# -- text to ids and back ---------------------------------------------------------------------------------------


@often
@given(text=WITH_SPECIAL)
def test_encode(pair: Pair, text: str) -> None:
    ids = same(pair, lambda t: t.encode(text))
    assert ids[0] == 1
    same(pair, lambda t: t.encode(text, add_special_tokens=False))
    same(pair, lambda t: t.tokenize(text))
    same(pair, lambda t: t.convert_ids_to_tokens(ids))
    same(pair, lambda t: t.convert_tokens_to_ids(t.tokenize(text)))


@pytest.mark.parametrize("text", SPIKY)
def test_encode_what_is_hard(pair: Pair, text: str) -> None:
    for variant in (text, f"<s>{text}", f"{text}</s>", f"a {text}<unk> {text}", f"</s>{text}<s>{text}"):
        same(pair, lambda t, variant=variant: t.encode(variant))
        ids = pair[0].encode(variant)
        same(pair, lambda t, ids=ids: t.decode(ids))
        same(pair, lambda t, ids=ids: t.decode(ids, skip_special_tokens=True))


@often
@given(ids=ANY_IDS, flags=st.tuples(*[st.booleans()] * 3))
def test_decode(pair: Pair, ids: list[int], flags: tuple[bool, bool, bool]) -> None:
    skip, clean, spaces = flags
    how = {
        "skip_special_tokens": skip,
        "clean_up_tokenization_spaces": clean,
        "spaces_between_special_tokens": spaces,
    }
    same(pair, lambda t: t.decode(ids, **how))
    same(pair, lambda t: t.batch_decode([ids, ids[::-1]], **how))
    same(pair, lambda t: t.convert_ids_to_tokens(ids, skip_special_tokens=skip))
    if ids:  # theirs fails for no tokens
        same(pair, lambda t: t.convert_tokens_to_string(t.convert_ids_to_tokens(ids)))


def test_clean_up(pair: Pair) -> None:
    text = "Is n't it ? I 'm , he 's , we 've and you 're . ' ' quoted ' !"
    assert same(pair, lambda t: t.clean_up_tokenization(text)) != text
    ids = pair[0].encode(text)
    assert same(pair, lambda t: t.decode(ids, clean_up_tokenization_spaces=True)) != pair[0].decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_clean_up_as_the_constructor_says(kind: str) -> None:
    pair = both(kind, clean_up_tokenization_spaces=True)
    ids = pair[0].encode("no ! yes .")
    assert same(pair, lambda t: t.decode(ids, skip_special_tokens=True)).endswith("no! yes.")
    same(pair, lambda t: t.decode(ids, clean_up_tokenization_spaces=False))


@often
@given(text=WITH_SPECIAL)
@pytest.mark.parametrize("kind", KINDS[:2])
def test_split_special_tokens(kind: str, text: str) -> None:
    pair = SPLIT[kind]
    same(pair, lambda t: t.encode(text))
    same(pair, lambda t: t.tokenize(text, split_special_tokens=True))
    same(pair, lambda t: t.tokenize(text, split_special_tokens=False))


def test_sampling() -> None:
    for options in ({"nbest_size": -1, "alpha": 0.1}, {"nbest_size": -1, "alpha": 0.5}):
        pair = both("slow, legacy", sp_model_kwargs={"enable_sampling": True, **options})
        seen = []
        for tokenizer in pair:
            sentencepiece.set_random_generator_seed(3)
            seen.append([tokenizer.encode("the fox jumped over the brown bread") for _ in range(30)])
        assert seen[0] == seen[1]
        assert len(set(map(tuple, seen[0]))) > 1  # it is drawn


# -- tokens -------------------------------------------------------------------------------------------------------

FLAGS = ("lstrip", "rstrip", "single_word")
NEW = ("<new>", "<new>er", "the", "▁fox", "a b", "é", "\n")


def merging_spaces() -> Path:
    """The tale model, made to strip and merge spaces: what is set later counts (normalizer_spec, 3, its field 4)."""
    file = Path(tempfile.mkdtemp()) / "tokenizer.model"
    file.write_bytes(TALE.read_bytes() + b"\x1a\x02\x20\x01")
    return file


def with_added(kind: str, flags: tuple[bool, ...], special: bool) -> Pair:
    made = both(kind)
    for token in NEW:
        how = dict(zip(FLAGS, flags, strict=True))
        same(made, lambda t, token=token, how=how: t.add_tokens([AddedToken(token, normalized=False, **how)], special))
    return made


ADDED = {
    (kind, flags, special): with_added(kind, flags, special)
    for kind in KINDS
    for flags in product((False, True), repeat=3)
    for special in (False, True)
}
MERGING = both("slow", merging_spaces())
SPLIT = {kind: both(kind, split_special_tokens=True) for kind in KINDS[:2]}
WITH_NEW = st.lists(st.sampled_from((*NEW, *NEW, " ", "  ", "<s>", ".")) | PLAIN, max_size=7).map("".join)


@settings(often, max_examples=60)
@given(text=WITH_NEW)
@pytest.mark.parametrize("case", ADDED, ids=str)
def test_added_tokens(case: tuple[Any, ...], text: str) -> None:
    pair = ADDED[case]
    ids = same(pair, lambda t: t.encode(text))
    for skip, spaces in product((False, True), repeat=2):
        how = {"skip_special_tokens": skip, "spaces_between_special_tokens": spaces}
        same(pair, lambda t, how=how: t.decode(ids, **how))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_of_added_tokens(kind: str) -> None:
    pair = both(kind)
    assert same(pair, lambda t: t.add_tokens(["<one>", "<two>", "<one>", ""])) == 2
    assert same(pair, lambda t: t.add_tokens("<three>", special_tokens=True)) == 1
    assert same(pair, lambda t: t.add_special_tokens({"pad_token": "<pad>", "cls_token": AddedToken("<cls>")})) == 2
    assert same(pair, lambda t: t.add_special_tokens({"additional_special_tokens": ["<a>"]})) == 1
    more = {"additional_special_tokens": ["<b>"]}
    assert same(pair, lambda t: t.add_special_tokens(more, replace_additional_special_tokens=False)) == 1
    for name in ("added_tokens_encoder", "special_tokens_map", "additional_special_tokens", "all_special_tokens"):
        same(pair, lambda t, name=name: getattr(t, name))
    for name in ("all_special_ids", "additional_special_tokens_ids", "pad_token_id", "cls_token", "vocab_size"):
        same(pair, lambda t, name=name: getattr(t, name))
    same(pair, len)
    same(pair, lambda t: t.get_vocab())
    same(pair, lambda t: t.get_added_vocab())
    same(pair, lambda t: {index: token.content for index, token in t.added_tokens_decoder.items()})
    same(pair, lambda t: {index: token.special for index, token in t.added_tokens_decoder.items()})
    text = "<one>a<two> <three><pad> b<cls> <a>x<b>"
    ids = pair[0].encode(text)
    if kind != "fast":  # which looks for a plain text in the normalized one, and not within a word
        same(pair, lambda t: t.encode(text))
    same(pair, lambda t: t.decode(ids))
    kept = [index for index in ids if index != pair[0].convert_tokens_to_ids("<three>")]
    same(pair, lambda t: t.decode(kept, skip_special_tokens=True))
    # It was replaced: special still in their fast class and in ours, no longer in their slow one
    assert pair[0].decode(ids, skip_special_tokens=True) == pair[0].decode(kept, skip_special_tokens=True)
    assert same(pair, lambda t: t.add_special_tokens({"no_token": "x"})) is None


@often
@given(text=WITH_SPECIAL)
def test_a_model_that_merges_spaces(text: str) -> None:
    same(MERGING, lambda t: t.encode(text))
    same(MERGING, lambda t: t.tokenize(text))


@pytest.mark.parametrize("name", ["bos", "eos", "unk", "sep", "pad", "cls", "mask"])
@pytest.mark.parametrize("kind", KINDS)
def test_named_tokens_are_read_and_set(kind: str, name: str) -> None:
    pair = both(kind)
    same(pair, lambda t: (getattr(t, f"{name}_token"), getattr(t, f"{name}_token_id")))

    def put(t: Any, what: str, value: Any) -> Any:
        setattr(t, f"{name}_token{what}", value)
        if name in ("bos", "eos"):
            t.add_eos_token = True
        return getattr(t, f"{name}_token"), getattr(t, f"{name}_token_id"), t.special_tokens_map, t.all_special_ids

    fox = pair[0].convert_tokens_to_ids("▁fox")
    same(pair, lambda t: put(t, "", "▁the"))
    same(pair, lambda t: t.encode("the fox"))
    same(pair, lambda t: put(t, "_id", fox))
    same(pair, lambda t: t.encode("the fox", "a b"))
    # Whatever has a name is special; their fast class shows it all the same
    assert pair[0].decode([fox, 7, fox], skip_special_tokens=True) == pair[0].decode([7])
    if name != "unk":
        same(pair, lambda t: put(t, "", "<not a piece>"))
    if name not in ("bos", "eos"):  # theirs fails without them where they are to be put around
        same(pair, lambda t: put(t, "", None))
        same(pair, lambda t: put(t, "_id", None))
    same(pair, lambda t: put(t, "", 7))


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_the_constructor(kind: str) -> None:
    tokens = {
        "bos_token": "<begin>",
        "eos_token": AddedToken("<end>", lstrip=True, normalized=False, special=True),
        "unk_token": "<unk>",
        "pad_token": "</s>",
        "mask_token": "<mask>",
        "additional_special_tokens": ["<x>", AddedToken("<y>", rstrip=True, normalized=False, special=True)],
    }
    pair = both(kind, **tokens)
    same(pair, lambda t: t.special_tokens_map)
    same(pair, lambda t: t.all_special_ids)
    same(pair, lambda t: t.added_tokens_encoder)
    for text in ("a <begin> b<end> c <x>  <y>  d<mask>", "<y> z"):
        same(pair, lambda t, text=text: t.encode(text))


# -- around a text ------------------------------------------------------------------------------------------------

FLAG_PAIRS = {
    (kind, bos, eos): both(kind, add_bos_token=bos, add_eos_token=eos)
    for kind in KINDS
    for bos in (True, False)
    for eos in (True, False)
}


@pytest.mark.parametrize("case", FLAG_PAIRS, ids=str)
def test_what_is_put_around(case: tuple[str, bool, bool]) -> None:
    pair, (kind, bos, eos) = FLAG_PAIRS[case], case
    for second in (None, [], [8, 9]):
        same(pair, lambda t, b=second: t.build_inputs_with_special_tokens([5, 6, 7], b))
        same(pair, lambda t, b=second: t.create_token_type_ids_from_sequences([5, 6, 7], b))
        if kind != "fast":  # theirs fails, and ours answers as the slow one does
            same(pair, lambda t, b=second: t.get_special_tokens_mask([5, 6, 7], b))
            same(pair, lambda t, b=second: t.get_special_tokens_mask([5, 1, 7], b, already_has_special_tokens=True))
        slow = FLAG_PAIRS["slow", bos, eos][1]
        assert pair[0].get_special_tokens_mask([5], second) == slow.get_special_tokens_mask([5], second)
    same(pair, lambda t: t.get_special_tokens_mask([1, 6, 2, 0], already_has_special_tokens=True))
    for flag in (False, True):
        same(pair, lambda t, flag=flag: t.num_special_tokens_to_add(flag))
    for text, second in (("a", None), ("a fox", "the b"), ("", "b")):
        same(pair, lambda t, a=text, b=second: t.encode(a, b))
    same(pair, lambda t: (t.add_bos_token, t.add_eos_token))


@pytest.mark.parametrize("kind", KINDS)
def test_the_flags_can_be_changed(kind: str) -> None:
    pair = both(kind)
    for bos, eos in ((False, True), (True, True), (False, False), (True, False)):

        def change(t: Any, bos: bool = bos, eos: bool = eos) -> Any:
            t.add_bos_token, t.add_eos_token = bos, eos
            return t("a fox", "the b", return_special_tokens_mask=True)

        same(pair, change)
    ours, theirs = both("fast")
    for tokenizer in (ours, theirs):
        tokenizer.bos_token = "</s>"
        tokenizer.update_post_processor()
    assert ours.encode("a") == theirs.encode("a")
    assert ours.encode("a")[0] == 2


def test_plain_facts(pair: Pair) -> None:
    for name in ("padding_side", "truncation_side", "model_input_names", "is_fast", "vocab_size", "model_max_length"):
        same(pair, lambda t, name=name: getattr(t, name))
    for name in ("use_default_system_prompt", "chat_template", "clean_up_tokenization_spaces", "pad_token_type_id"):
        same(pair, lambda t, name=name: getattr(t, name))
    same(pair, len)
    same(pair, lambda t: t.get_vocab())
    same(pair, lambda t: t.convert_tokens_to_ids("no piece of it"))
    same(pair, lambda t: t.convert_tokens_to_ids(["▁the", "<s>", "no piece of it", "<0x0A>"]))
    same(pair, lambda t: t.convert_tokens_to_ids(None))
    same(pair, lambda t: t.convert_ids_to_tokens(29))
    if not pair[0].is_fast:  # theirs overflows
        same(pair, lambda t: t.convert_ids_to_tokens([len(t)]))


# -- calls --------------------------------------------------------------------------------------------------------

SENTENCES = ("The fox ran.", "", "a b", "One two three four five six seven eight nine", "Über 🦙", "x")
# An empty text alone is left unpadded by theirs, and `text_pair=""` taken for none by their fast class
SINGLES = [(text, second) for text in SENTENCES if text for second in (None, "the brown bread", "a b c d e f g h")]
CALLS = calls(max_length=st.sampled_from([None, 6, 8, 12, 16]), stride=st.sampled_from([0, 0, 1, 2]))


def padded(kind: str) -> dict[tuple[str, str], Pair]:
    """With a padding token, and both sides to pad and to truncate."""
    made = {}
    for sides in product(("left", "right"), repeat=2):
        how = {"padding_side": sides[0], "truncation_side": sides[1], "model_max_length": 14, "pad_token": "<unk>"}
        made[sides] = both(kind, add_eos_token=sides[0] == "left", **how)
    return made


PADDED = {kind: padded(kind) for kind in KINDS}
sides = st.tuples(*[st.sampled_from(["left", "right"])] * 2)


@settings(often, max_examples=400)
@given(side=sides, texts=st.sampled_from(SINGLES + BATCHES), how=CALLS, overflow=st.booleans())
@pytest.mark.parametrize("kind", KINDS)
def test_calls(kind: str, side: tuple[str, str], texts: Any, how: dict[str, Any], overflow: bool) -> None:
    pair = PADDED[kind][side]
    if kind == "fast":
        how = how | {"return_offsets_mapping": how.get("return_length", False)}
        if how.get("max_length") is not None:
            how["stride"] = min(how.get("stride", 0), 1)
    if overflow and (kind == "fast" or how.get("max_length")):  # theirs fails without
        how = how | {"return_overflowing_tokens": True}
    call = lambda t: t(*texts, **how)  # noqa: E731
    if rows_differ(lambda: call(pair[1])):
        with pytest.raises(ValueError, match="differ in length"):
            call(pair[0])
        return
    same(pair, call)
    if isinstance(texts[0], str):
        same(pair, lambda t: t.encode(*texts, **how))
        same(pair, lambda t: t.encode_plus(*texts, **how))
    elif texts[1] is None:
        same(pair, lambda t: t.batch_encode_plus(texts[0], **how))


@pytest.mark.parametrize("kind", KINDS)
def test_words(kind: str) -> None:
    pair = PADDED[kind]["left", "right"]
    for texts in (["The", "fox", "ran"], [["a", "fox"], ["The", "brown", "bread"]]):
        same(pair, lambda t, texts=texts: t(texts, is_split_into_words=True))
        same(pair, lambda t, texts=texts: t(texts, texts, is_split_into_words=True, padding=True))


def test_pieces_and_ids_are_texts_too() -> None:
    for kind in KINDS[:2]:
        pair = PADDED[kind]["left", "right"]
        same(pair, lambda t: t.encode(["▁The", "▁fox"]))
        same(pair, lambda t: t.encode([300, 301], [302]))
        same(pair, lambda t: t.encode_plus([300, 301, 302], max_length=4, truncation=True))


@pytest.mark.parametrize("kind", KINDS)
def test_labels(kind: str) -> None:
    pair = PADDED[kind]["left", "right"]
    same(pair, lambda t: t("a fox", text_target="the b"))
    same(pair, lambda t: t(text_target=["the b", "c"]))
    same(pair, lambda t: t(["a"], text_target=["b"], text_pair_target=["c"]))
    for wrong in (
        lambda t: t(),
        lambda t: t(3),
        lambda t: t([3]),
        lambda t: t(["a", "b"], ["c"]),
        lambda t: t(["a"], "b"),
    ):
        assert same(pair, wrong) is None
    if kind != "fast":
        assert same(pair, lambda t: t("a", return_offsets_mapping=True)) is None


@settings(often, max_examples=400)
@given(
    side=sides,
    ids=st.lists(st.integers(3, 99), min_size=1, max_size=12),
    second=st.none() | st.lists(st.integers(3, 99), min_size=1, max_size=12),
    how=CALLS,
    overflow=st.booleans(),
)
@pytest.mark.parametrize("kind", KINDS)
def test_prepare_for_model(
    kind: str, side: tuple[str, str], ids: list[int], second: list[int] | None, how: dict[str, Any], overflow: bool
) -> None:
    if kind == "fast":  # theirs has no mask, and type ids that are too short
        how = how | {"return_special_tokens_mask": False, "return_token_type_ids": False}
    if overflow and how.get("max_length"):  # no array is made of no tokens by theirs
        how = how | {"return_overflowing_tokens": True, "return_tensors": None}
    same(PADDED[kind][side], lambda t: t.prepare_for_model(list(ids), second and list(second), **how))


@often
@given(
    side=sides,
    a=st.lists(st.integers(3, 99), max_size=8),
    b=st.none() | st.lists(st.integers(3, 99), max_size=8),
    count=st.integers(-1, 12),
    strategy=st.sampled_from(["longest_first", "only_first", "only_second", "do_not_truncate"]),
    stride=st.integers(0, 3),
)
def test_truncate_sequences(
    side: tuple[str, str], a: list[int], b: list[int] | None, count: int, strategy: str, stride: int
) -> None:
    if strategy == "longest_first" and b is not None and count > len(a) + len(b):
        count = len(a) + len(b)
    same(PADDED["slow"][side], lambda t: t.truncate_sequences(list(a), b and list(b), count, strategy, stride))


@often
@given(
    side=sides,
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    padding=st.sampled_from([True, False, "longest", "max_length"]),
    max_length=st.sampled_from([None, 10, 12]),
    multiple=st.sampled_from([None, 4]),
    mask=st.sampled_from([None, True, False]),
    form=st.sampled_from(["batch", "list", "row", "array"]),
)
def test_pad(
    side: tuple[str, str],
    lengths: list[int],
    padding: Any,
    max_length: int | None,
    multiple: int | None,
    mask: bool | None,
    form: str,
) -> None:
    rng = random.Random(len(lengths))
    rows = [[rng.randrange(3, 99) for _ in range(length)] for length in lengths]
    types = [[0] * len(row) for row in rows]
    inputs: Any = {"input_ids": rows, "token_type_ids": types, "special_tokens_mask": types}
    if form == "list":
        inputs = [{"input_ids": row, "token_type_ids": kind} for row, kind in zip(rows, types, strict=True)]
    elif form == "row":
        inputs = {"input_ids": rows[0], "attention_mask": [1] * len(rows[0])}
    elif form == "array":
        inputs = {"input_ids": np.array([rows[0], rows[0]])}
        padding = padding or True
    how = {"max_length": max_length, "pad_to_multiple_of": multiple, "return_attention_mask": mask}
    import copy

    same(PADDED["slow"][side], lambda t: t.pad(copy.deepcopy(inputs), padding, **how))


def test_padding_without_a_token() -> None:
    for kind in KINDS:
        assert same(both(kind), lambda t: t(["a", "b c"], padding=True)) is None


# -- files --------------------------------------------------------------------------------------------------------

CASES = cases(padding_side="left", use_default_system_prompt=False, clean_up_tokenization_spaces=True)
CASES["right"] = {"padding_side": "right"}
FACTS = (
    "special_tokens_map", "added_tokens_encoder", "all_special_ids", "padding_side", "truncation_side",
    "model_max_length", "chat_template", "use_default_system_prompt", "add_bos_token", "add_eos_token",
    "clean_up_tokenization_spaces", "model_input_names", "vocab_size",
)  # fmt: skip
TEXTS = ("The fox <x>ran<y> .", " a<pad> b", "<note> c<note>d", "</s>  e")
agree = partial(same_tokenizers, FACTS, TEXTS)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_they_save_is_read_here(kind: str, case: str, tmp_path: Path) -> None:
    theirs = both(kind, **CASES[case])[1]
    theirs.add_tokens([AddedToken("<note>", normalized=False)])
    theirs.save_pretrained(tmp_path)
    cls = LlamaTokenizerFast if kind == "fast" else LlamaTokenizer
    reread = type(theirs).from_pretrained(tmp_path)
    agree(cls.from_pretrained(tmp_path), reread)
    assert type(AutoTokenizer.from_pretrained(tmp_path, use_fast=kind == "fast")) is cls


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_here_they_read(kind: str, case: str, tmp_path: Path) -> None:
    ours, theirs = both(kind, **CASES[case])
    ours.add_tokens([AddedToken("<note>", normalized=False)])
    files = ours.save_pretrained(tmp_path)
    assert all(Path(file).exists() for file in files)
    agree(ours, type(theirs).from_pretrained(tmp_path))
    auto = transformers.AutoTokenizer.from_pretrained(tmp_path, use_fast=kind == "fast")
    assert type(auto) is type(theirs)
    agree(ours, auto)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_given_when_reading(kind: str, tmp_path: Path) -> None:
    ours, theirs = both(kind)
    theirs.save_pretrained(tmp_path)
    how = {"pad_token": "</s>", "padding_side": "left", "add_eos_token": True, "model_max_length": 9}
    agree(type(ours).from_pretrained(tmp_path, **how), type(theirs).from_pretrained(tmp_path, **how))


@pytest.mark.parametrize("kind", KINDS)
def test_save_vocabulary(kind: str, tmp_path: Path) -> None:
    ours, theirs = both(kind)
    for prefix in (None, "mine"):
        assert ours.save_vocabulary(str(tmp_path), prefix) == theirs.save_vocabulary(str(tmp_path), prefix)
    saved = ours.save_vocabulary(tmp_path)
    assert Path(saved[0]).read_bytes() == TALE.read_bytes()
    assert ours.save_vocabulary(tmp_path / "none") is theirs.save_vocabulary(str(tmp_path / "none")) is None


def test_a_fast_one_without_a_model_has_no_vocabulary_to_save(tmp_path: Path) -> None:
    made = both("fast")[1]
    made.save_pretrained(tmp_path)
    file = str(tmp_path / "tokenizer.json")
    pair = (LlamaTokenizerFast(tokenizer_file=file), transformers.LlamaTokenizerFast(tokenizer_file=file))
    assert same(pair, lambda t: t.save_vocabulary(str(tmp_path))) is None
    same(pair, lambda t: t.encode("The fox"))


def test_older_files_beside_a_vocabulary(tmp_path: Path) -> None:
    """added_tokens.json and special_tokens_map.json, before added_tokens_decoder was."""
    (tmp_path / "tokenizer.model").write_bytes(TALE.read_bytes())
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 4096, "<note>": 4097}')
    (tmp_path / "special_tokens_map.json").write_text(
        '{"pad_token": "<pad>", "eos_token": {"content": "</s>", "lstrip": false, "normalized": true, "rstrip": false, '
        '"single_word": false}}'
    )
    (tmp_path / "tokenizer_config.json").write_text(
        '{"bos_token": "<s>", "legacy": false, "model_max_length": 100, "padding_side": "left"}'
    )
    agree(LlamaTokenizer.from_pretrained(tmp_path), transformers.LlamaTokenizer.from_pretrained(tmp_path))
