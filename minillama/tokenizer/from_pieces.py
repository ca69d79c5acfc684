"""A tokenizer from a vocabulary that is not in files: pieces and scores, or pieces and merges."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders
from tokenizers.models import BPE

from minillama.messages import shown
from minillama.tokenizer.base import Tokenizer
from minillama.tokenizer.json_file import LlamaTokenizerFast
from minillama.tokenizer.library import quietly
from minillama.tokenizer.sentencepiece_model import LlamaTokenizer
from minillama.tokenizer.word_cuts import CUTS, WordCut, word_cutter
from minillama.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary

log = logging.getLogger("minillama")
BYTE_NAMES = [f"<0x{byte:02X}>" for byte in range(256)]
TYPES = (NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE)


@quietly
def from_pieces(vocabulary: Vocabulary, **overrides: Any) -> Tokenizer:
    """The tokenizer: LlamaTokenizer for the kind "llama", LlamaTokenizerFast for "gpt2".

    Pieces of the types CONTROL and USER_DEFINED are taken out of a text before anything else, as llama.cpp does;
    unused ones at the end, which fill up the rows of the weights, are left out. overrides: arguments of the class that
    come before what the vocabulary says. ValueError for what does not make one.
    """
    if vocabulary.kind not in ("llama", "gpt2"):
        raise ValueError(f"its vocabulary is of the kind {shown(vocabulary.kind)}, and LLaMA's are 'llama' and 'gpt2'")
    pieces, types = checked_pieces(vocabulary)
    named = {}
    for name, index in (("bos", vocabulary.bos), ("eos", vocabulary.eos), ("unk", vocabulary.unk),
                        ("pad", vocabulary.pad)):  # fmt: skip
        if index is not None and not 0 <= index < len(pieces):
            raise ValueError(f"its {name} token is {index}, and it has {len(pieces)} pieces")
        named[f"{name}_token"] = None if index is None else pieces[index]
    settings: dict[str, Any] = named | {
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "chat_template": vocabulary.chat_template,
    }
    added = {
        index: AddedToken(piece, normalized=False, special=types[index] == CONTROL)
        for index, piece in enumerate(pieces)
        if types[index] in (CONTROL, USER_DEFINED)
    }
    if vocabulary.kind == "llama":
        scores = vocabulary.scores or [0.0] * len(vocabulary.pieces)
        if len(scores) != len(vocabulary.pieces):
            raise ValueError(f"its vocabulary has {len(vocabulary.pieces)} pieces and {len(scores)} scores")
        model = sentencepiece_model(pieces, scores[: len(pieces)], with_one_unknown(pieces, types, vocabulary.unk))
        if not vocabulary.space_prefix:
            settings |= {"legacy": False, "add_prefix_space": False}
        return LlamaTokenizer(model, added_tokens_decoder=added, **settings | overrides)
    cut = named_cut(vocabulary.pre)
    if cut.how == "default" and "<|begin_of_text|>" in pieces:
        log.warning(
            "the vocabulary is Llama 3's and does not say how to cut words: llama.cpp's default is another way, so "
            "name its tokenizer.json with --tokenizer"
        )
    backend = byte_level_model(pieces, types, vocabulary.merges, cut)
    backend.add_tokens(list(added.values()))  # at once: each time, the library looks at all it has
    if vocabulary.add_bos is None:
        settings["add_bos_token"] = cut.begins
    return LlamaTokenizerFast(tokenizer_object=backend, **settings | overrides)


def checked_pieces(vocabulary: Vocabulary) -> tuple[list[str], list[int]]:
    """The pieces and the type of each. ValueError where they are not one vocabulary."""
    pieces, types = list(vocabulary.pieces), list(vocabulary.types) or _usual_types(vocabulary)
    if len(types) != len(pieces):
        raise ValueError(f"its vocabulary has {len(pieces)} pieces and {len(types)} types")
    if unknown := set(types) - set(TYPES):
        raise ValueError(f"its vocabulary has pieces of the unknown type {min(unknown)}")
    named = (vocabulary.bos, vocabulary.eos, vocabulary.unk, vocabulary.pad)
    while types and types[-1] == UNUSED and len(types) - 1 not in named:
        pieces.pop(), types.pop()
    if not pieces:
        raise ValueError("its vocabulary has no pieces")
    if len(set(pieces)) != len(pieces):
        counted: set[str] = set()
        twice = next(piece for piece in pieces if piece in counted or counted.add(piece))  # type: ignore[func-returns-value]
        raise ValueError(f"its vocabulary has the piece {shown(twice[:60])} twice")
    return pieces, types


def with_one_unknown(pieces: Sequence[str], types: Sequence[int], unk: int | None) -> list[int]:
    """The types with one UNKNOWN piece, as sentencepiece needs it; ValueError if none can be it.

    That is the one named `unk`, else one of this type, else 0 if it is called <unk> or is no text, else a control
    piece. Others of the type become CONTROL, which llama.cpp treats alike. Pieces by the names of all bytes are bytes,
    whatever their type.
    """
    known = [CONTROL if kind == UNKNOWN else kind for kind in types]
    if BYTE not in known:
        places = {piece: index for index, piece in enumerate(pieces)}
        if all(name in places for name in BYTE_NAMES):
            for name in BYTE_NAMES:
                known[places[name]] = BYTE
    first = [0] if pieces[0] == "<unk>" or known[0] not in (NORMAL, BYTE) else []
    stated = [] if unk is None else [unk]
    candidates = [*stated, *_of_kind(types, UNKNOWN), *first, *_of_kind(known, CONTROL)]
    unknown = next((index for index in candidates if known[index] != BYTE), None)
    if unknown is None:
        raise ValueError("its vocabulary has no piece for what is unknown, and needs one")
    known[unknown] = UNKNOWN
    return known


def _of_kind(types: Sequence[int], kind: int) -> list[int]:
    return [index for index, one in enumerate(types) if one == kind]


def _usual_types(vocabulary: Vocabulary) -> list[int]:
    types = [NORMAL] * len(vocabulary.pieces)
    for index, piece in enumerate(vocabulary.pieces):
        if vocabulary.kind == "llama" and re.fullmatch("<0x[0-9A-F]{2}>", piece):
            types[index] = BYTE
    for special, kind in ((vocabulary.bos, CONTROL), (vocabulary.eos, CONTROL), (vocabulary.unk, UNKNOWN)):
        if special is not None and 0 <= special < len(types):
            types[special] = kind
    return types


def sentencepiece_model(pieces: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> bytes:
    """A sentencepiece model, as a `.model` file holds it: the protocol buffers of sentencepiece_model.proto.

    It puts a marker before the text and changes nothing else in it, as those of Llama 1 and 2. ValueError for pieces
    that cannot be one.
    """
    if len(scores) != len(pieces):
        raise ValueError(f"its vocabulary has {len(pieces)} pieces and {len(scores)} scores")
    if types.count(UNKNOWN) != 1:
        raise ValueError(f"its vocabulary has {types.count(UNKNOWN)} pieces for what is unknown, and needs one")
    if any(not piece or "\0" in piece for piece in pieces):
        raise ValueError("its vocabulary has a piece that is empty or holds a NUL")
    known_bytes = sum(kind == BYTE for kind in types)
    if known_bytes and {piece for piece, kind in zip(pieces, types, strict=True) if kind == BYTE} != set(BYTE_NAMES):
        raise ValueError("its vocabulary writes unknown characters as bytes and has not a piece for each byte")
    model = bytearray()
    for piece, score, kind in zip(pieces, scores, types, strict=True):
        text = piece.encode()
        entry = b"\x0a" + _varint(len(text)) + text + b"\x15" + struct.pack("<f", score) + b"\x18" + _varint(kind)
        model += b"\x0a" + _varint(len(entry)) + entry
    unknown = types.index(UNKNOWN)
    # TrainerSpec: model_type BPE; byte_fallback; unk_id, and no bos, eos and pad, which are tokens named elsewhere
    trainer = b"\x18\x02" + b"\x98\x02" + _varint(int(known_bytes > 0)) + b"\xc0\x02" + _varint(unknown)
    # NormalizerSpec: the name; add_dummy_prefix; not remove_extra_whitespaces
    normalizer = b"\x0a\x08identity" + b"\x18\x01" + b"\x20\x00"
    return bytes(model + b"\x12" + _varint(len(trainer)) + trainer + b"\x1a" + _varint(len(normalizer)) + normalizer)


def _varint(number: int) -> bytes:
    """A number of 0 or more in groups of seven bits, the lowest first."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def named_cut(pre: str) -> WordCut:
    """How a vocabulary cuts words that is of this kind for llama.cpp. ValueError for a name that is not known."""
    if pre not in CUTS:
        raise ValueError(
            f"its vocabulary cuts words in the way {shown(pre[:60])}, which is not known: name a tokenizer.json with "
            "--tokenizer"
        )
    return CUTS[pre]


def byte_level_model(
    pieces: Sequence[str], types: Sequence[int], merges: Sequence[str], cut: WordCut
) -> tokenizers.Tokenizer:
    """A model of byte-level pairs, as Llama 3's tokenizer.json has it. ValueError for what cannot be one."""
    # Tokens behind the last normal piece were added to the vocabulary, others are in it
    added = next((n for n in range(len(pieces), 0, -1) if types[n - 1] not in (CONTROL, USER_DEFINED)), 0)
    vocab = {piece: index for index, piece in enumerate(pieces[:added])}
    pairs = []
    for merge in merges:
        left, space, right = merge.partition(" ")
        if not space or left not in vocab or right not in vocab or left + right not in vocab:
            raise ValueError(f"its vocabulary joins {shown(merge[:60])}, which are not two pieces that make a third")
        pairs.append((left, right))
    backend = tokenizers.Tokenizer(BPE(vocab, pairs, ignore_merges=cut.ignore_merges))
    backend.pre_tokenizer = word_cutter(cut.how)
    backend.decoder = decoders.ByteLevel()
    return backend
