from pathlib import Path

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.runtime.packing import quantize
from minillama.weights import mapped as mapped_file
from minillama.weights.drawn import ResizedTensor
from minillama.weights.formats import narrow, widen
from minillama.weights.grouping import PooledTensor
from minillama.weights.interleaved import InterleavedTensor
from minillama.weights.joined import JoinedTensor
from minillama.weights.lora import MergedTensor, Pair
from minillama.weights.quantized import RawTensor
from minillama.weights.safetensors import ArrayTensor, Tensor, open_safetensors
from minillama.weights.streaming import ConvertedTensor, floats, pieces
from tests.tiny import spiky, write_safetensors

X = spiky(np.random.default_rng(11), 70, 33).astype(np.float32)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mapped", "streaming"):
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


class Watched(ArrayTensor):
    """Knows how many rows it was read by, at most."""

    most = 0

    def stored(self, rows: Array | None = None) -> Array:
        Watched.most = max(Watched.most, len(self.array) if rows is None else rows.size)
        return super().stored(rows)


def views() -> dict[str, Tensor]:
    half = Watched(X[:35]), Watched(X[35:])
    left, right = Watched(X[:, :11]), Watched(X[:, 11:22])
    pair = Pair(ArrayTensor(X[:4]), ArrayTensor(X[:, :4].copy()), 4, 0.5)
    table = Pair(ArrayTensor(np.resize(X, (4, 70))), ArrayTensor(X[:7, :4].copy()), 4, 0.5, True)
    return {
        "rows of q": InterleavedTensor(Watched(X), 7),
        "parts one below the other": JoinedTensor(half, 0),
        "parts side by side": JoinedTensor((left, right), 1),
        "rows of parts": InterleavedTensor(JoinedTensor(half, 0), 7),
        "pooled heads": PooledTensor(Watched(X), 10, 5),
        "an adapter": MergedTensor(Watched(X), pair),
        "an adapter of a table": MergedTensor(Watched(X[:, :7]), table),
        "further rows": ResizedTensor(Watched(X), ArrayTensor(X), 90),
        "another format of a view": ConvertedTensor(InterleavedTensor(Watched(X), 7), "BF16"),
    }


@pytest.mark.parametrize("what", views())
def test_views_of_tensors_come_a_few_rows_at_a_time(what: str) -> None:
    tensor, Watched.most = views()[what], 0
    parts = [part.copy() for part in pieces(tensor)]
    rows = 64 if "adapter" in what else 1000 // (4 * tensor.shape[1])
    assert max(part.size for part in parts) <= rows * tensor.shape[1]
    assert 0 < Watched.most <= rows
    expected = tensor.stored(np.arange(tensor.shape[0]))
    np.testing.assert_array_equal(np.concatenate(parts).reshape(tensor.shape), expected)
    wide = tensor.read(np.float32, np.arange(tensor.shape[0]))
    np.testing.assert_array_equal(joined(floats(tensor)).reshape(tensor.shape), wide)


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
    assert mapped_file.PIECE == 1000
