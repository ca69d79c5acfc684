"""Tokenizers that are broken, or another model's; and texts that are hard to tokenize."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast
from tests.bad import VOCAB, Capture, assert_refused, assert_runs, checkpoint, command, random_tensors

KINDS = {"tokenizer.json": LlamaTokenizerFast, "tokenizer.model": LlamaTokenizer}


def fields(model: bytes) -> Iterator[bytes]:
    """The fields of a serialized sentencepiece model, all of them messages: tag, length (base 128), contents."""
    while model:
        length, used = 0, 1
        while model[used] & 0x80:
            length |= (model[used] & 0x7F) << 7 * (used - 1)
            used += 1
        end = used + 1 + (length | model[used] << 7 * (used - 1))
        yield model[:end]
        model = model[end:]


def test_the_fields_of_a_model_are_read_rightly() -> None:
    parts = list(fields((tale_model() / "tokenizer.model").read_bytes()))
    assert [part[0] for part in parts[:VOCAB]] == [0x0A] * VOCAB  # pieces are field 1
    assert b"<0x41>" in parts[3 + 0x41]


def edited_json(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def edit(file: bytes) -> bytes:
        contents = json.loads(file)
        change(contents)
        return json.dumps(contents).encode()

    return edit


def with_part(name: str, part: object) -> Callable[[bytes], bytes]:
    return edited_json(lambda contents: contents.update({name: part}))


def without_piece(file: bytes) -> bytes:
    return b"".join(part for part in fields(file) if b"<0x41>" not in part)


BAD_MODEL: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda file: b"", "is empty"),
    "truncated to 1 byte": (lambda file: file[:1], "is not a sound sentencepiece model"),
    "truncated in a piece": (lambda file: file[: len(file) // 2 + 1], "is not a sound sentencepiece model"),
    "truncated between two pieces": (
        lambda file: b"".join(list(fields(file))[:3000]),
        "is not a sound sentencepiece model",
    ),
    "truncated after the pieces": (lambda file: b"".join(list(fields(file))[:VOCAB]), "is not a sound sentencepiece"),
    "missing byte piece": (without_piece, "is not a sound sentencepiece model"),
    "an HTML page": (lambda file: b"<!doctype html><html></html>", "is not a sound sentencepiece model"),
    "a git-lfs pointer": (lambda file: b"version https://git-lfs.github.com/spec/v1\n", "is not a sound sentencepiece"),
    "random bytes": (lambda file: bytes(range(256)) * 9, "is not a sound sentencepiece model"),
    "a broken vocabulary of tiktoken": (lambda file: b"IQ== 0\nIg== 1\n" * 9, "tiktoken: line 3 has the rank 0 again"),
}
BAD_JSON: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda file: b"", "is not valid JSON"),
    "truncated": (lambda file: file[:-10], "is not valid JSON"),
    "a list": (lambda file: b"[]", "holds a JSON list, not an object"),
    "no model": (edited_json(lambda contents: contents.pop("model")), "is a malformed tokenizer"),
    "model without vocabulary": (edited_json(lambda contents: contents["model"].pop("vocab")), "is not a sound"),
    "an unknown algorithm": (
        edited_json(lambda contents: contents["model"].update(type="Magic")),
        "is not a sound tokenizer.json",
    ),
    "id -1": (edited_json(lambda contents: contents["model"]["vocab"].update(new=-1)), "is not a sound tokenizer.json"),
    "id vocab_size": (
        edited_json(lambda contents: contents["model"]["vocab"].update(new=VOCAB)),
        f"has {VOCAB + 1} tokens and the model only {VOCAB}: name the model's own with --tokenizer",
    ),
    "id 2^32": (edited_json(lambda contents: contents["model"]["vocab"].update(new=2**32)), "is not a sound tokenizer"),
    "merge of unknown pieces": (
        edited_json(lambda contents: contents["model"]["merges"].append(["qqq", "zzz"])),
        "is not a sound tokenizer.json",
    ),
}
BESIDE: dict[str, tuple[str, object, str]] = {
    "added token -1": ("added_tokens.json", {"<new>": -1}, "gives the added token '<new>' the id -1"),
    "added token of text": ("added_tokens.json", {"<new>": "x"}, "gives the added token '<new>' the id 'x'"),
    "empty added token": ("added_tokens.json", {"": 5}, "gives the added token '' the id 5"),
    "added tokens in a list": ("added_tokens.json", ["<new>"], "holds a JSON list, not an object"),
    "decoder in a list": ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "added_tokens_decoder must map"),
    "bos a number": ("tokenizer_config.json", {"bos_token": 1}, "bos_token must be a text or null, not 1"),
    "eos a list": (
        "special_tokens_map.json",
        {"eos_token": ["</s>"]},
        "eos_token must be a text or null, not ['</s>']",
    ),
    "no side": ("tokenizer_config.json", {"padding_side": 3}, "padding_side must be left or right, not 3"),
    "a length in words": (
        "tokenizer_config.json",
        {"model_max_length": "many"},
        "model_max_length must be a number of tokens, not 'many'",
    ),
    "a length true": ("tokenizer_config.json", {"model_max_length": True}, "model_max_length must be a number of tok"),
    "no length": (
        "tokenizer_config.json",
        {"model_max_length": 0},
        "model_max_length must be a number of tokens, not 0",
    ),
    "a number among names": (
        "tokenizer_config.json",
        {"model_input_names": [1]},
        "model_input_names must be a list of names, not [1]",
    ),
    "no such side": (
        "tokenizer_config.json",
        {"truncation_side": "up"},
        "truncation_side must be left or right, not 'up'",
    ),
    "one name": (
        "tokenizer_config.json",
        {"model_input_names": "input_ids"},
        "model_input_names must be a list of names, not 'input_ids'",
    ),
    "sampling by a number": (
        "tokenizer_config.json",
        {"sp_model_kwargs": 0.1},
        "sp_model_kwargs must be a dictionary of arguments, not 0.1",
    ),
    "flag a text": ("tokenizer_config.json", {"add_bos_token": "no"}, "add_bos_token must be true, false or null, not"),
}


def spoiled(folder: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """A checkpoint whose only tokenizer is the file `name`, changed."""
    checkpoint(folder)
    for other in KINDS.keys() - {name}:
        (folder / other).unlink()
    file = folder / name
    file.write_bytes(change(file.read_bytes()))
    return file


@pytest.mark.parametrize("case", BAD_MODEL)
def test_bad_sentencepiece_model(case: str, tmp_path: Path, capfd: Capture) -> None:
    change, words = BAD_MODEL[case]
    file = spoiled(tmp_path, "tokenizer.model", change)
    assert_refused(capfd, ["--weights", tmp_path], file, words)


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_tokenizer_json(case: str, tmp_path: Path, capfd: Capture) -> None:
    change, words = BAD_JSON[case]
    file = spoiled(tmp_path, "tokenizer.json", change)
    assert_refused(capfd, ["--weights", tmp_path], tmp_path if case == "id vocab_size" else file, words)


@pytest.mark.parametrize("case", BESIDE)
@pytest.mark.parametrize("name", KINDS)
def test_bad_file_beside_the_tokenizer(name: str, case: str, tmp_path: Path, capfd: Capture) -> None:
    beside, contents, words = BESIDE[case]
    spoiled(tmp_path, name, lambda file: file)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / beside).write_text(json.dumps(contents))
    assert_refused(capfd, ["--weights", tmp_path], tmp_path / beside, words)


@pytest.mark.parametrize("rows", [VOCAB + 1, VOCAB + 16])
@pytest.mark.parametrize("name", KINDS)
def test_a_model_with_more_rows_than_tokens_runs(name: str, rows: int, tmp_path: Path, capfd: Capture) -> None:
    tensors = random_tensors({**json.loads((checkpoint(tmp_path) / "config.json").read_text()), "vocab_size": rows})
    tensors["model.embed_tokens.weight"][VOCAB:] = 9.0  # would be chosen often, if they could be
    checkpoint(tmp_path, tensors, vocab_size=rows)
    warning = f"the model has {rows} tokens and the tokenizer in {tmp_path / name} only {VOCAB}"
    arguments = ["--weights", tmp_path, "--tokenizer", tmp_path / name, "--max-new-tokens", 8, "--temperature", 5]
    assert len(assert_runs(capfd, [*arguments, "--top-p", 1], warning)) > len("Once upon a time\n")


@pytest.mark.parametrize("name", KINDS)
def test_a_model_with_fewer_rows_than_tokens(name: str, tmp_path: Path, capfd: Capture) -> None:
    checkpoint(tmp_path, vocab_size=VOCAB - 1)
    words = f"the tokenizer in {tmp_path / name} has {VOCAB} tokens and the model only {VOCAB - 1}"
    assert_refused(capfd, ["--weights", tmp_path, "--tokenizer", tmp_path / name], words, "--tokenizer")


def test_no_tokenizer(tmp_path: Path, capfd: Capture) -> None:
    spoiled(tmp_path, "tokenizer.json", lambda file: file).unlink()
    words = f"{tmp_path} has no tokenizer.json and no tokenizer.model: name one with --tokenizer"
    assert_refused(capfd, ["--weights", tmp_path], words)
    assert_refused(capfd, ["--weights", tmp_path, "--tokenizer", tmp_path / "t.json"], "t.json does not exist")
    assert_refused(capfd, ["--weights", tmp_path, "--tokenizer", tmp_path / "t.model"], "t.model does not exist")


@pytest.mark.parametrize("name", KINDS)
def test_a_lone_surrogate(name: str, tmp_path: Path, capfd: Capture) -> None:
    checkpoint(tmp_path)
    arguments = ["--weights", tmp_path, "--tokenizer", tmp_path / name, "--prompt", "ab\ud83d"]
    assert_refused(capfd, arguments, "the text has a lone surrogate, U+D83D, at position 2: it is not Unicode text")


@pytest.mark.parametrize("text", ["a\0b", "\0", "\0\0 \0"])
@pytest.mark.parametrize("name", KINDS)
def test_nul_is_a_character(name: str, text: str, tmp_path: Path, capfd: Capture) -> None:
    checkpoint(tmp_path)
    arguments = ["--weights", tmp_path, "--tokenizer", tmp_path / name, "--prompt", text, "--max-new-tokens", 2]
    assert assert_runs(capfd, arguments).startswith(text)
    tokenizer = load_tokenizer(tmp_path / name)
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


@pytest.mark.parametrize("name", KINDS)
def test_a_megabyte_without_a_space(name: str, tmp_path: Path, capfd: Capture) -> None:
    checkpoint(tmp_path)
    (tmp_path / "prompt.txt").write_text("abcdefg" * 150_000)
    arguments = ["--weights", tmp_path, "--tokenizer", tmp_path / name, "--prompt-file", tmp_path / "prompt.txt"]
    assert_refused(capfd, arguments, "tokens and the model's context is 32: shorten it")


@pytest.mark.parametrize("name", KINDS)
def test_a_control_token_in_user_text(name: str, tmp_path: Path, capfd: Capture) -> None:
    checkpoint(tmp_path)
    arguments = ["--weights", tmp_path, "--tokenizer", tmp_path / name, "--prompt", "One <s> two", "--json"]
    answer = json.loads(assert_runs(capfd, [*arguments, "--max-new-tokens", 1]))
    assert answer["prompt_ids"].count(1) == 2


def test_no_pad_token_is_needed_for_two_prompts(tmp_path: Path, capfd: Capture) -> None:
    checkpoint(tmp_path)
    assert load_tokenizer(tmp_path).pad_token_id is None
    prompts = ["One", "Two mice and a cat"]
    how = ["--weights", tmp_path, "--max-new-tokens", 6, "--temperature", 0]
    alone = [assert_runs(capfd, [*how, "--prompt", prompt]) for prompt in prompts]
    together = assert_runs(capfd, [*how, "--prompt", prompts[0], "--prompt", prompts[1]])
    assert together == f"{alone[0]}---\n{alone[1]}"


@pytest.mark.parametrize("index", [-1, VOCAB, 2**40])
@pytest.mark.parametrize("name", KINDS)
def test_ids_outside_the_vocabulary_are_not_decoded(name: str, index: int) -> None:
    tokenizer = load_tokenizer(tale_model() / name)
    with pytest.raises(ValueError, match=f"the id {index} is outside the tokenizer's 0..{VOCAB - 1}"):
        tokenizer.decode([1, index])


@pytest.mark.parametrize("text", ["", "5"])
@pytest.mark.parametrize("name", KINDS)
def test_a_text_is_no_list_of_ids(name: str, text: str) -> None:
    tokenizer = load_tokenizer(tale_model() / name)
    for decode in (tokenizer.decode, tokenizer.convert_ids_to_tokens):
        with pytest.raises(ValueError, match="ids must be a list of whole numbers, not "):
            decode(text)


@pytest.mark.parametrize("index", [-1, VOCAB, 2**40])
def test_ids_outside_the_vocabulary_are_not_embedded(index: int, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(checkpoint(tmp_path))
    with pytest.raises(ValueError, match=f"input_ids has the id {index}, outside the vocabulary 0..{VOCAB - 1}"):
        model([[1, index]])


def test_a_tokenizer_json_that_makes_its_reader_panic(tmp_path: Path, capfd: Capture) -> None:
    around = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<none>", "type_id": 0}}], "pair": []}
    file = spoiled(tmp_path, "tokenizer.json", with_part("post_processor", around | {"special_tokens": {}}))
    status, _, err = command(capfd, "--weights", tmp_path)
    assert status == 1
    assert f"minillama: {file} is not a sound tokenizer.json" in err  # perhaps after the reader's own complaint
