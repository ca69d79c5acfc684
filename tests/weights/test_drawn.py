import numpy as np
import pytest
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.weights import drawn
from minillama.weights.drawn import DrawnTensor, ResizedTensor, draw_tensors
from minillama.weights.formats import narrow_bfloat16, widen
from minillama.weights.names import EMBED_TOKENS, LM_HEAD, SCORE, expected_shapes
from minillama.weights.safetensors import ArrayTensor
from tests.tiny import tiny_config


class Stored:
    """A tensor of bfloat16 bits."""

    dtype = "BF16"

    def __init__(self, bits: Array):
        self.bits, self.shape = bits, bits.shape

    def stored(self, rows: Array | None = None) -> Array:
        return self.bits if rows is None else self.bits[rows]

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return widen(self.stored(rows), "BF16", dtype)


def test_a_matrix_is_normal() -> None:
    numbers = DrawnTensor((300, 200), 0.05, [3]).read(np.float64) / 0.05
    # 60,000 draws: the mean is off by 1/245, the deviation by 1/346 in a typical sample; five times that is allowed
    assert abs(numbers.mean()) < 5 / 245
    assert abs(numbers.std() - 1) < 5 / 346
    inside = [np.mean(np.abs(numbers) < k) for k in (1, 2, 3)]
    np.testing.assert_allclose(inside, [0.6827, 0.9545, 0.9973], atol=5 * 0.5 / 245)  # not cut off anywhere


def test_the_same_seed_draws_the_same_and_another_another() -> None:
    first = DrawnTensor((5, 7), 1, [3]).stored()
    np.testing.assert_array_equal(first, DrawnTensor((5, 7), 1, [3]).stored())
    assert np.abs(first - DrawnTensor((5, 7), 1, [4]).stored()).max() > 0.1


def test_rows_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "BLOCK", 20)  # two rows
    tensor = DrawnTensor((9, 8), 0.1, [5], zero_row=3)
    whole = tensor.read(np.float32)
    assert not whole[3].any()
    assert (whole[[0, 1, 2, 4, 5, 6, 7, 8]] != 0).all()
    ids = np.array([[8, 3, 0], [5, 5, 7]])
    rows = tensor.read(np.float64, ids)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, whole[ids])


def test_a_new_model_has_every_tensor_once() -> None:
    config = tiny_config(attention_bias=True, pad_token_id=4, initializer_range=0.5)
    tensors = draw_tensors(config, 0, LM_HEAD)
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected_shapes(config)
    arrays = {name: tensor.stored() for name, tensor in tensors.items()}
    assert (arrays["model.norm.weight"] == 1).all()
    assert not arrays["model.layers.1.self_attn.o_proj.bias"].any()
    assert not arrays[EMBED_TOKENS][4].any()
    assert arrays[LM_HEAD][4].all()
    matrices = [array.ravel() for array in arrays.values() if array.ndim == 2]
    assert len({array[:3].tobytes() for array in matrices}) == len(matrices)  # no two begin alike
    np.testing.assert_allclose(np.concatenate(matrices).std(), 0.5, rtol=0.05)  # of 4,400 numbers: 1% is typical


def test_a_tensor_does_not_depend_on_its_neighbours() -> None:
    causal, classifier = (draw_tensors(tiny_config(), 7, head) for head in (LM_HEAD, SCORE))
    for name in causal.keys() & classifier.keys():
        np.testing.assert_array_equal(causal[name].stored(), classifier[name].stored())
    tied = draw_tensors(tiny_config(tie_word_embeddings=True), 7, LM_HEAD)
    assert tied[LM_HEAD] is tied[EMBED_TOKENS]


def test_more_rows_are_in_the_format_of_those_there() -> None:
    bits = narrow_bfloat16(np.arange(6, dtype=np.float32).reshape(2, 3))
    grown = ResizedTensor(Stored(bits), ArrayTensor(np.full((5, 3), 0.3)), 4)
    assert (grown.dtype, grown.shape, grown.stored().dtype) == ("BF16", (4, 3), np.uint16)
    # 0.3 to the eight bits of a bfloat16
    np.testing.assert_array_equal(grown.read(np.float64), [[0, 1, 2], [3, 4, 5], [0.30078125] * 3, [0.30078125] * 3])
    np.testing.assert_array_equal(grown.read(np.float32, np.array([3, 1])), [[0.30078125] * 3, [3, 4, 5]])
    fewer = ResizedTensor(Stored(bits), ArrayTensor(np.zeros((5, 3))), 1)
    np.testing.assert_array_equal(fewer.read(np.float32), [[0, 1, 2]])


def test_no_two_blocks_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "BLOCK", 20)  # two rows
    rows = DrawnTensor((9, 8), 0.1, [5]).stored()
    assert len({row.tobytes() for row in rows}) == 9


@pytest.mark.parametrize("padding", [0, 4, 8])
def test_the_row_of_padding_is_zero_in_any_block(padding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "BLOCK", 24)  # three rows
    tensor = DrawnTensor((9, 8), 0.1, [5], zero_row=padding)
    zero = [not row.any() for row in tensor.stored()]
    assert zero == [row == padding for row in range(9)]


def test_of_a_resized_table_only_the_rows_asked_for_are_read() -> None:
    class Watched(Stored):
        asked: list[list[int]] = []  # noqa: RUF012  # of this one class, in this one test

        def stored(self, rows: Array | None = None) -> Array:
            self.asked.append(rows.tolist())
            return super().stored(rows)

    bits = narrow_bfloat16(np.arange(12, dtype=np.float32).reshape(4, 3))
    grown = ResizedTensor(Watched(bits), DrawnTensor((6, 3), 0.1, [2]), 6)
    rows = grown.read(np.float32, np.array([[1, 5], [4, 3]]))
    assert Watched.asked == [[1, 3]]
    np.testing.assert_array_equal(rows[[0, 1], [0, 1]], [[3, 4, 5], [9, 10, 11]])
    assert (rows[0, 1] != rows[1, 0]).all()
    np.testing.assert_array_equal(
        rows[[0, 1], [1, 0]], ResizedTensor(Stored(bits), grown.further, 6).read(np.float32)[[5, 4]]
    )
