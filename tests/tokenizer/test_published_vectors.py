"""Ids that other projects publish for the Llama 2 vocabulary: published_vectors.json, which names its sources.

llama.cpp's lists and transformers' agree wherever they overlap, but for text after a special token: the legacy way puts
a space before it and the other does not, so each list says which tokenizers it belongs to.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast
from minillama.tokenizer.base import Tokenizer
from tests.tiny import LLAMA2_TOKENIZER, needs_llama2_tokenizer

pytestmark = needs_llama2_tokenizer

GROUPS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("published_vectors.json").read_text(encoding="utf-8")
)
CLASSES: dict[str, Callable[[], Tokenizer]] = {
    "slow, legacy": lambda: LlamaTokenizer(LLAMA2_TOKENIZER, legacy=True),
    "slow": lambda: LlamaTokenizer(LLAMA2_TOKENIZER, legacy=False),
    "fast": lambda: LlamaTokenizerFast(LLAMA2_TOKENIZER),
}
PLAIN, SPECIAL, HF, HF_NOT_LEGACY = range(4)
RUNS = [(group, kind) for group in range(4) for kind in GROUPS[group]["classes"] if kind in CLASSES]


def test_no_list_has_gone_missing() -> None:
    assert [len(group["vectors"]) for group in GROUPS] == [47, 11, 17, 6]


@pytest.mark.parametrize(("group", "kind"), RUNS)
def test_every_id_is_as_published(group: int, kind: str) -> None:
    tokenizer, bos = CLASSES[kind](), GROUPS[group]["bos"]
    published = dict(GROUPS[group]["vectors"])
    assert {text: list(tokenizer.encode(text, add_special_tokens=bos)) for text in published} == published


@pytest.mark.parametrize("kind", CLASSES)
def test_published_ids_decode_to_their_text(kind: str) -> None:
    tokenizer = CLASSES[kind]()
    for group in (PLAIN, HF):
        # The legacy model takes the first space for its own when it decodes, as in transformers 4.34
        lost = ("<s>", " ") if kind == "slow, legacy" else ("<s>",)
        published = {text: ids for text, ids in GROUPS[group]["vectors"] if "<s>" not in text and text[:1] not in lost}
        assert {text: tokenizer.decode(ids, skip_special_tokens=True) for text, ids in published.items()} == {
            text: text for text in published
        }


def test_special_tokens_decode_to_themselves() -> None:
    tokenizer = CLASSES["slow"]()
    for text, ids in GROUPS[HF_NOT_LEGACY]["vectors"][:2]:
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("kind", CLASSES)
def test_published_texts_of_ids(kind: str) -> None:
    """From the same file of transformers: the first marker is dropped, and others are not."""
    tokenizer = CLASSES[kind]()
    assert tokenizer.decode([869]) == "."
    assert tokenizer.decode([30112, 869]) == "ا ."


def test_eos_where_it_is_asked_for() -> None:
    """From the same file of transformers, which sets the flags on the tokenizer it has."""
    tokenizer = CLASSES["slow, legacy"]()
    tokenizer.add_eos_token = True
    assert tokenizer.encode("A sample test") == [1, 319, 4559, 1243, 2]
    tokenizer.add_bos_token = False
    assert tokenizer.encode("A sample test") == [319, 4559, 1243, 2]
