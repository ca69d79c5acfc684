"""The vocabulary of a tokenizer by itself, for files that hold it beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minillama.messages import shown
from minillama.tokenizer.base import Tokenizer
from minillama.tokenizer.expressible import (
    check_added,
    check_around,
    check_bytes,
    check_levels,
    check_markers,
    check_model,
    name_of_cut,
)
from minillama.tokenizer.from_pieces import BYTE_NAMES, from_pieces
from minillama.tokenizer.from_sentencepiece import check_plain, joins
from minillama.tokenizer.json_file import LlamaTokenizerFast
from minillama.tokenizer.library import quietly
from minillama.tokenizer.same_ids import check_same_ids
from minillama.tokenizer.sentencepiece_model import MARKER, LlamaTokenizer, load_sentencepiece
from minillama.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary


@quietly
def to_pieces(tokenizer: Tokenizer) -> Vocabulary:
    """What from_pieces makes such a tokenizer of. ValueError, naming the part, for one that it cannot make.

    Added tokens become pieces of the types CONTROL and USER_DEFINED, and ids without a token unused pieces. A
    vocabulary of this kind has one way with spaces, that of legacy=True, or none are put before a text: a warning says
    so where the tokenizer has another one.
    """
    check_added(tokenizer.added_tokens_decoder)
    vocabulary = _vocabulary(tokenizer)
    check_same_ids(tokenizer, from_pieces(vocabulary))
    return vocabulary


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    shared: dict[str, Any] = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
        # Without a token llama.cpp would take an id of its own
        "add_bos": tokenizer.add_bos_token and tokenizer.bos_token_id is not None,
        "add_eos": tokenizer.add_eos_token and tokenizer.eos_token_id is not None,
        "chat_template": tokenizer.chat_template,
        "space_prefix": tokenizer.tokenize("a")[:1] != ["a"],
    }
    if isinstance(tokenizer, LlamaTokenizer):
        return _of_sentencepiece(tokenizer, tokenizer.sp_model, shared)
    if not isinstance(tokenizer, LlamaTokenizerFast):
        raise ValueError(f"a {type(tokenizer).__name__} has no vocabulary that is known here")
    contents = json.loads(tokenizer.backend.to_str())
    check_model(contents["model"])
    check_around(tokenizer.file_around, tokenizer.bos_token, tokenizer.eos_token)
    if not contents["model"].get("byte_fallback"):
        check_levels(contents)
        return _of_bytes(tokenizer, contents, shared)
    check_markers(contents)
    if tokenizer.vocab_file is not None and Path(tokenizer.vocab_file).is_file():
        return _of_sentencepiece(tokenizer, load_sentencepiece(tokenizer.vocab_file), shared)
    return _of_merges(tokenizer, contents["model"], shared)


def _of_sentencepiece(tokenizer: Tokenizer, sp: Any, shared: Mapping[str, Any]) -> Vocabulary:
    check_plain(sp, "its sentencepiece model", MARKER if sp.normalize("a") == MARKER + "a" else "")
    kinds = ((sp.is_unknown, UNKNOWN), (sp.is_control, CONTROL), (sp.is_unused, UNUSED), (sp.is_byte, BYTE))
    types = {i: next((kind for is_kind, kind in kinds if is_kind(i)), NORMAL) for i in range(len(sp))}
    scores = {i: sp.get_score(i) for i in range(len(sp))}
    pieces, all_types = _with_added(tokenizer, {i: sp.id_to_piece(i) for i in types}, types)
    check_bytes(pieces)
    all_scores = [scores.get(i, 0.0) for i in range(len(pieces))]
    return Vocabulary("llama", pieces, all_scores, all_types, **shared)


def _of_merges(tokenizer: LlamaTokenizerFast, model: Mapping[str, Any], shared: Mapping[str, Any]) -> Vocabulary:
    """Scores that joined pieces would have had: the earlier a list of merges makes one, the better."""
    scores: dict[str, float] = {}
    for merge in model["merges"]:
        scores.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(len(scores)))
    by_id = {index: piece for piece, index in model["vocab"].items()}
    types = {i: BYTE if piece in BYTE_NAMES else NORMAL for i, piece in by_id.items()}
    if (unknown := model["vocab"].get(model.get("unk_token"))) is not None:
        types[unknown] = UNKNOWN
    added = tokenizer.added_tokens_decoder
    normal = {piece: i for i, piece in by_id.items() if types[i] == NORMAL and i not in added}
    merges = {tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]}
    if left_out := next((pair for pair in joins(normal, lambda piece: 0.0) if pair not in merges), None):
        raise ValueError(
            f"the tokenizer's merges do not join {shown(left_out[0])} and {shown(left_out[1])}, and llama.cpp "
            "would: convert to a folder instead"
        )
    pieces, all_types = _with_added(tokenizer, by_id, types)
    check_bytes(pieces)
    least = -float(len(scores))
    all_scores = [scores.get(piece, least) for piece in pieces]
    return Vocabulary("llama", pieces, all_scores, all_types, **shared)


def _of_bytes(tokenizer: LlamaTokenizerFast, contents: dict[str, Any], shared: Mapping[str, Any]) -> Vocabulary:
    model = contents["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    by_id = {index: piece for piece, index in model["vocab"].items()}
    pieces, types = _with_added(tokenizer, by_id, dict.fromkeys(by_id, NORMAL))
    pre = name_of_cut(contents)
    return Vocabulary("gpt2", pieces, types=types, merges=merges, pre=pre, **shared)


def _with_added(
    tokenizer: Tokenizer, by_id: Mapping[int, str], types: Mapping[int, int]
) -> tuple[list[str], list[int]]:
    """Every piece and its type up to the last id."""
    added = tokenizer.added_tokens_decoder
    hidden = set(tokenizer.all_special_ids)
    pieces, all_types = [], []
    for index in range(max([*by_id, *added]) + 1):
        kind = types.get(index, UNUSED)
        if index in added and kind != UNKNOWN:
            kind = CONTROL if added[index].special or index in hidden else USER_DEFINED
        pieces.append(added[index].content if index in added else by_id.get(index, f"[PAD{index}]"))
        all_types.append(kind)
    return pieces, all_types
