"""llama2.c's tokenizer.bin beside the sentencepiece model it was written from, and beside how run.c encodes."""

import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer
from tests.bad import Capture, assert_refused, checkpoint, command
from tests.tiny import random_weights, tiny_config
from tests.tokenizer.texts import SPECIAL, SPIKY
from tests.weights.llama2c_files import exported, tokenizer_bin

TALES = LlamaTokenizer.from_pretrained(tale_model())
PIECES = [TALES.sp_model.id_to_piece(i) for i in range(TALES.vocab_size)]
SCORES = [TALES.sp_model.get_score(i) for i in range(TALES.vocab_size)]


def printed(early: bool = False) -> list[bytes]:
    """The pieces as llama2.c's writer has them; early versions wrote the character b for the byte b."""
    pieces = [piece.replace("▁", " ") for piece in PIECES]
    pieces[1:3] = "\n<s>\n", "\n</s>\n"
    if early:
        pieces[3:259] = map(chr, range(256))
    return [piece.encode() for piece in pieces]


def encoded_by_run_c(text: str, pieces: list[bytes], scores: list[float]) -> list[int]:
    """How run.c makes ids of a text: a space in front, characters or else bytes, then the best pair again and again."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    tokens = [1, ids[b" "]] if text else [1]
    for character in text:
        piece = character.encode()
        tokens += [ids[piece]] if piece in ids else [byte + 3 for byte in piece]
    while True:
        pairs = [ids.get(pieces[a] + pieces[b]) for a, b in itertools.pairwise(tokens)]
        found = [(-scores[index], place, index) for place, index in enumerate(pairs) if index is not None]
        if not found:
            return tokens
        _, place, index = min(found)
        tokens[place : place + 2] = [index]


@pytest.mark.parametrize("early", [False, True], ids=["late", "early"])
def test_it_is_the_tokenizer_it_was_written_from(early: bool, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.bin").write_bytes(tokenizer_bin(printed(early), SCORES))
    for tokenizer in (load_tokenizer(tmp_path), load_tokenizer(tmp_path / "tokenizer.bin")):
        assert isinstance(tokenizer, LlamaTokenizer)
        assert tokenizer.get_vocab() == TALES.get_vocab()
        for text in (*SPIKY, *SPECIAL):
            ids = tokenizer.encode(text)
            assert ids == TALES.encode(text)
            assert tokenizer.decode(ids) == TALES.decode(ids)


def test_its_ids_are_those_of_run_c(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.bin").write_bytes(tokenizer_bin(printed(), SCORES))
    tokenizer = load_tokenizer(tmp_path)
    for text in ("", " ", "Once upon a time", "  two  spaces ", "naïve café\n\tñandú 日本 🦊", "<0x0A>", "a" * 50):
        assert tokenizer.encode(text) == encoded_by_run_c(text, printed(), SCORES)


def test_generate_runs_both_files(tmp_path: Path, capfd: Capture) -> None:
    config = tiny_config(head_dim=4, vocab_size=TALES.vocab_size, bos_token_id=1, eos_token_id=2)
    weights = random_weights(config)
    folder = checkpoint(tmp_path / "folder", weights, **config.to_dict())
    (tmp_path / "stories.bin").write_bytes(exported(config, weights))
    (tmp_path / "tokenizer.bin").write_bytes(tokenizer_bin(printed(), SCORES))
    how = ["--prompt", "The fox", "--max-new-tokens", 20, "--json"]
    expected = command(capfd, "--weights", folder, *how).out
    assert len(expected) > 100
    named = ["--weights", tmp_path / "stories.bin", "--tokenizer", tmp_path / "tokenizer.bin"]
    assert command(capfd, *named, *how).out == expected
    (tmp_path / "folder").rename(tmp_path.parent / "elsewhere")
    assert command(capfd, "--weights", tmp_path, *how).out == expected  # both are found in the folder


def with_entry(number: int, score: float = 0.0, length: int | None = None, piece: bytes = b"x") -> bytes:
    """The file with another entry in place of one."""
    begin = tokenizer_bin(printed()[:number], SCORES[:number]) if number else bytes(4)
    entry = struct.pack("<fi", score, len(piece) if length is None else length) + piece
    return struct.pack("<i", 100) + begin[4:] + entry + tokenizer_bin(printed()[number + 1 :], SCORES[number + 1 :])[4:]


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda file: b"", "it has 0 bytes"),
    "3 bytes": (lambda file: file[:3], "it has 3 bytes"),
    "no entry": (lambda file: file[:4], "it begins with nothing"),
    "258 entries": (lambda file: tokenizer_bin(printed()[:258], SCORES[:258]), "are not the 256 bytes"),
    "cut in an entry": (lambda file: file[:-1], f"it is cut short in entry {len(PIECES) - 1}"),
    "cut in a score": (lambda file: file + b"\0", f"it is cut short in entry {len(PIECES)}"),
    "length 0": (lambda file: with_entry(300, length=0, piece=b""), "entry 300 has 0 bytes"),
    "length -1": (lambda file: with_entry(300, length=-1), "entry 300 has -1 bytes"),
    "length 2^31 - 1": (lambda file: with_entry(300, length=2**31 - 1), "entry 300 has 2147483647 bytes"),
    "length past the end": (lambda file: struct.pack("<ifi", 2**31 - 1, 0, 2**31 - 1) + b"x", "cut short in entry 0"),
    "longest 0": (lambda file: bytes(4) + file[4:], "entry 0 has 5 bytes, and the longest is said to have 0"),
    "longest -1": (lambda file: b"\xff" * 4 + file[4:], "the longest is said to have -1"),
    "score NaN": (lambda file: with_entry(300, score=float("nan")), "entry 300 has the score nan"),
    "not UTF-8": (lambda file: with_entry(300, piece=b"\xff"), "entry 300 is not UTF-8"),
    "a piece twice": (lambda file: with_entry(300, piece=printed()[301]), "it has a piece twice"),
    "another model's order": (lambda file: with_entry(1, piece=b"<bos>"), "it begins with '<unk>', '<bos>', '</s>'"),
    "no byte 0x41": (lambda file: with_entry(3 + 0x41), "are not the 256 bytes"),
    "NUL in a piece": (lambda file: with_entry(300, piece=b"a\0b"), "holds a NUL"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_sentence(name: str, tmp_path: Path, capfd: Capture) -> None:
    change, message = BAD[name]
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(change(tokenizer_bin(printed(), SCORES)))
    arguments = ["--weights", checkpoint(tmp_path / "folder"), "--tokenizer", path]
    assert_refused(capfd, arguments, path, "is not a sound tokenizer.bin of llama2.c", message, "export it again")
