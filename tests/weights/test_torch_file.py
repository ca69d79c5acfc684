"""PyTorch files that are sound."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.llama import LlamaForCausalLM
from minillama.runtime.packing import pack
from minillama.weights import open_checkpoint
from minillama.weights.formats import narrow_bfloat16, widen
from minillama.weights.names import LM_HEAD
from minillama.weights.torch_file import open_torch_file
from tests.bad import CONFIG as BAD_CONFIG
from tests.bad import Capture, assert_runs, checkpoint, random_tensors
from tests.tiny import assert_close, random_ids, random_weights, spiky, tiny_config
from tests.weights.torch_files import (
    ORDERED,
    PERSID,
    STORAGES,
    Raw,
    View,
    called,
    named,
    opcodes,
    pickled,
    torch_bytes,
    torch_save,
    viewed,
)

CONFIG = tiny_config()
WEIGHTS = random_weights(CONFIG, 60)
NUMBERS = np.arange(1, 61, dtype=np.float32) ** 2  # of a storage; no two alike


def written(tmp_path: Path, values: Any, storages: dict[str, bytes] | None = None, **how: Any) -> Any:
    file = tmp_path / "a.pth"
    file.write_bytes(torch_bytes(pickled(values), {"0": NUMBERS.tobytes()} if storages is None else storages, **how))
    return open_torch_file(file)


def view(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> View:
    return View("0", "Float", 60, offset, shape, strides)


# -- one file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORAGES)
def test_numbers_of_every_kind(kind: str, tmp_path: Path) -> None:
    array = spiky(np.random.default_rng(1), 5, 3).astype(kind)
    tensor = open_torch_file(torch_save({"a": array}, tmp_path / "a.pth"))["a"]
    assert tensor.shape == (5, 3)
    assert tensor.stored().dtype == kind
    np.testing.assert_array_equal(tensor.stored(), array)
    expected = widen(array, tensor.dtype, np.float32)
    np.testing.assert_array_equal(tensor.read(np.float32), expected)
    np.testing.assert_array_equal(tensor.read(np.float32, np.array([[4, 0], [2, 2]])), expected[[[4, 0], [2, 2]]])


VIEWS = {
    "dense": (0, (6, 10), (10, 1)),
    "from an offset": (7, (4, 5), (5, 1)),
    "transposed": (0, (10, 6), (1, 10)),
    "every other column": (1, (6, 5), (10, 2)),
    "three sides": (3, (2, 3, 4), (20, 4, 1)),
    "a scalar": (59, (), ()),
    "nothing": (60, (0, 7), (7, 1)),
    "a side of one with any stride": (5, (1, 4), (2**62, 3)),
}


@pytest.mark.parametrize("case", VIEWS)
def test_views_of_a_storage(case: str, tmp_path: Path) -> None:
    offset, shape, strides = VIEWS[case]
    tensor = written(tmp_path, {"a": view(offset, shape, strides)})["a"]
    expected = np.empty(shape, np.float32)
    for index in np.ndindex(shape):
        expected[index] = NUMBERS[offset + sum(i * stride for i, stride in zip(index, strides, strict=True))]
    assert tensor.shape == shape
    np.testing.assert_array_equal(tensor.stored(), expected)
    for dtype in (np.float32, np.float64):
        read = tensor.read(dtype)
        np.testing.assert_array_equal(read, expected)
        assert read.flags.c_contiguous
        assert read.flags.aligned
    if shape and shape[0] > 2:
        np.testing.assert_array_equal(tensor.read(np.float32, np.array([2, 0])), expected[[2, 0]])


@pytest.mark.parametrize("form", ["f32", "f16"])
def test_a_transposed_matrix_is_packed_for_kernels(form: str, tmp_path: Path) -> None:
    stored = np.arange(96, dtype=np.float32).reshape(16, 6)  # whole numbers that float16 has too
    tensor = written(tmp_path, {"a": View("0", "Float", 96, 0, (6, 16), (1, 6))}, {"0": stored.tobytes()})["a"]
    rows = pack(tensor, form).numbers.reshape(-1, 16).view(np.float32 if form == "f32" else np.float16)
    np.testing.assert_array_equal(rows, stored.T)


def test_tensors_share_a_storage(tmp_path: Path) -> None:
    tensors = written(tmp_path, {"a": view(0, (6, 10), (10, 1)), "b": view(10, (20,), (1,))})
    assert np.shares_memory(tensors["a"].stored(), tensors["b"].stored())
    np.testing.assert_array_equal(tensors["a"].stored()[1:3].ravel(), tensors["b"].stored())


def test_numbers_are_mapped(tmp_path: Path) -> None:
    tensor = written(tmp_path, {"a": view(0, (60,), (1,))})["a"]
    assert np.shares_memory(
        tensor.stored(), tensor.read(np.float32) if tensor.stored().flags.aligned else tensor.stored()
    )
    assert not tensor.stored().flags.writeable


@pytest.mark.parametrize("kind", [">f4", ">f2", ">i8", ">u2"])
def test_a_file_of_a_big_endian_machine(kind: str, tmp_path: Path) -> None:
    array = spiky(np.random.default_rng(2), 4, 3).astype(kind)
    little = array.astype(array.dtype.newbyteorder("<"))
    more = {"byteorder": b"big"}
    tensor = written(tmp_path, {"a": viewed("0", little)}, {"0": array.tobytes()}, more=more)["a"]
    assert tensor.stored().dtype == little.dtype
    np.testing.assert_array_equal(tensor.stored(), little)
    np.testing.assert_array_equal(tensor.read(np.float32, np.array([3, 1])), tensor.read(np.float32)[[3, 1]])


PARAMETER = called("torch._utils", "_rebuild_parameter", view(0, (60,), (1,)), True, Raw(ORDERED))
UNTYPED = Raw(opcodes(("storage", named("torch.storage", "UntypedStorage"), "0", "cpu", 240)) + PERSID)
WAYS: dict[str, Any] = {
    "a parameter": {"a": PARAMETER},
    "an OrderedDict": Raw(ORDERED + b"(" + opcodes("a") + opcodes(PARAMETER) + b"u"),
    "with the versions of modules": Raw(
        ORDERED + opcodes("a") + opcodes(PARAMETER) + b"s" + opcodes({"_metadata": Raw(ORDERED)}) + b"b"
    ),
    "a size of its own class": {
        "a": called("torch._utils", "_rebuild_parameter", view(0, called("torch", "Size", (60,)), (1,)), False, {})
    },
    "an untyped storage": {
        "a": called("torch._utils", "_rebuild_tensor_v3", UNTYPED, 0, (60,), (1,), False, {}, named("torch", "float32"))
    },
    "protocol 4": Raw(
        b"\x95" + bytes(8) + b"}\x94\x8c\x01a\x94\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93\x94"
        b"(" + UNTYPED.replace(named("torch.storage", "UntypedStorage"), named("torch", "FloatStorage")).replace(
            opcodes(240), opcodes(60)
        ) + opcodes(0) + opcodes((60,)) + opcodes((1,)) + b"\x89" + ORDERED + b"tR\x94s"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WAYS)
def test_every_way_in_which_a_tensor_is_written(case: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(written(tmp_path, WAYS[case])["a"].stored(), NUMBERS)


@pytest.mark.parametrize("wrap", ["state_dict", "model", "anything"])
def test_weights_within_a_checkpoint_of_a_training_program(wrap: str, tmp_path: Path) -> None:
    beside = {"epoch": 3, "loss": 0.5, "done": True, "note": None, "sizes": [1, 2**40], "optimizer": {"state": {}}}
    assert open_torch_file(torch_save(WEIGHTS, tmp_path / "a.pt", wrap, **beside)).keys() == WEIGHTS.keys()


def test_the_usual_name_counts_where_other_tensors_lie_beside(tmp_path: Path) -> None:
    values = {"ema": {"a": view(1, (2,), (1,))}, "state_dict": {"a": view(0, (60,), (1,))}, "epoch": 1}
    assert written(tmp_path, values)["a"].shape == (60,)


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    assert written(tmp_path, {"a": view(0, (60,), (1,)), "step": 4, "none": None}).keys() == {"a"}


# -- checkpoints under Hugging Face's names -----------------------------------------------------------------------


def logits_of(path: Path, **how: Any) -> Any:
    return LlamaForCausalLM.from_pretrained(path, dtype="float64", **how)(random_ids(61, 1, 5)).logits


def expected_logits() -> Any:
    return LlamaForCausalLM(CONFIG, WEIGHTS, dtype="float64")(random_ids(61, 1, 5)).logits


def write_sharded(folder: Path, shards: int = 3) -> Path:
    weight_map = {}
    for n in range(shards):
        file = f"pytorch_model-{n + 1:05}-of-{shards:05}.bin"
        part = dict(list(WEIGHTS.items())[n::shards])
        torch_save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    total = sum(array.nbytes for array in WEIGHTS.values())
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    CONFIG.save_pretrained(folder)
    return index


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pth", "weights.pt"])
@pytest.mark.parametrize("by", ["folder", "file"])
def test_one_file(name: str, by: str, tmp_path: Path) -> None:
    torch_save(WEIGHTS, tmp_path / name)
    CONFIG.save_pretrained(tmp_path)
    assert_close(logits_of(tmp_path if by == "folder" else tmp_path / name), expected_logits())


@pytest.mark.parametrize("by", ["folder", "index", "shard"])
def test_several_files_with_an_index(by: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = write_sharded(tmp_path)
    named_by = {"folder": tmp_path, "index": index, "shard": tmp_path / "pytorch_model-00002-of-00003.bin"}
    assert_close(logits_of(named_by[by]), expected_logits())
    assert not caplog.records


def test_safetensors_come_first(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"nothing")
    assert open_checkpoint(tmp_path).config.hidden_size == 16


def test_a_config_is_guessed_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(head_dim=128)
    torch_save(random_weights(config, 63), tmp_path / "a.pth")
    with caplog.at_level(logging.WARNING, "minillama"):
        assert open_checkpoint(tmp_path / "a.pth").config.head_dim == 128
    assert "no config.json beside it" in caplog.text


def test_bfloat16_and_a_tied_head(tmp_path: Path) -> None:
    config = tiny_config(tie_word_embeddings=True)
    weights = {name: narrow_bfloat16(array) for name, array in random_weights(config).items() if name != LM_HEAD}
    torch_save(weights, tmp_path / "pytorch_model.bin")
    config.save_pretrained(tmp_path)
    for name, tensor in open_checkpoint(tmp_path).tensors.items():
        assert tensor.dtype == "BF16"
        if name != LM_HEAD:
            np.testing.assert_array_equal(tensor.stored(), weights[name])


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_the_command_tells_the_same_story(engine: str, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "safetensors")
    arguments = ["--engine", engine, "--max-new-tokens", 6, "--temperature", 0, "--weights"]
    story = assert_runs(capfd, [*arguments, folder])
    other = checkpoint(tmp_path / "torch")
    torch_save(random_tensors(BAD_CONFIG), other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    assert assert_runs(capfd, [*arguments, other]) == story
