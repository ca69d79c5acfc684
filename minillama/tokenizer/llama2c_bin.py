"""llama2.c's `tokenizer.bin`: the pieces of a sentencepiece model and their scores, written to be printed.

An int32, the bytes of the longest piece; then for each id a float32 score, an int32 length and as many bytes of UTF-8.
The file has no names and no types, but the order of Llama's models: <unk>, <s>, </s>, the 256 bytes, the rest. Its
writer put spaces where pieces have markers and lines around <s> and </s>; early versions wrote the piece of byte b as
the character b. Source: tokenizer.py and run.c of https://github.com/karpathy/llama2.c.
"""

from __future__ import annotations

import math
import os
import struct
from typing import Any

from minillama.files import read_bytes
from minillama.tokenizer.from_pieces import sentencepiece_model
from minillama.tokenizer.sentencepiece_model import MARKER, LlamaTokenizer
from minillama.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN

FIRST_BYTE = 3  # the id of byte 0
NAMED = ("<unk>", "<s>", "</s>")


def open_tokenizer_bin(path: str | os.PathLike[str], **overrides: Any) -> LlamaTokenizer:
    """The tokenizer that the file was written from, so that a text has the ids that run.c gives it.

    overrides: arguments of LlamaTokenizer. ValueError or OSError that names the file if it is not a sound one.
    """
    try:
        contents = read_bytes(path)
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from None
    try:
        printed, scores = _read(contents)
        pieces = _pieces(printed)
        types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(pieces) - FIRST_BYTE - 256)]
        model = sentencepiece_model(pieces, scores, types)
        return LlamaTokenizer(model, **overrides)
    except ValueError as error:
        raise ValueError(f"{path} is not a sound tokenizer.bin of llama2.c: {error}; export it again") from None


def _read(contents: bytes) -> tuple[list[str], list[float]]:
    if len(contents) < 4:
        raise ValueError(f"it has {len(contents)} bytes, too few for a header")
    (longest,) = struct.unpack_from("<i", contents)
    printed: list[str] = []
    scores: list[float] = []
    position = 4
    while position < len(contents):
        if position + 8 > len(contents):
            raise ValueError(f"it is cut short in entry {len(printed)}")
        score, length = struct.unpack_from("<fi", contents, position)
        position += 8
        if not 0 < length <= longest:
            raise ValueError(f"entry {len(printed)} has {length} bytes, and the longest is said to have {longest}")
        if position + length > len(contents):
            raise ValueError(f"it is cut short in entry {len(printed)}")
        if not math.isfinite(score):
            raise ValueError(f"entry {len(printed)} has the score {score}")
        try:
            printed.append(contents[position : position + length].decode("utf-8"))
        except UnicodeDecodeError:
            raise ValueError(f"entry {len(printed)} is not UTF-8 text") from None
        scores.append(score)
        position += length
    return printed, scores


def _pieces(printed: list[str]) -> list[str]:
    """The pieces of the model from what was printed of them; ids 3 to 258 are bytes, whatever they look like."""
    named = tuple(piece.strip("\n") for piece in printed[:FIRST_BYTE])
    if named != NAMED:
        shown = ", ".join(repr(piece[:20]) for piece in named) or "nothing"
        raise ValueError(f"it begins with {shown} instead of {', '.join(NAMED)}")
    names_of_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    behind = FIRST_BYTE + 256
    if printed[FIRST_BYTE:behind] not in (names_of_bytes, [chr(byte) for byte in range(256)]):
        raise ValueError("its entries 3 to 258 are not the 256 bytes")
    pieces = [*NAMED, *names_of_bytes, *(piece.replace(" ", MARKER) for piece in printed[behind:])]
    if len(set(pieces)) < len(pieces):
        raise ValueError("it has a piece twice")
    return pieces
