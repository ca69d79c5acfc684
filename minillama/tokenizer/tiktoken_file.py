"""Llama 3's own `tokenizer.model`: a vocabulary of tiktoken, a line of text for each token.

A line is the token's bytes in base64, a space and its rank, which is its id and says how early it was made: byte pairs
are joined in the order of the ranks of what they make. The 256 special tokens behind the last rank are not in the file:
they are in Meta's code. Source: github.com/meta-llama/llama-models, models/llama3/tokenizer.py, and load_tiktoken_bpe
of github.com/openai/tiktoken.
"""

from __future__ import annotations

import base64
import os
import re
from typing import Any

from minillama.files import read_bytes
from minillama.tokenizer.base import Tokenizer
from minillama.tokenizer.from_pieces import from_pieces
from minillama.tokenizer.from_sentencepiece import joins
from minillama.vocabulary import CONTROL, NORMAL, TIKTOKEN, Vocabulary

MAX_SIZE = 1 << 24  # bytes; Llama 3's has 2.2 million
MAX_TOKEN = 256  # bytes; Llama 3's longest are 128 spaces
# From Llama 3.1 on; Llama 3 had reserved tokens in the places of those that are new
_NAMED = (
    "begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1", "finetune_right_pad_id",
    "reserved_special_token_2", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag",
)  # fmt: skip
SPECIAL = [f"<|{name}|>" for name in (*_NAMED, *(f"reserved_special_token_{n}" for n in range(3, 248)))]


def is_tiktoken(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as such a vocabulary does, which no sentencepiece model can."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return TIKTOKEN.match(file.read(512)) is not None
    except OSError:  # opening it says why
        return False


def open_tiktoken(path: str | os.PathLike[str], **overrides: Any) -> Tokenizer:
    """The tokenizer of Llama 3 with this vocabulary.

    overrides: arguments of LlamaTokenizerFast. ValueError or OSError that names the file if it is not a sound one.
    """
    try:
        if (size := os.path.getsize(path)) > MAX_SIZE:
            raise ValueError(f"it has {size} bytes, more than the {MAX_SIZE} allowed")
        pieces = [as_text(token) for token in _tokens(read_bytes(path))]
        ids = {piece: index for index, piece in enumerate(pieces)}
        merges = [f"{left} {right}" for left, right in joins(ids, ids.__getitem__)]
        types = [NORMAL] * len(pieces) + [CONTROL] * len(SPECIAL)
        bos, eos = len(pieces) + SPECIAL.index("<|begin_of_text|>"), len(pieces) + SPECIAL.index("<|end_of_text|>")
        vocabulary = Vocabulary(
            "gpt2", pieces + SPECIAL, types=types, merges=merges, pre="llama-bpe", bos=bos, eos=eos, add_bos=True
        )
        return from_pieces(vocabulary, **overrides)
    except ValueError as error:
        raise ValueError(f"{path} is not a sound vocabulary of tiktoken: {error}; get it again") from None
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from None


def _tokens(contents: bytes) -> list[bytes]:
    """The tokens' bytes, in the order of their ranks."""
    ranks: dict[int, bytes] = {}
    for number, line in enumerate(contents.split(b"\n"), 1):
        if not line.strip():
            continue
        match = re.fullmatch(rb"(\S+) +(\d{1,9})\s*", line)
        if match is None:
            raise ValueError(f"line {number} is not a token and its rank")
        try:
            token = base64.b64decode(match[1], validate=True)
        except ValueError:
            raise ValueError(f"the token in line {number} is not base64") from None
        if not 0 < len(token) <= MAX_TOKEN:
            raise ValueError(f"the token in line {number} has {len(token)} bytes, not 1 to {MAX_TOKEN}")
        if (rank := int(match[2])) in ranks:
            raise ValueError(f"line {number} has the rank {rank} again")
        ranks[rank] = token
    tokens = [ranks[rank] for rank in range(len(ranks)) if rank in ranks]
    if len(tokens) < len(ranks):
        missing = next(rank for rank in range(len(ranks)) if rank not in ranks)
        raise ValueError(f"no token has the rank {missing}")
    if len(set(tokens)) < len(tokens):
        raise ValueError("it has a token twice")
    if lacking := sorted({bytes([byte]) for byte in range(256)} - set(tokens)):
        raise ValueError(f"it has no token for the byte {lacking[0][0]}")
    return tokens


def as_text(token: bytes) -> str:
    """Bytes as the characters that stand for them in a byte-level vocabulary, those that GPT-2 chose: a printable one
    of Latin-1 is itself, and the others are the characters from 256 on, in their order."""
    return token.decode("latin-1").translate(_STAND_INS)


_UNPRINTABLE = [*range(33), *range(127, 161), 173]
_STAND_INS = {byte: 256 + number for number, byte in enumerate(_UNPRINTABLE)}
