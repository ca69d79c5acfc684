"""How byte-level vocabularies cut a text into words, by the names that GGUF files have for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import tokenizers
from tokenizers import pre_tokenizers

# How Llama 3 cuts a text into words (the pattern in its tokenizer.json)
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
# A letter that is not a small (or a capital) one of ASCII: llama.cpp has these for the classes \p{Lu} and \p{Ll}
_CAPITAL, _SMALL = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_CAMEL = tuple(rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITAL}{a}{_SMALL}{b}" for a, b in (("*", "+"), ("+", "*")))
_SHORT = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
_CAMEL_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# DeepSeek lists the letters with a case, without Armenia's and Georgia's small ones and those of Unicode since 2014
_CASED = r"[\p{Lu}\p{Ll}\p{Lt}&&[^\u0560-\u0588\u10c6-\u10ff\u1c80-\u1c8f\u2d00-\u2d2d\ua790-\ua7fa\uab30-\uab68"
_CASED += "\U00010570-\U000105bc\U00010d50-\U00010d85\U00016e40-\U0001df2a]]"
_PHRASE = " ?[^(\\s|.,!?…。，、।۔،)]+"
# The ways -> patterns, each of which cuts what those before it have left whole. From llama.cpp's src/llama-vocab.cpp;
# "gpt2" and "digits" are parts of the tokenizers library
PATTERNS: dict[str, tuple[str, ...]] = {
    "llama3": (LLAMA3_WORDS,),
    "gpt2": (),
    "digits": (),
    "qwen2": (LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}"),),
    "tekken": ("|".join((*_CAMEL, r"\p{N}", _CAMEL_REST)),),
    "gpt-4o": ("|".join((*(camel + _SHORT for camel in _CAMEL), r"\p{N}{1,3}", _CAMEL_REST)),),
    "deepseek-llm": (
        r"[\r\n]", rf"\s?{_CASED}+", r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+", r"\s+\z", "[一-龥ࠀ-一가-퟿]+", r"\p{N}+",
    ),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"),
    "deepseek-v3": (
        r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
        r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|"
        r"\s+",
    ),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2_WORDS, "[0-9][0-9][0-9]"),
    "bloom": (_PHRASE,),
    "viking": (_PHRASE, r"\p{N}"),
    "seed-coder": (LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}").replace(r"\p{N}]+[\r\n]*", r"\p{N}\r\n]+"),),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"),
}  # fmt: skip


class WordCut(NamedTuple):
    """What one of llama.cpp's names implies.

    how: the key of PATTERNS. begins: whether bos_token is put before a text if the file does not say. ignore_merges: a
    word that is a piece is that piece, even if no merges make it.
    """

    how: str
    begins: bool = False
    ignore_merges: bool = False


# By `tokenizer.ggml.pre`, as llama.cpp has it. Where several are the same, the first one is written
CUTS: dict[str, WordCut] = {
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        WordCut("llama3", begins=True, ignore_merges=True),
    ),
    **dict.fromkeys(("smaug-bpe", "dbrx", "glm4", "chatglm-bpe"), WordCut("llama3")),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "a.x-4.0", "mellum", "exaone4", "trillion",
                     "granite-docling"), WordCut("gpt2")),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
                    WordCut("digits")),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan", "kormo", "solar-open", "grok-2"),
                    WordCut("qwen2")),
    "tekken": WordCut("tekken", begins=True, ignore_merges=True),
    **{how: WordCut(how) for how in ("deepseek-llm", "deepseek-coder", "falcon", "viking", "seed-coder")},
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), WordCut("gpt-4o")),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), WordCut("bloom")),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm"), WordCut("deepseek-v3")),
    **dict.fromkeys(("default", ""), WordCut("default")),
}  # fmt: skip


def word_cutter(how: str) -> Any:
    """The library's pre-tokenizer for one of the keys of PATTERNS."""
    if how in ("gpt2", "digits"):
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        digits = pre_tokenizers.Digits(individual_digits=True)
        return words if how == "gpt2" else pre_tokenizers.Sequence([digits, words])
    cuts = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in PATTERNS[how]]
    return pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
