"""Models in several GGUF files, and GGUF files that are not models: opened, or refused by what they are."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.loading import load_tokenizer
from minillama.weights import open_checkpoint
from tests.bad import Capture, assert_refused, assert_runs
from tests.ggufs import SETTINGS, Info, gguf_bytes, info, model_tensors
from tests.tokenizer.test_from_pieces import of_the_tales
from tests.weights.test_gguf_vocabulary import metadata_of

SOUND = model_tensors(vocab=4096)
ALL = metadata_of(of_the_tales())
FEW = ("--temperature", 0, "--max-new-tokens", 4)


def u16(number: int) -> bytes:
    return struct.pack("<IH", 2, number)


def i32(number: int) -> bytes:
    return struct.pack("<Ii", 5, number)


def of_part(index: int, count: int, tensors: int = len(SOUND)) -> dict[str, Any]:
    return {"split.no": u16(index), "split.count": u16(count), "split.tensors.count": i32(tensors)}


def split(folder: Path, count: int = 3, **more: Any) -> list[Path]:
    """The model in parts, as llama-gguf-split makes them: all settings in the first, which has no tensors."""
    folder.mkdir(exist_ok=True)
    cuts = np.array_split(np.arange(len(SOUND)), count - 1)
    files = []
    for index in range(count):
        tensors = [SOUND[i] for i in cuts[index - 1]] if index else []
        settings = (ALL | more if index == 0 else {}) | of_part(index, count)
        files.append(folder / f"my-model-{index + 1:05}-of-{count:05}.gguf")
        files[-1].write_bytes(gguf_bytes(settings, tensors))
    return files


def test_parts_are_one_model(tmp_path: Path, capfd: Capture) -> None:
    first = split(tmp_path / "parts")[0]
    whole = tmp_path / "whole.gguf"
    whole.write_bytes(gguf_bytes(ALL, SOUND))
    together, one = open_checkpoint(first), open_checkpoint(whole)
    assert together.config == one.config
    assert together.tensors.keys() == one.tensors.keys()
    for name, tensor in one.tensors.items():
        np.testing.assert_array_equal(together.tensors[name].read(np.float32), tensor.read(np.float32))
    told = assert_runs(capfd, ["--weights", whole, "--prompt", "A fox", *FEW])
    for weights in (first, first.parent):  # a folder with nothing but one model
        assert assert_runs(capfd, ["--weights", weights, "--prompt", "A fox", *FEW]) == told
    assert load_tokenizer(first.parent).encode("A fox") == load_tokenizer(whole).encode("A fox")


def test_a_model_of_two_with_tensors_in_the_first(tmp_path: Path) -> None:
    """As the gguf package splits. The last part has the rotary factors, too."""
    factors = info("rope_freqs.weight", np.full(12, 2, np.float32))
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(gguf_bytes(ALL | of_part(0, 2, len(SOUND) + 1), SOUND[:9]))
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(gguf_bytes(of_part(1, 2), [*SOUND[9:], factors]))
    assert open_checkpoint(tmp_path).config.rope_scaling is not None


def test_a_part_that_is_the_whole(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf_bytes(ALL | of_part(0, 1), SOUND))
    assert open_checkpoint(file).config.vocab_size == 4096


def test_two_models_in_a_folder(tmp_path: Path, capfd: Capture) -> None:
    first = split(tmp_path)[0]
    shutil.copyfile(first, tmp_path / "other-00001-of-00003.gguf")
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, "has 4 .gguf files: name one of them")


def test_another_part_than_the_first(tmp_path: Path, capfd: Capture) -> None:
    files = split(tmp_path)
    words = "of 3 of a model: name the first, my-model-00001-of-00003.gguf"
    assert_refused(capfd, ["--weights", files[1]], files[1], f"it is part 2 {words}")
    renamed = files[2].rename(tmp_path / "last.gguf")
    assert_refused(
        capfd, ["--weights", renamed], renamed, "it is part 3 of 3 of a model: name the first, NAME-00001-of"
    )


@pytest.mark.parametrize("name", ["model.gguf", "my-model-00002-of-00003.gguf", "my-model-00001-of-00002.gguf"])
def test_a_first_part_under_another_name(name: str, tmp_path: Path, capfd: Capture) -> None:
    first = split(tmp_path)[0].rename(tmp_path / name)
    assert_refused(capfd, ["--weights", first], first, "its name does not say so: call it", "-00001-of-00003.gguf")


def test_parts_that_are_missing(tmp_path: Path, capfd: Capture) -> None:
    files = split(tmp_path / "few")
    files[1].unlink()
    assert_refused(
        capfd, ["--weights", files[0]], files[0].parent,
        "has 2 of 3 parts of the model: get my-model-00002-of-00003.gguf too",
    )  # fmt: skip
    files = split(tmp_path / "many", 9)
    for file in files[1:]:
        file.unlink()
    assert_refused(capfd, ["--weights", files[0]], "has 1 of 9 parts", "00004-of-00009.gguf and 5 more too")


def test_parts_that_do_not_belong_together(tmp_path: Path, capfd: Capture) -> None:
    def refused(*words: object) -> None:
        assert_refused(capfd, ["--weights", tmp_path / "my-model-00001-of-00003.gguf"], *words)

    files = split(tmp_path)
    shutil.copyfile(files[1], files[2])
    refused(files[2], "it is called part 3 of 3 and is another")
    split(tmp_path)
    files[2].write_bytes(gguf_bytes(of_part(2, 3), SOUND[3:]))
    refused(files[2], "it has the tensor", "and so has an earlier part")
    files[2].write_bytes(gguf_bytes(of_part(2, 3), SOUND[-2:]))
    refused(files[0], f"its 3 parts have 12 tensors, and it says {len(SOUND)}")
    files[2].write_bytes(files[2].read_bytes()[:-40])
    refused(files[2], "cut short")
    files[2].write_bytes(gguf_bytes({}, SOUND[-2:]))
    refused(files[2], "it is called part 3 of 3 and is another")
    files[0].write_bytes(gguf_bytes(ALL | of_part(3, 3), []))
    refused(files[0], "its split.no is 3 and its split.count 3, which cannot be")
    files[0].write_bytes(gguf_bytes(ALL | of_part(0, 3) | {"split.count": "three"}, []))
    refused(files[0], "split.count must be of type int")


NO_MODELS: dict[str, tuple[dict[str, Any], list[Info], str]] = {
    "an adapter": (
        {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"},
        [info("blk.0.attn_q.weight.lora_a", np.ones((2, 64), np.float32))],
        "it is a LoRA adapter: name it with --lora",
    ),
    "an imatrix": ({"general.type": "imatrix"}, [], "it is an importance matrix, by which others quantize"),
    "an older imatrix": (
        {}, [info("blk.0.attn_q.weight.in_sum2", np.ones(64, np.float32))], "it is an importance matrix"
    ),
    "a projector": ({"general.type": "mmproj", "general.architecture": "clip"}, [], "a model that sees or hears"),
    "an older projector": ({"general.architecture": "clip"}, [], "the part of a model that sees or hears"),
    "a control vector": (
        {"general.architecture": "controlvector"}, [info("direction.1", np.ones(64, np.float32))], "a control vector"
    ),
    "a vocabulary": (ALL, [], "it is a vocabulary without weights: name it with --tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_is_told_what_it_is(name: str, tmp_path: Path, capfd: Capture) -> None:
    settings, tensors, words = NO_MODELS[name]
    file = tmp_path / "file.gguf"
    file.write_bytes(gguf_bytes(settings, tensors))
    assert_refused(capfd, ["--weights", file], file, words)


@pytest.mark.parametrize("name", ["model.gguf", "ggml-model-q4_0.bin", "model.safetensors"])
def test_files_from_before_gguf(name: str, tmp_path: Path, capfd: Capture) -> None:
    file = tmp_path / name
    for magic, words in (
        (b"tjgg\3\0\0\0", "from before GGUF (convert the model anew)"),
        (b"algg\1", "LoRA adapter of"),
    ):
        file.write_bytes(magic + b"\xff" * 300)
        assert_refused(capfd, ["--weights", file], file, words)


def test_settings_alone_are_no_whole_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf_bytes(SETTINGS, []))
    with pytest.raises(ValueError, match=r"it has no tensor token_embd\.weight: it holds no whole model"):
        open_checkpoint(tmp_path)
