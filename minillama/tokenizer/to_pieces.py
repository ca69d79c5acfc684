"""The vocabulary of a tokenizer by itself, for files that hold it beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.models import BPE

from minillama.tokenizer.base import Tokenizer
from minillama.tokenizer.from_sentencepiece import check_plain
from minillama.tokenizer.json_file import LlamaTokenizerFast
from minillama.tokenizer.sentencepiece_model import MARKER, LlamaTokenizer, load_sentencepiece
from minillama.tokenizer.word_cuts import CUTS, PATTERNS, word_cutter
from minillama.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary


def to_pieces(tokenizer: Tokenizer) -> Vocabulary:
    """What from_pieces makes such a tokenizer of. ValueError for one that it cannot make.

    Added tokens become pieces of the types CONTROL and USER_DEFINED, and ids without a token unused pieces. A
    vocabulary of this kind has one way with spaces, that of legacy=True, or none are put before a text.
    """
    shared: dict[str, Any] = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
        "add_bos": tokenizer.add_bos_token,
        "add_eos": tokenizer.add_eos_token,
        "chat_template": tokenizer.chat_template,
        "space_prefix": tokenizer.tokenize("a")[:1] != ["a"],
    }
    if isinstance(tokenizer, LlamaTokenizer):
        return _of_sentencepiece(tokenizer, tokenizer.sp_model, shared)
    if not isinstance(tokenizer, LlamaTokenizerFast):
        raise ValueError(f"a {type(tokenizer).__name__} has no vocabulary that is known here")
    contents = json.loads(tokenizer.backend.to_str())
    if not contents["model"].get("byte_fallback"):
        return _of_bytes(tokenizer, contents, shared)
    if tokenizer.vocab_file is not None and Path(tokenizer.vocab_file).is_file():
        return _of_sentencepiece(tokenizer, load_sentencepiece(tokenizer.vocab_file), shared)
    return _of_merges(tokenizer, contents["model"], shared)


def _of_sentencepiece(tokenizer: Tokenizer, sp: Any, shared: Mapping[str, Any]) -> Vocabulary:
    check_plain(sp, "its sentencepiece model", MARKER if sp.normalize("a") == MARKER + "a" else "")
    kinds = ((sp.is_unknown, UNKNOWN), (sp.is_control, CONTROL), (sp.is_unused, UNUSED), (sp.is_byte, BYTE))
    types = {i: next((kind for is_kind, kind in kinds if is_kind(i)), NORMAL) for i in range(len(sp))}
    scores = {i: sp.get_score(i) for i in range(len(sp))}
    pieces, all_types = _with_added(tokenizer, {i: sp.id_to_piece(i) for i in types}, types)
    all_scores = [scores.get(i, 0.0) for i in range(len(pieces))]
    return Vocabulary("llama", pieces, all_scores, all_types, **shared)


def _of_merges(tokenizer: LlamaTokenizerFast, model: Mapping[str, Any], shared: Mapping[str, Any]) -> Vocabulary:
    """Scores that joined pieces would have had: the earlier a list of merges makes one, the better."""
    scores: dict[str, float] = {}
    for merge in model["merges"]:
        scores.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), -float(len(scores)))
    by_id = {index: piece for piece, index in model["vocab"].items()}
    types = {i: BYTE if len(piece) == 6 and piece.startswith("<0x") else NORMAL for i, piece in by_id.items()}
    if (unknown := model["vocab"].get(model.get("unk_token"))) is not None:
        types[unknown] = UNKNOWN
    pieces, all_types = _with_added(tokenizer, by_id, types)
    least = -float(len(scores))
    all_scores = [scores.get(piece, least) for piece in pieces]
    return Vocabulary("llama", pieces, all_scores, all_types, **shared)


def _of_bytes(tokenizer: LlamaTokenizerFast, contents: dict[str, Any], shared: Mapping[str, Any]) -> Vocabulary:
    model = contents["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    by_id = {index: piece for piece, index in model["vocab"].items()}
    pieces, types = _with_added(tokenizer, by_id, dict.fromkeys(by_id, NORMAL))
    pre = _name_of_cut(contents)
    return Vocabulary("gpt2", pieces, types=types, merges=merges, pre=pre, **shared)


def _name_of_cut(contents: Mapping[str, Any]) -> str:
    """llama.cpp's name of the way in which a tokenizer.json cuts a text into words."""
    if contents.get("normalizer") is None:
        same = [how for how in PATTERNS if _what_cuts(_as_json(how)) == _what_cuts(contents["pre_tokenizer"])]
        whole = bool(contents["model"].get("ignore_merges"))
        named = [name for name, cut in CUTS.items() if cut.how in same and cut.ignore_merges == whole]
        if named:
            return named[0]
        if same:
            raise ValueError(f"the tokenizer's ignore_merges is not what goes with cutting words as {same[0]}")
    raise ValueError("the tokenizer cuts a text into words in a way that has no name here, so it cannot be written")


def _as_json(how: str) -> Any:
    backend = tokenizers.Tokenizer(BPE())
    backend.pre_tokenizer = word_cutter(how)
    return json.loads(backend.to_str())["pre_tokenizer"]


def _what_cuts(part: Any) -> Any:
    """A pre-tokenizer without what says nothing of where it cuts."""
    if isinstance(part, dict):
        return {key: _what_cuts(value) for key, value in part.items() if key != "trim_offsets"}
    return [_what_cuts(one) for one in part] if isinstance(part, list) else part


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
