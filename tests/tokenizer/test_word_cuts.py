"""The ways to cut words, and what llama.cpp's names of them imply."""

from __future__ import annotations

import pytest
from tokenizers import decoders

from minillama.tokenizer.from_pieces import from_pieces
from minillama.tokenizer.word_cuts import CUTS, PATTERNS, word_cutter
from tests.tokenizer.test_from_pieces import byte_level

TEXT = "I'LL sell né 12345 XmlÉa: $5.00=x?\n\n  end"
# By llama.cpp's patterns, a | between two words
WORDS = {
    "llama3": "I|'LL| sell| né| |123|45| XmlÉa|:| $|5|.|00|=x|?\n\n| | end",
    "gpt2": "I|'|LL| sell| né| 12345| XmlÉa|:| $|5|.|00|=|x|?|\n\n | end",
    "digits": "I|'|LL| sell| né| |1|2|3|4|5| XmlÉa|:| $|5|.|0|0|=|x|?|\n\n | end",
    "qwen2": "I|'LL| sell| né| |1|2|3|4|5| XmlÉa|:| $|5|.|0|0|=x|?\n\n| | end",
    "tekken": "I|'LL| sell| né| |1|2|3|4|5| XmlÉa|:| $|5|.|0|0|=x|?\n\n| | end",
    "gpt-4o": "I'LL| sell| né| |123|45| XmlÉa|:| $|5|.|00|=x|?\n\n| | end",
    "deepseek-llm": "I|'|LL| sell| n|é| |12345| Xml|É|a|:| $|5|.|00|=|x|?|\n|\n| | end",
    "deepseek-coder": "I|'|LL| sell| né| |1|2|3|4|5| XmlÉa|:| $|5|.|0|0|=|x|?|\n|\n| | end",
    "deepseek-v3": "I|'LL| sell| né| |123|45| XmlÉa|:| $|5|.|00|=x|?\n\n| | end",
    "falcon": "I|'|LL| sell| né| |123|45| XmlÉa|:| |$|5|.|00|=|x|?|\n\n | end",
    "bloom": "I'LL| sell| né| 12345| XmlÉa:| $5|.|00=x|?\n\n | end",
    "viking": "I'LL| sell| né| |1|2|3|4|5| XmlÉa:| $|5|.|0|0|=x|?\n\n | end",
    "seed-coder": "I|'LL| sell| né| |1|2|3|4|5| XmlÉa|:| $|5|.|0|0|=x|?|\n\n| | end",
    "default": "I|'|LL| sell| né| |123|45| XmlÉa|:| |$|5|.|00|=|x|?|\n\n | end",
}


@pytest.mark.parametrize("how", PATTERNS)
def test_words(how: str) -> None:
    decoder = decoders.ByteLevel()
    assert [decoder.decode([word]) for word, _ in word_cutter(how).pre_tokenize_str(TEXT)] == WORDS[how].split("|")


def test_camels() -> None:
    """Tekken and GPT-4o cut before a capital, and a contraction goes with the word it belongs to or not."""
    words = {how: [word for word, _ in word_cutter(how).pre_tokenize_str("aXml's")] for how in ("tekken", "gpt-4o")}
    assert words == {"tekken": ["a", "Xml", "'s"], "gpt-4o": ["a", "Xml's"]}


@pytest.mark.parametrize(
    ("names", "begins", "whole"),
    [
        (("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "tekken", "lfm2"), True, True),
        (("smaug-bpe", "deepseek-llm", "deepseek-coder", "default", "", "gpt-2", "smollm", "qwen2"), False, False),
    ],
)
def test_what_a_name_implies(names: tuple[str, ...], begins: bool, whole: bool) -> None:
    """A beginning where add_bos_token is not said; and hello, which no merges make, whole."""
    given = byte_level()
    for name in names:
        assert (CUTS[name].begins, CUTS[name].ignore_merges) == (begins, whole)
        expected = ["hello"] if whole else ["hell", "o"]
        ids = [given.pieces.index(piece) for piece in [*["<|begin_of_text|>"] * begins, *expected]]
        assert from_pieces(byte_level(pre=name)).encode("hello") == ids
        assert from_pieces(byte_level(pre=name, add_bos=not begins)).encode("hello") == (
            ids[1:] if begins else [given.bos, *ids]
        )
