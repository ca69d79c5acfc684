"""Every part that a tokenizer.json can have: written to a vocabulary with the same ids, or refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast
from minillama.tokenizer.from_pieces import from_pieces
from minillama.tokenizer.to_pieces import to_pieces
from minillama.vocabulary import NORMAL, UNKNOWN, Vocabulary
from tests.tokenizer.test_from_pieces import byte_level
from tests.tokenizer.texts import SPIKY

Parts = dict[str, Any]
PREPEND: Parts = {"type": "Prepend", "prepend": "▁"}
MARK: Parts = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
UNMARK: Parts = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
STRIP: Parts = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
BYTES, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
LEVEL: Parts = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def metaspace(scheme: str, split: bool = False) -> Parts:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


def sequence(key: str, *parts: Parts) -> Parts:
    return {"type": "Sequence", key: list(parts)}


def template(*tokens: str) -> Parts:
    pieces = [{"Sequence": {"id": "A", "type_id": 0}} if t == "A" else {"SpecialToken": {"id": t, "type_id": 0}}
              for t in tokens]  # fmt: skip
    special = {t: {"id": t, "ids": [n], "tokens": [t]} for n, t in enumerate(("<unk>", "<s>", "</s>")) if t in tokens}
    pair = [*pieces, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": pieces, "pair": pair, "special_tokens": special}


def changed(folder: Path, given: LlamaTokenizerFast | None = None, **changes: Any) -> LlamaTokenizerFast:
    """The tales' tokenizer.json by itself, or that of another tokenizer, with other parts; model=... within these."""
    tales = (tale_model() / "tokenizer.json").read_text(encoding="utf-8")
    contents = json.loads(tales if given is None else given.backend.to_str())
    contents["model"] |= changes.pop("model", {})
    (folder / "tokenizer.json").write_text(json.dumps(contents | changes), encoding="utf-8")
    return LlamaTokenizerFast.from_pretrained(folder)


