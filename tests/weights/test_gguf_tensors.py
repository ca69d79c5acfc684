"""Tensors in blocks: the same numbers by rows, as a whole, and rearranged for the kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.weights.gguf_blocks import BLOCKS, q8_0
from minillama.weights.gguf_file import read_gguf
from minillama.weights.gguf_tensors import PIECE, BlockTensor, TiledTensor, tensor_of
from minillama.weights.names import interleaved_to_halves
from minillama.weights.quantized import QuantizedTensor
from minillama.weights.safetensors import Tensor
from tests.ggufs import KINDS, gguf_bytes, info, random_matrix

BLOCK_KINDS = [block.name for block in BLOCKS.values() if block.dequantize is not None]


def opened(folder: Path, kind: str, shape: tuple[int, int], heads: int | None = None) -> tuple[Tensor, Array]:
    """A random matrix in a file, and its numbers in the file's order."""
    stored = random_matrix(np.random.default_rng(5), shape, kind)
    (folder / "x.gguf").write_bytes(gguf_bytes({}, [info("x", stored, kind)]))
    gguf = read_gguf(folder / "x.gguf")
    dequantize = BLOCKS[KINDS[kind]].dequantize
    floats = stored.astype(np.float32)
    if dequantize is not None:
        floats = dequantize(stored.reshape(-1, BLOCKS[KINDS[kind]].nbytes)).reshape(shape)
    return tensor_of(gguf.file, gguf.tensors["x"], heads), floats


@pytest.mark.parametrize("heads", [None, 6])
@pytest.mark.parametrize("kind", ["F16", *BLOCK_KINDS])
def test_rows_and_the_whole(kind: str, heads: int | None, tmp_path: Path) -> None:
    tensor, floats = opened(tmp_path, kind, (36, 256), heads)
    if heads is not None:
        floats = interleaved_to_halves(floats, heads)
    assert tensor.shape == (36, 256)
    np.testing.assert_array_equal(tensor.read(np.float32), floats)
    np.testing.assert_array_equal(tensor.read(np.float64), floats.astype(np.float64))
    for rows in (np.array([3, 35, 0, 3]), np.array([[1, 2, 3], [6, 5, 4]]), np.zeros(0, np.int64)):
        np.testing.assert_array_equal(tensor.read(np.float32, rows), floats[rows])


def test_more_than_is_widened_at_a_time(tmp_path: Path) -> None:
    tensor, floats = opened(tmp_path, "Q5_1", (300, 4096))
    assert floats.size > PIECE
    np.testing.assert_array_equal(tensor.read(np.float32), floats)


@pytest.mark.parametrize("heads", [None, 6])
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("shape", [(36, 64), (96, 96), (12, 32), (324, 160)])
def test_tiles_hold_the_same_numbers(kind: str, shape: tuple[int, int], heads: int | None, tmp_path: Path) -> None:
    tensor, floats = opened(tmp_path, kind, shape, heads)
    assert isinstance(tensor, TiledTensor)
    rearranged = QuantizedTensor(tensor.form, tensor.shape, tensor.numbers, tensor.scales)
    expected = floats if heads is None else interleaved_to_halves(floats, heads)
    np.testing.assert_array_equal(rearranged.read(np.float32), expected)
    size = BLOCKS[KINDS[kind]].nbytes
    data = (tmp_path / "x.gguf").read_bytes()[-shape[0] * shape[1] // 32 * size :]
    stored = np.frombuffer(data, np.uint8).reshape(-1, size)
    scales = np.ascontiguousarray(stored[:, :2]).view("<f2").ravel()
    assert sorted(tensor.scales[tensor.scales != 0]) == sorted(scales)  # and none is another


def test_a_vector_in_blocks(tmp_path: Path) -> None:
    stored = random_matrix(np.random.default_rng(5), (1, 64), "Q8_0")
    (tmp_path / "x.gguf").write_bytes(gguf_bytes({}, [info("x", stored, "Q8_0")._replace(shape=(64,))]))
    gguf = read_gguf(tmp_path / "x.gguf")
    tensor = tensor_of(gguf.file, gguf.tensors["x"])
    floats = q8_0(stored.reshape(2, 34)).reshape(-1)
    np.testing.assert_array_equal(tensor.read(np.float32), floats)
    np.testing.assert_array_equal(tensor.read(np.float32, np.array([63, 0])), floats[[63, 0]])


def test_matrices_say_what_they_are_stored_in_and_vectors_are_read_as_float32(tmp_path: Path) -> None:
    assert opened(tmp_path, "Q6_K", (4, 256))[0].dtype == "Q6_K"
    stored = random_matrix(np.random.default_rng(5), (1, 256), "Q6_K")
    (tmp_path / "y.gguf").write_bytes(gguf_bytes({}, [info("x", stored, "Q6_K")._replace(shape=(256,))]))
    gguf = read_gguf(tmp_path / "y.gguf")
    tensor = tensor_of(gguf.file, gguf.tensors["x"])
    assert isinstance(tensor, BlockTensor)
    assert (tensor.dtype, tensor.packed) == ("F32", "Q6_K")


def test_what_a_file_has_let_go_of_is_read_again(tmp_path: Path) -> None:
    tensor, floats = opened(tmp_path, "Q4_K", (64, 2048))
    assert isinstance(tensor, TiledTensor)
    stored, _ = tensor.tensor.all_blocks()
    before = stored.copy()
    tensor.tensor.file.forget(tensor.tensor.offset, stored.nbytes)
    np.testing.assert_array_equal(stored, before)
    np.testing.assert_array_equal(tensor.read(np.float32), floats)
