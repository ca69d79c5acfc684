"""What ends an answer, in GGUF files of others and in our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minillama.config import LlamaConfig
from minillama.loading import load_tokenizer
from minillama.vocabulary import CONTROL, NORMAL, UNKNOWN, Vocabulary
from minillama.weights import open_checkpoint
from minillama.weights.gguf_file import read_gguf
from minillama.weights.gguf_special import end_ids
from minillama.weights.gguf_writing import write_gguf
from tests.ggufs import SETTINGS, gguf_bytes
from tests.tiny import odd_model

P = "tokenizer.ggml."
PIECES = ["<unk>", "<s>", "</s>", "a", "<|user|>", "<|end|>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "b"]


def said(pieces: list[str], **more: Any) -> dict[str, Any]:
    return {f"{P}model": "llama", f"{P}tokens": pieces} | {f"{P}{key}": value for key, value in more.items()}


@pytest.mark.parametrize(
    ("metadata", "ends"),
    [
        ({}, []),
        ({f"{P}eos_token_id": 7, f"{P}eot_token_id": 3, f"{P}eom_token_id": 7}, [7, 3]),  # no vocabulary
        (said(["<unk>", "<s>", "</s>", "a"]), [2]),
        (said(["<unk>", "<s>", "</s>", "a"], eos_token_id=2**32 - 1), [2]),
        (said(["<unk>", "<s>", "</s>", "a"], eos_token_id=3, eot_token_id=4, fim_sep_token_id=1), [3, 1, 2]),
        (said(PIECES), [2, 5, 6, 7, 8]),
        (said(PIECES, eos_token_id=6, eot_token_id=4, eom_token_id=9), [6, 4, 9, 2, 5, 7, 8]),
        (said(["x", "y", "z"]), [2]),  # which llama.cpp takes, too
        (said(["x", "y", "z"], model="gpt2"), []),
        (said(["a", "[PAD]", "<|file_sep|>", "<|repo_name|>", "<eos>"], model="gpt2"), [1, 2, 3, 4]),
        (said(["a", "[PAD]", "<|file_sep|>", "<|fim_pad|>"], model="gpt2", fim_pad_token_id=3), [3, 2]),
        # <|end|> parts the messages of one answer where tools are called
        (said(["a", "<|end|>", "<|return|>", "<|call|>"], model="gpt2", eos_token_id=2), [2, 3]),
        (said(["a", "<|end|>", "<|flush|>", "<|calls|>"], model="gpt2"), [2, 3]),
        (said(["a", "<|end|>", "<|return|>"], model="gpt2"), [1, 2]),
        (said(["a", "</s>", "<|tool_response>"], model="gpt2"), [2]),
    ],
)
def test_ends_that_are_named_and_known_by_their_text(metadata: dict[str, Any], ends: list[int]) -> None:
    assert end_ids(metadata) == ends


def test_an_end_by_its_text_is_a_control_token(tmp_path: Path) -> None:
    """Whatever its type: found in a text, and not shown."""
    types = [UNKNOWN, CONTROL, CONTROL, *[NORMAL] * 6, NORMAL]
    metadata = SETTINGS | said(PIECES, token_type=types, scores=[0.0] * 10)
    (tmp_path / "model.gguf").write_bytes(gguf_bytes(metadata, []))
    tokenizer = load_tokenizer(tmp_path / "model.gguf")
    assert tokenizer.encode("a<|im_end|>")[-1] == 8
    assert tokenizer.decode([3, 8], skip_special_tokens=True) == "a"


VOCABULARY = Vocabulary("llama", PIECES, [0.0] * 10, [UNKNOWN, CONTROL, CONTROL, *[NORMAL] * 7], bos=1, eos=2, unk=0)


@pytest.mark.parametrize(
    ("ends", "named", "read"),
    [
        ([2], (2, None, None), [2, 5, 6, 7, 8]),
        ([3, 9], (2, 3, 9), [2, 3, 9, 5, 6, 7, 8]),
        ([2, 7, 6, 5], (2, 6, 7), [2, 6, 7, 5, 8]),
        ([2, 7, 8, 4], (2, 4, 7), [2, 4, 7, 5, 6, 8]),
        ([], (2, None, None), [2, 5, 6, 7, 8]),
        ([12, 3, 2**40], (2, 3, None), [2, 3, 5, 6, 7, 8]),  # 12 ids are 0 to 11
    ],
)
def test_ends_that_are_written(ends: list[int], named: tuple[int | None, ...], read: list[int], tmp_path: Path) -> None:
    """The vocabulary's own is eos; what llama.cpp does not know by its text comes first."""
    odd_model(tmp_path / "model", vocab_size=12, eos_token_id=None)
    file = tmp_path / "model.gguf"
    write_gguf(open_checkpoint(tmp_path / "model"), "F32", file, VOCABULARY, end_ids=ends)
    metadata = read_gguf(file).metadata
    assert tuple(metadata.get(f"{P}{which}_token_id") for which in ("eos", "eot", "eom")) == named
    assert open_checkpoint(file).config.eos_token_ids == tuple(read)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ([2, 3, 4, 9, 6], "would not end at 9: a GGUF file names three ends"),
        ([9, 3, 8, 10, 11], "would not end at 10, 11: "),
    ],
)
def test_ends_that_cannot_be_written(ends: list[int], words: str, tmp_path: Path) -> None:
    odd_model(tmp_path / "model", vocab_size=12)
    with pytest.raises(ValueError, match=words):
        write_gguf(open_checkpoint(tmp_path / "model"), "F32", tmp_path / "model.gguf", VOCABULARY, end_ids=ends)
    assert not list(tmp_path.glob("*gguf*"))


def test_without_a_vocabulary_the_config_s(tmp_path: Path) -> None:
    odd_model(tmp_path / "model", eos_token_id=[5, 3, 7])
    write_gguf(open_checkpoint(tmp_path / "model"), "F32", tmp_path / "model.gguf")
    config: LlamaConfig = open_checkpoint(tmp_path / "model.gguf").config
    assert config.eos_token_id == [5, 3, 7]
