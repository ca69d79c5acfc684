import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders
from tokenizers.models import Unigram, WordLevel
from tokenizers.pre_tokenizers import Metaspace, WhitespaceSplit

from minillama.loading import load_tokenizer
from minillama.shipped import sample_text, tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast
from minillama.tokenizer.to_pieces import to_pieces
from tests.tokenizer.test_sentencepiece_model import TEXTS

FILE = tale_model() / "tokenizer.json"
FAST = LlamaTokenizerFast.from_pretrained(tale_model())
SLOW = LlamaTokenizer.from_pretrained(tale_model())


@given(st.lists(TEXTS | st.sampled_from(["<s>", "</s>", "<unk>", "▁"])).map("".join))
def test_both_shipped_tokenizers_agree(text: str) -> None:
    ids = FAST.encode(text)
    assert ids == SLOW.encode(text)
    ours, others = (tokenizer.decode(ids, skip_special_tokens=True) for tokenizer in (FAST, SLOW))
    assert ours.lstrip(" ") == others.lstrip(" ")  # of spaces at the beginning a legacy model loses one


@given(TEXTS)
def test_text_comes_back_as_it_was(text: str) -> None:
    assert FAST.decode(FAST.encode(text), skip_special_tokens=True) == text


def test_both_shipped_tokenizers_agree_on_tales() -> None:
    text = sample_text().read_text(encoding="utf-8")
    assert FAST.encode(text) == SLOW.encode(text)
    assert FAST.vocab == SLOW.vocab


def test_ids_of_pieces() -> None:
    assert (FAST.unk_token_id, FAST.bos_token_id, FAST.eos_token_id, FAST.pad_token_id) == (0, 1, 2, None)
    assert FAST.all_special_ids == [1, 2, 0]  # beginning, end, unknown
    assert len(FAST) == 4096


def byte_level(tmp_path: Path, template: list[Any], merges: Sequence[str] = ()) -> Path:
    """A tokenizer.json in the manner of Llama 3: byte-level pieces, special tokens by names of its own."""
    symbols = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    vocab = {symbol: i for i, symbol in enumerate(symbols)}
    vocab |= {merge.replace(" ", ""): 256 + i for i, merge in enumerate(merges)}
    first = len(vocab)
    contents = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": first + i, "content": content, "special": True,
                "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            }
            for i, content in enumerate(("<|begin|>", "<|end|>"))
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing", "single": template, "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {
                token: {"id": token, "ids": [first + i], "tokens": [token]}
                for i, token in enumerate(("<|begin|>", "<|end|>"))
            },
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": list(merges)},
    }  # fmt: skip
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(contents), encoding="utf-8")
    return file


TEXT, BEGIN = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}


def test_what_the_file_puts_around_a_text_is_put_around_it(tmp_path: Path) -> None:
    tokenizer = LlamaTokenizerFast.from_pretrained(byte_level(tmp_path, [BEGIN, TEXT]))
    assert (tokenizer.bos_token_id, tokenizer.add_bos_token, tokenizer.add_eos_token) == (256, True, False)
    ids = tokenizer.encode("é <|end|>")
    assert (ids[0], ids[-1], len(ids)) == (256, 257, 5)
    assert tokenizer.decode(ids) == "<|begin|>é <|end|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "é "


