"""Whether a tokenizer made of a vocabulary by itself gives the ids of the one that the vocabulary was taken from."""

from __future__ import annotations

import logging

from minillama.messages import shown
from minillama.tokenizer.base import Tokenizer

log = logging.getLogger("minillama")
# Texts on which two tokenizers that differ show it; none begins with a space
PROBES = (
    "The king had 3 sons, and 12345 horses.", "don't DON'T I'M we'll", "\n\n x", "a\tb\r\n  c   d",
    "naïve Ångström e\u0301 ﬁ ™ ２", "生活の タワー 한국어", "العربية हिन्दी", "🦙👍🏽 \U0010ffff",
    "f(x): return {'a': [1, 2.5e-3]}",
    "camelCase SNAKE_case x86", "a▁b <0x41>",
)  # fmt: skip


def check_same_ids(tokenizer: Tokenizer, again: Tokenizer) -> None:
    """ValueError if a vocabulary makes other ids of a text, or another text of them; a warning if only beside a space
    or a special token."""
    for probe in PROBES:
        if (ids := tokenizer.encode(probe)) != (others := again.encode(probe)):
            first = next(n for n in range(len(ids) + 1) if ids[: n + 1] != others[: n + 1])
            raise ValueError(
                f"a vocabulary for llama.cpp would make {others[first:][:4]} of {shown(probe)} where the "
                f"tokenizer makes {ids[first:][:4]}: convert to a folder instead"
            )
        plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        if (text := tokenizer.decode(ids, **plain)) != (other := again.decode(ids, **plain)):
            raise ValueError(
                f"llama.cpp would decode {ids[:12]} as {shown(other[:60])}, and the tokenizer as "
                f"{shown(text[:60])}: convert to a folder instead"
            )
    special = next(iter(tokenizer.all_special_tokens), "")
    for text, where in ((" a", "a text that begins with a space"), (f"a{special}b", f"text behind {special}")):
        if tokenizer.encode(text) != again.encode(text):
            log.warning(
                "llama.cpp has one way with spaces, and makes other tokens of %s: %s instead of %s",
                where, again.tokenize(text), tokenizer.tokenize(text),
            )  # fmt: skip
