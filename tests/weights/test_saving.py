import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from minillama.files import write_files
from minillama.weights.safetensors import ArrayTensor, open_safetensors
from minillama.weights.saving import main_dtype, other_weight_files, parse_size, weight_files, written_bytes


def tensors(*dtypes: str) -> dict[str, ArrayTensor]:
    rng = np.random.default_rng(60)
    return {f"t{i}": ArrayTensor(rng.standard_normal((3, i + 2)).astype(d)) for i, d in enumerate(dtypes)}


def test_what_is_written_is_read_back_by_the_formats_own_library(tmp_path: Path) -> None:
    made = tensors("float16", "float64", "float32")
    made["transposed"] = ArrayTensor(np.arange(6, dtype=np.float32).reshape(2, 3).T)
    write_files(weight_files(tmp_path, made, "5GB"))
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == made.keys()
    for name, tensor in made.items():
        assert loaded[name].dtype == tensor.array.dtype
        np.testing.assert_array_equal(loaded[name], tensor.array)
    read, metadata = open_safetensors(tmp_path / "model.safetensors")
    assert metadata == {"format": "pt"}
    assert all(tensor.offset % 8 == 0 for name, tensor in read.items() if tensor.dtype == "F64")


def test_shards_are_filled_in_order_and_the_index_says_what_is_where(tmp_path: Path) -> None:
    made = tensors("float32", "float32", "float32", "float32")  # 24, 36, 48 and 60 bytes
    write_files(weight_files(tmp_path, made, 61))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    one, two, three = (f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))
    assert index == {
        "metadata": {"total_size": 168},
        "weight_map": {"t0": one, "t1": one, "t2": two, "t3": three},
    }
    np.testing.assert_array_equal(load_file(tmp_path / two)["t2"], made["t2"].array)


def test_a_tensor_larger_than_a_shard_has_one_of_its_own(tmp_path: Path) -> None:
    files = weight_files(tmp_path, tensors("float64", "float16", "float16"), 20)
    assert len(files) == 4  # three shards and the index


def test_files_of_an_earlier_checkpoint_are_found(tmp_path: Path) -> None:
    names = ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    others = ["model.safetensors.md", "model-1-of-2.safetensors", "other.safetensors", "config.json"]
    for name in names + others:
        (tmp_path / name).touch()
    old = other_weight_files(tmp_path, {tmp_path / "model.safetensors": b""})
    assert sorted(file.name for file in old) == sorted(names[1:])


def test_the_format_of_most_numbers_is_stamped() -> None:
    assert main_dtype(tensors("float64", "float16")) == "float64"
    assert main_dtype(tensors("float32", "float16", "float16", "float16", "float16")) == "float16"


@pytest.mark.parametrize(
    ("size", "count"), [(17, 17), ("17", 17), ("5GB", 5 * 10**9), ("1.5 kb", 1500), ("2MiB", 2 << 20), ("1B", 1)]
)
def test_sizes(size: int | str, count: int) -> None:
    assert parse_size(size) == count


@pytest.mark.parametrize("size", ["", "GB", "5 XB", "-1", 0, "0GB", "1e3"])
def test_what_is_no_size(size: int | str) -> None:
    with pytest.raises(ValueError, match="max_shard_size must be a number of bytes or a text such as '5GB'"):
        parse_size(size)


@pytest.mark.parametrize("size", ["5GB", 61])
def test_progress_is_told_every_byte(size: int | str, tmp_path: Path) -> None:
    told: list[int] = []
    made = tensors("float32", "float16", "float64")
    write_files(weight_files(tmp_path, made, size, told.append))
    assert sum(told) == written_bytes(made) == 24 + 18 + 96
