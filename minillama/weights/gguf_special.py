"""The special tokens in the metadata of a GGUF file: those that are named, and ends that are known by their text.

What a file does not say is as in llama.cpp (src/llama-vocab.cpp). It knows several ends of an answer: the tokens named
eos, eot (of a turn), eom (of a message) and three of infilling, and every token with the text of a well-known end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minillama.vocabulary import CONTROL, UNKNOWN
from minillama.weights.gguf_file import field

P = "tokenizer.ggml."
# The ids of sentencepiece vocabularies where a file names none
USUAL_IDS = {"bos": 1, "eos": 2, "unknown": 0}
ENDS_OF_TURNS = frozenset((
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
    "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
))  # fmt: skip
END_OF_MESSAGE = "<|eom_id|>"
ENDS = ENDS_OF_TURNS | {
    END_OF_MESSAGE, "</s>", "<eos>", "[EOS]", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<turn|>",
    "<|tool_response>", "[e~[",
}  # fmt: skip
# Tokens of infilling behind which nothing comes, where no id is named
INFILLING = {
    "fim_pad": frozenset(("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]")),
    "fim_rep": frozenset(("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    "fim_sep": frozenset(("<|file_sep|>",)),
}


def special_id(metadata: Mapping[str, Any], which: str) -> int | None:
    """The id of a special token ("bos", "eos", "eot", "eom", "unknown", "padding" ...), if there is one.

    The usual one where none is named, or one that the vocabulary has not; some writers have -1 for none, as an unsigned
    number. But not if the usual one is a text like others: special tokens are found in a text here, and it would be.
    """
    pieces = pieces_of(metadata)
    key = f"{P}{which}_token_id"
    if key in metadata:
        index = field(metadata, key, int)
        if 0 <= index < (len(pieces) or 1 << 31):
            return index
    usual = USUAL_IDS.get(which, len(pieces)) if metadata.get(f"{P}model") == "llama" else len(pieces)
    if usual >= len(pieces):
        return None
    types: Any = metadata.get(f"{P}token_type")
    told = isinstance(types, np.ndarray) and len(types) > usual
    special = not told or types[usual] in (CONTROL, UNKNOWN) or pieces[usual] in ("<s>", "</s>", "<unk>")
    return usual if special else None


def pieces_of(metadata: Mapping[str, Any]) -> Sequence[str]:
    """The pieces of the vocabulary; none where a file has none, or no list of texts."""
    pieces = metadata.get(f"{P}tokens")
    return pieces if isinstance(pieces, list) else []


def end_ids(metadata: Mapping[str, Any]) -> list[int]:
    """All ids that end an answer: of a text, of a turn, of a message, then the others in order."""
    named = [special_id(metadata, which) for which in ("eos", "eot", "eom")]
    texts = set(ENDS)
    for which, known in INFILLING.items():
        index = special_id(metadata, which)
        named.append(index)
        texts |= known if index is None else set()
    pieces = pieces_of(metadata)
    known_by_text = known_ends(pieces, texts)
    ids = list(dict.fromkeys([index for index in named if index is not None] + known_by_text))
    present = {pieces[index] for index in ids if index < len(pieces)}
    return [index for index in ids if index >= len(pieces) or pieces[index] not in no_ends(present)]


def known_ends(pieces: Sequence[str], texts: Iterable[str] = ENDS) -> list[int]:
    """The ids of the pieces with one of these texts."""
    return [index for index, piece in enumerate(pieces) if piece in texts]


def no_ends(present: set[str]) -> set[str]:
    """Of texts that may be ends, those that are none beside the others: <|end|> between the messages of a model that
    calls tools by <|call|>, and </s> in one that has its own ends."""
    calls = present & {"<|call|>", "<|calls|>"} and present & {"<|return|>", "<|flush|>"}
    return ({"<|end|>"} if calls else set()) | ({"</s>"} if "<|tool_response>" in present else set())