# -- with byte fallback -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalizer": sequence("normalizers", sequence("normalizers", PREPEND), MARK)},
        {"normalizer": sequence("normalizers", MARK, PREPEND)},
        {"normalizer": MARK, "decoder": sequence("decoders", UNMARK, BYTES, FUSE)},
        {"post_processor": template("<s>", "A", "</s>")},
        {"post_processor": sequence("processors", template("<s>", "A"))},
        {"post_processor": LEVEL},
        {"model": {"unk_token": None}},
        {"decoder": sequence("decoders", metaspace("always"), BYTES, FUSE)},
        {"pre_tokenizer": metaspace("never", split=True)},  # no piece goes over the end of a word
    ],
)
def test_what_is_written_gives_the_same_ids(changes: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = changed(tmp_path, **changes)
    again = from_pieces(to_pieces(tokenizer))
    for text in (*SPIKY, "The Fox"):
        assert again.encode(text) == tokenizer.encode(text), text
    assert again.decode(again.encode("The Fox"), skip_special_tokens=True) == "The Fox"
    assert not caplog.text


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_another_way_with_spaces_is_told(scheme: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Metaspace puts no marker before a text that begins with a space, and llama.cpp does."""
    tokenizer = changed(tmp_path, normalizer=None, pre_tokenizer=metaspace(scheme))
    again = from_pieces(to_pieces(tokenizer))
    for text in SPIKY:
        if text[:1] not in (" ", "▁"):
            assert again.encode(text) == tokenizer.encode(text), text
    assert "makes other tokens of a text that begins with a space" in caplog.text


def test_text_behind_special_tokens_is_told(caplog: pytest.LogCaptureFixture) -> None:
    to_pieces(LlamaTokenizer.from_pretrained(tale_model(), legacy=False))
    assert "makes other tokens of text behind <s>: ['▁a', '<s>', '▁b'] instead of ['▁a', '<s>', 'b']" in caplog.text


NORMALIZERS: list[Parts] = [
    {"type": "Lowercase"}, {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Nmt"},
    {"type": "StripAccents"}, {"type": "ByteLevel"}, {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
     "lowercase": True},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}, {"type": "Prepend", "prepend": "x"},
    {"type": "Replace", "pattern": {"Regex": "  +"}, "content": "▁"},
]  # fmt: skip
PRE_TOKENIZERS: list[Parts] = [
    LEVEL, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
    {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Isolated"},
    {"type": "UnicodeScripts"}, {"type": "CharDelimiterSplit", "delimiter": "-"},
    {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False},
]  # fmt: skip
DECODERS: list[Parts] = [
    {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "BPEDecoder", "suffix": "</w>"}, LEVEL,
    {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
    {"type": "Strip", "content": " ", "start": 0, "stop": 1}, metaspace("always"),
]  # fmt: skip


@pytest.mark.parametrize("part", NORMALIZERS, ids=lambda part: part["type"])
def test_normalizers_that_are_refused(part: Parts, tmp_path: Path) -> None:
    """Also where a sentencepiece model is beside the file."""
    tokenizer = changed(tmp_path, normalizer=sequence("normalizers", part, PREPEND, MARK))
    with pytest.raises(ValueError, match=f"the tokenizer's normalizer {part['type']}.* has no place in a vocabulary"):
        to_pieces(tokenizer)
    tokenizer.vocab_file = tale_model() / "tokenizer.model"
    with pytest.raises(ValueError, match=f"the tokenizer's normalizer {part['type']}.* has no place in a vocabulary"):
        to_pieces(tokenizer)


@pytest.mark.parametrize("part", PRE_TOKENIZERS, ids=lambda part: part["type"])
def test_pre_tokenizers_that_are_refused(part: Parts, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"the tokenizer's pre_tokenizer {part['type']}.* has no place in a voc"):
        to_pieces(changed(tmp_path, pre_tokenizer=sequence("pretokenizers", part)))


@pytest.mark.parametrize("part", DECODERS, ids=lambda part: part["type"])
def test_decoders_that_are_refused(part: Parts, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"the tokenizer's decoder {part['type']}.* has no place in a vocabulary"):
        to_pieces(changed(tmp_path, decoder=sequence("decoders", UNMARK, BYTES, FUSE, part, STRIP)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalizer": None}, "normalizer none that writes a space as ▁"),
        ({"decoder": None}, "decoder none with ByteFallback"),
        ({"decoder": sequence("decoders", UNMARK, FUSE, STRIP)}, "decoder none with ByteFallback"),
        ({"decoder": sequence("decoders", BYTES, FUSE, STRIP)}, "decoder none with Replace of ▁"),
        ({"decoder": sequence("decoders", UNMARK, BYTES, FUSE)}, "decoder none with Strip"),
        ({"normalizer": MARK}, "decoder Strip"),
        ({"post_processor": template("<s>", "<unk>", "A")}, "post_processor puts <s> <unk> around a text"),
        ({"post_processor": template("<s>", "A", "</s>", "<unk>")}, "post_processor puts <s> </s> <unk> around"),
        ({"model": {"ignore_merges": True}}, 'model ignore_merges {"value": true}'),
        ({"model": {"dropout": 0.5}}, 'model dropout {"value": 0.5}'),
        ({"model": {"merges": []}}, "merges do not join .* and llama.cpp would"),
    ],
)
def test_what_else_is_refused(changes: Parts, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        to_pieces(changed(tmp_path, **changes))


@pytest.mark.parametrize("how", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_that_take_more_than_themselves(how: str, tmp_path: Path) -> None:
    contents = json.loads((tale_model() / "tokenizer.json").read_text(encoding="utf-8"))
    token = contents["added_tokens"][0] | {"id": 4096, "content": "<note>", how: True}
    with pytest.raises(ValueError, match=f'added token <note> {{"{how}": true}}'):
        to_pieces(changed(tmp_path, added_tokens=[*contents["added_tokens"], token]))


def test_words_apart_where_pieces_go_over_them(tmp_path: Path) -> None:
    contents = json.loads((tale_model() / "tokenizer.json").read_text(encoding="utf-8"))
    model = {"vocab": contents["model"]["vocab"] | {"▁▁": 4096}, "merges": [["▁", "▁"], *contents["model"]["merges"]]}
    tokenizer = changed(tmp_path, model=model, pre_tokenizer=metaspace("never", split=True))
    with pytest.raises(ValueError, match=r"pre_tokenizer Metaspace .*\"split\": true"):
        to_pieces(tokenizer)


def test_no_pieces_for_bytes() -> None:
    pieces = ["<unk>", "<s>", "</s>", "▁", "a"]
    tokenizer = from_pieces(Vocabulary("llama", pieces, [0.0] * 5, [UNKNOWN, 3, 3, NORMAL, NORMAL], bos=1, eos=2))
    with pytest.raises(ValueError, match=r"no pieces for 256 of the 256 bytes \(as <0x00>\)"):
        to_pieces(tokenizer)


# -- byte-level ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *(({"normalizer": part}, f"normalizer {part['type']}") for part in NORMALIZERS),
        *(({"pre_tokenizer": part}, f"pre_tokenizer {part['type']}") for part in PRE_TOKENIZERS if part != LEVEL),
        *(({"decoder": sequence("decoders", LEVEL, part)}, f"decoder {part['type']}") for part in DECODERS
          if part != LEVEL),
        ({"pre_tokenizer": LEVEL | {"add_prefix_space": True}}, 'pre_tokenizer ByteLevel {"add_prefix_space": true'),
        ({"pre_tokenizer": None}, "pre_tokenizer none"),
        ({"decoder": None}, "decoder none with ByteLevel"),
        ({"decoder": FUSE}, "decoder none with ByteLevel"),
        ({"model": {"dropout": 0.1}}, "model dropout"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "model end_of_word_suffix"),
    ],
)  # fmt: skip
def test_parts_of_byte_level_tokenizers_that_are_refused(changes: Parts, words: str, tmp_path: Path) -> None:
    given = from_pieces(byte_level(pre="gpt-2"))
    assert isinstance(given, LlamaTokenizerFast)
    tokenizer = changed(tmp_path, given, **changes)
    with pytest.raises(ValueError, match=f"the tokenizer's {words}.* has no place in a vocabulary"):
        to_pieces(tokenizer)


def test_parts_that_change_nothing(tmp_path: Path) -> None:
    """An empty normalizer, as DeepSeek Coder has, and one digit by itself in another spelling."""
    given = from_pieces(byte_level(pre="deepseek-coder"))
    assert isinstance(given, LlamaTokenizerFast)
    cut = json.loads(given.backend.to_str())["pre_tokenizer"]
    cut["pretokenizers"][4] = {"type": "Digits", "individual_digits": True}
    tokenizer = changed(tmp_path, given, normalizer=sequence("normalizers"), pre_tokenizer=cut)
    assert to_pieces(tokenizer).pre == "deepseek-coder"


def test_no_beginning_that_is_not_there(tmp_path: Path) -> None:
    """Else llama.cpp would put a token of its own choice before a text."""
    tokenizer = from_pieces(byte_level(bos=None))
    assert tokenizer.add_bos_token
    assert to_pieces(tokenizer).add_bos is False
