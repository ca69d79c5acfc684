from pathlib import Path

import numpy as np
import pytest

from minillama.runtime.packing import quantize
from minillama.weights import safetensors
from minillama.weights.formats import narrow, widen
from minillama.weights.quantized import RawTensor
from minillama.weights.safetensors import ArrayTensor, Tensor, open_safetensors
from minillama.weights.streaming import ConvertedTensor, floats, pieces
from tests.tiny import spiky, write_safetensors

X = spiky(np.random.default_rng(11), 70, 33).astype(np.float32)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("safetensors", "streaming"):
        monkeypatch.setattr(f"minillama.weights.{module}.PIECE", 1000)


def mapped(folder: Path, name: str) -> Tensor:
    write_safetensors(folder / "x.safetensors", {"x": narrow(X, name)})
    return open_safetensors(folder / "x.safetensors")[0]["x"]


def joined(parts: object) -> np.ndarray:
    return np.concatenate([part.copy() for part in parts])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_pieces_of_a_file_are_its_numbers_in_their_order(name: str, tmp_path: Path) -> None:
    tensor = mapped(tmp_path, name)
    sizes = [piece.nbytes for piece in pieces(tensor)]
    assert max(sizes) <= 1000
    assert len(sizes) > 4
    np.testing.assert_array_equal(joined(pieces(tensor)), narrow(X, name).reshape(-1))
    np.testing.assert_array_equal(joined(floats(tensor)), widen(narrow(X, name), name, np.float32).reshape(-1))


def test_arrays_in_memory_come_in_rows_whatever_their_order() -> None:
    tensor = ArrayTensor(np.asfortranarray(X))
    assert len(list(pieces(tensor))) == 10  # 7 rows of 132 bytes are less than 1000
    np.testing.assert_array_equal(joined(pieces(tensor)), X.reshape(-1))
    np.testing.assert_array_equal(joined(pieces(RawTensor(np.arange(5, dtype=np.uint8), "U8"))), np.arange(5))
    assert joined(pieces(ArrayTensor(np.float32(3) * np.ones((), np.float32)))).tolist() == [3]
    assert sum(piece.size for piece in pieces(ArrayTensor(np.ones((0, 4), np.float32)))) == 0


def test_quantized_numbers_widen_to_what_they_stand_for() -> None:
    tensor = quantize(ArrayTensor(X), "q4_0")
    np.testing.assert_array_equal(joined(floats(tensor)).reshape(X.shape), tensor.read(np.float32))


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16"])
def test_another_format_is_the_nearest_number(name: str, tmp_path: Path) -> None:
    converted = ConvertedTensor(mapped(tmp_path, "F32"), name)
    assert (converted.dtype, converted.shape) == (name, X.shape)
    np.testing.assert_array_equal(converted.stored(), narrow(X, name))
    np.testing.assert_array_equal(joined(pieces(converted)), narrow(X, name).reshape(-1))
    rows = np.array([[69, 0], [5, 5]])
    np.testing.assert_array_equal(converted.read(np.float32, rows), widen(narrow(X, name), name, np.float32)[rows])


def test_what_is_too_large_for_float16() -> None:
    x = X.copy()
    x[3, 4], x[5, 6], x[7, 8] = np.inf, np.nan, -7e4
    with pytest.raises(ValueError, match=r"w holds -70000, too large for float16: use bf16 or f32"):
        ConvertedTensor(ArrayTensor(x), "F16", "w").stored()
    x[7, 8] = 6e4
    np.testing.assert_array_equal(ConvertedTensor(ArrayTensor(x), "F16", "w").stored(), x.astype(np.float16))


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    tensor = mapped(tmp_path, "F32")
    with open(tmp_path / "x.safetensors", "r+b") as file:
        file.truncate(3000)
    with pytest.raises(ValueError, match="became shorter while it was in use"):
        list(pieces(tensor))
    assert safetensors.PIECE == 1000