def test_flags_beside_the_file_come_first(tmp_path: Path) -> None:
    file = byte_level(tmp_path, [BEGIN, TEXT])
    settings = {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"}, "add_bos_token": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"add_eos_token": True}))
    ids = LlamaTokenizerFast.from_pretrained(file).encode("x")
    assert (len(ids), ids[-1]) == (2, 257)


def test_nothing_around_a_text_that_the_file_leaves_bare(tmp_path: Path) -> None:
    file = byte_level(tmp_path, [TEXT])
    tokenizer = LlamaTokenizerFast(tokenizer_file=file, bos_token="<|begin|>", eos_token="<|end|>")
    assert not tokenizer.add_bos_token
    assert len(tokenizer.encode("ab")) == 2


def test_named_tokens_come_before_those_of_the_file(tmp_path: Path) -> None:
    file = byte_level(tmp_path, [BEGIN, TEXT])
    assert LlamaTokenizerFast.from_pretrained(file, bos_token=None).encode("a") == LlamaTokenizerFast.from_pretrained(
        file, add_bos_token=False
    ).encode("a")
    other = LlamaTokenizerFast(tokenizer_file=file, bos_token="<BOS>")
    assert other.encode("a")[0] == other.bos_token_id == other.convert_tokens_to_ids("<BOS>") == 258


def pruned(tmp_path: Path, keep: Callable[[str], bool], **model: Any) -> Path:
    """The shipped tokenizer.json with only some of its pieces, ids without holes, and without the merges of others."""
    contents = json.loads(FILE.read_text(encoding="utf-8"))
    kept = [piece for piece in contents["model"]["vocab"] if keep(piece)]
    contents["model"] |= {"vocab": {piece: i for i, piece in enumerate(kept)}, **model}
    contents["model"]["merges"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(contents), encoding="utf-8")
    return tmp_path / "tokenizer.json"


def test_what_is_to_be_spelled_in_bytes_is_unknown_where_the_vocabulary_has_no_bytes(tmp_path: Path) -> None:
    """As in the tokenizers library: a pruned vocabulary, as published folders have it."""
    tokenizer = LlamaTokenizerFast.from_pretrained(pruned(tmp_path, lambda piece: not piece.startswith("<0x")))
    marker, x = tokenizer.convert_tokens_to_ids(["▁", "x"])
    assert tokenizer.encode("x狐狸x") == [1, marker, x, 0, x]
    assert tokenizer.decode([1, marker, x, 0, x]) == "<s> x<unk>x"


def test_a_character_is_unknown_where_one_of_its_bytes_is_missing(tmp_path: Path) -> None:
    tokenizer = LlamaTokenizerFast.from_pretrained(pruned(tmp_path, lambda piece: piece != "<0xE7>"))
    marker, *bytes_of_e = tokenizer.convert_tokens_to_ids(["▁", "<0xC3>", "<0xA9>"])
    assert tokenizer.encode("é狐") == [1, marker, *bytes_of_e, 0]  # 狐 is E7 8B 90


def test_without_an_unknown_token_nothing_stands_for_such_a_character(tmp_path: Path) -> None:
    file = pruned(tmp_path, lambda piece: not piece.startswith("<0x"), unk_token=None)
    tokenizer = LlamaTokenizerFast.from_pretrained(file)
    assert tokenizer.encode("狐x") == [1, *tokenizer.convert_tokens_to_ids(["▁", "x"])]


def test_flags_may_be_zero_and_one(tmp_path: Path) -> None:
    file = byte_level(tmp_path, [BEGIN, TEXT])
    settings = {"add_bos_token": 0, "clean_up_tokenization_spaces": 1, "legacy": 0}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = LlamaTokenizerFast.from_pretrained(file)
    flags = (tokenizer.add_bos_token, tokenizer.clean_up_tokenization_spaces, tokenizer.legacy)
    assert [flag is True for flag in flags] == [False, True, False]


def unigram() -> tokenizers.Tokenizer:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁the", -2.0), ("▁f", -3.0), ("ox", -3.5), ("▁", -4.0)]
    pieces += [(letter, -5.0 - place) for place, letter in enumerate("thefox")]
    backend = tokenizers.Tokenizer(Unigram([*pieces, *((f"<0x{i:02X}>", -9.0) for i in range(256))], 0, True))
    backend.pre_tokenizer = Metaspace()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    return backend


def words() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "the": 3, "fox": 4}, "<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    return backend


@pytest.mark.parametrize("made", [unigram, words])
def test_models_of_other_kinds_than_bpe(made: Callable[[], tokenizers.Tokenizer], tmp_path: Path) -> None:
    """What the library opens is used; a GGUF file has no place for it."""
    backend = made()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    text = "the fox ü the"
    ids = backend.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text, add_special_tokens=False) == ids
    assert tokenizer.decode(ids) == backend.decode(ids, skip_special_tokens=False)
    tokenizer.save_pretrained(tmp_path / "kept")
    assert load_tokenizer(tmp_path / "kept").encode(text, add_special_tokens=False) == ids
    with pytest.raises(ValueError, match=r"the tokenizer's model (Unigram|WordLevel) has no place in a vocabulary for"):
        to_pieces(tokenizer)
