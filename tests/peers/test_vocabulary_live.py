"""Vocabularies in GGUF files beside llama.cpp: the same ids and the same ends, for what converters write.

Runs where llama-cpp-python is installed (the peers extra); with MINILLAMA_PEERS=1 it is an error if that is missing.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from minillama.loading import load_tokenizer
from minillama.tokenizer.word_cuts import CUTS
from minillama.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary
from minillama.weights.gguf_file import read_gguf
from minillama.weights.gguf_special import end_ids
from tests.ggufs import gguf_bytes
from tests.tokenizer.test_from_pieces import of_the_tales
from tests.tokenizer.test_word_cuts import TEXT
from tests.tokenizer.texts import SPIKY
from tests.weights.test_gguf_vocabulary import P, metadata_of, with_types

if os.environ.get("MINILLAMA_PEERS") == "1":
    import llama_cpp  # it has to be there
else:
    llama_cpp = pytest.importorskip("llama_cpp")

TEXTS = [text for text in SPIKY if "\0" not in text]  # where a text of C ends
MORE = [
    TEXT, "x\r\n\r\ny  \n z", "1234567890 ٣٤٥ Ⅷ 一二三 カタカナ", "a/b//c path/\n/usr",
    "don't DON'T 's 'S XMLHttpRequest", "A fox<s>\nŒ", "a <unk>b</s> c",
]  # fmt: skip


@llama_cpp.llama_log_callback
def _no_log(level: int, text: bytes, data: Any) -> None:
    """llama.cpp tells a page about every model."""


class Theirs:
    """A vocabulary in llama.cpp."""

    def __init__(self, file: Path):
        llama_cpp.llama_log_set(_no_log, ctypes.c_void_p(0))
        how = llama_cpp.llama_model_default_params()
        how.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(file).encode(), how)
        assert self.model
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        ids = (llama_cpp.llama_token * (4 * len(data) + 16))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, True)
        return list(ids[:count])

    def ends(self) -> list[int]:
        count = llama_cpp.llama_vocab_n_tokens(self.vocab)
        return [index for index in range(count) if llama_cpp.llama_vocab_is_eog(self.vocab, index)]


def both(folder: Path, metadata: Mapping[str, Any]) -> tuple[Theirs, Any, Path]:
    file = folder / "vocabulary.gguf"
    file.write_bytes(gguf_bytes(metadata, []))
    return Theirs(file), load_tokenizer(file), file


@pytest.fixture(scope="module")
def across_words() -> tuple[list[str], list[str]]:
    """Pieces and merges that go over the ends of words, so that every cut shows."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator([*TEXTS, *MORE] * 3, trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet))
    model = json.loads(backend.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), merges


@pytest.mark.parametrize("pre", CUTS)
def test_the_same_ids_for_every_way_to_cut_words(
    pre: str, across_words: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    """Without add_bos_token, so that the name says that, too."""
    pieces, merges = across_words
    types = [NORMAL] * len(pieces) + [CONTROL]
    bos = len(pieces)
    given = Vocabulary("gpt2", [*pieces, "<|b|>"], types=types, merges=merges, pre=pre, bos=bos, eos=bos)
    theirs, ours, _ = both(tmp_path, metadata_of(given))
    for text in (*TEXTS, *MORE):
        assert ours.encode(text) == theirs.encode(text), text


HF = [CONTROL] * 3 + [BYTE] * 256 + [NORMAL] * 3837  # the types of what had a tokenizer.json alone
PIECES: Sequence[str] = of_the_tales().pieces


@pytest.mark.parametrize(
    "metadata",
    [
        metadata_of(of_the_tales(types=with_types(p0=CONTROL), unk=None)),
        metadata_of(of_the_tales(types=with_types(p1=UNKNOWN), unk=None)),
        metadata_of(of_the_tales(types=HF, scores=[-1000.0] * 4096, unk=None)),
        metadata_of(of_the_tales(bos=None, eos=4096, unk=None), padding_token_id=4096, add_eos_token=True),
        metadata_of(of_the_tales(scores=[])),
        metadata_of(of_the_tales(scores=[])) | {f"{P}scores": [0] * 4099},
        metadata_of(of_the_tales(pieces=[*PIECES[:300], "", *PIECES[301:]])),
        metadata_of(of_the_tales(pieces=[*PIECES[:4095], "<|end|>"], types=with_types(p4095=USER_DEFINED))),
    ],
)  # fmt: skip
def test_the_same_ids_for_what_converters_write_and_leave_out(metadata: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours, _ = both(tmp_path, metadata)
    for text in (*TEXTS, *MORE, "a<|end|> b"):
        assert ours.encode(text) == theirs.encode(text), text


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        ((), {}),
        (("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|user|>"), {}),
        (("<|eot_id|>", "<|eom_id|>", "<|user|>", "<|b|>"), {"eos": 4095, "eot": 4093, "eom": 4094}),
        (("<|end|>", "<|return|>", "<|call|>"), {"eos": 4094}),
        (("<|end|>", "<|return|>"), {}),
        (("[PAD]", "<|file_sep|>", "<|repo_name|>", "<eos>", "<end_of_turn>"), {"eos": 5000, "fim_rep": 300}),
    ],
)
def test_the_same_ends(texts: tuple[str, ...], named: dict[str, int], tmp_path: Path) -> None:
    """All by which llama.cpp ends an answer, named or known by their text."""
    pieces = [*PIECES[: 4096 - len(texts)], *texts]
    keys = {f"{which}_token_id": index for which, index in named.items()}
    theirs, _, file = both(tmp_path, metadata_of(of_the_tales(pieces=pieces), **keys))
    assert sorted(end_ids(read_gguf(file).metadata)) == theirs.ends()
