from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from minillama import convert
from minillama.layout import BLOCK, COMPRESSED, GROUP, MADE, PACKED, QUANTIZED, TILE
from minillama.llama import LlamaForCausalLM
from minillama.runtime import NumbaEngine
from minillama.runtime.packing import KINDS, STORED, aligned, pack, quantize, row_width
from minillama.weights import open_checkpoint
from minillama.weights.formats import narrow, widen
from minillama.weights.gguf_file import read_gguf
from minillama.weights.gguf_tensors import TiledTensor, tensor_of
from minillama.weights.mapped import mappings_of
from minillama.weights.names import layer_name
from minillama.weights.safetensors import ArrayTensor, StoredTensor, Tensor, open_safetensors
from minillama.weights.tiles import FORMATS
from tests.ggufs import KINDS as KINDS_OF_GGUF
from tests.ggufs import Info, gguf_bytes
from tests.tiny import odd_model, spiky, write_safetensors

FLOATS = tuple(form for form in KINDS if form not in PACKED)


def matrix(*shape: int) -> np.ndarray:
    return spiky(np.random.default_rng(71), *shape).astype(np.float32)


def in_file(tmp_path: Path, form: str, *shape: int) -> Tensor:
    file = tmp_path / "model.safetensors"
    write_safetensors(file, {"w": narrow(matrix(*shape), STORED[form])})
    return open_safetensors(file)[0]["w"]


@pytest.mark.parametrize("form", KINDS)
def test_rows_have_room_for_whole_groups(form: str) -> None:
    group = GROUP if form in QUANTIZED else BLOCK if form == COMPRESSED else 16
    assert [row_width(n, form) for n in (1, group, group + 1)] == [group, group, 2 * group]


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_room_begins_where_a_vector_may(kind: type) -> None:
    assert aligned(0, kind).shape == (0,)
    for size in (1, 1000):
        room = aligned(size, kind)
        assert (room.ctypes.data % 64, room.shape, room.dtype) == (0, (size,), kind)


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize("stored", FLOATS)
@pytest.mark.parametrize("shape", [(4, 16), (3, 16), (1, 5), (37, 20), (1030, 33)])
def test_floats_of_any_kind_in_rows_that_are_filled_up(
    form: str, stored: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    tensor = in_file(tmp_path, stored, *shape)
    numbers, _ = pack(tensor, form)
    n_out, size = shape
    assert numbers.dtype == KINDS[form]
    rows = numbers.reshape(-1, row_width(size, form))
    assert len(rows) >= max(n_out, 4)
    wanted = narrow(tensor.read(np.float32), STORED[form])
    np.testing.assert_array_equal(rows[:n_out, :size], wanted.view(KINDS[form]))
    assert (rows[:n_out, size:] == 0).all()
    assert (rows[n_out:] == 0).all()


def test_float16_refuses_what_it_rounds_to_infinity_and_keeps_what_is_infinite() -> None:
    """As converting does. An infinite weight is none that bf16 would help with: the pass that meets it names it."""
    x = matrix(8, 32)
    x[1, 2], x[3, 4], x[5, 6] = 65519, -np.inf, np.nan  # 65519 is nearer to 65504, the largest, than to 65536
    numbers = pack(ArrayTensor(x), "f16").numbers.view(np.float16).reshape(8, 32)
    assert numbers[1, 2] == 65504
    np.testing.assert_array_equal(numbers, x.astype(np.float16))
    x[7, 8] = -65520
    with pytest.raises(ValueError, match="too large for float16: use dtype bf16 or f32"):
        pack(ArrayTensor(x), "f16")


@pytest.mark.parametrize("form", FLOATS)
def test_what_fits_is_used_where_it_lies(form: str) -> None:
    stored = narrow(matrix(8, 32), STORED[form])
    tensor = ArrayTensor(matrix(8, 32))
    tensor.dtype, tensor.array = STORED[form], stored  # bfloat16 comes in files only
    assert np.shares_memory(pack(tensor, form).numbers, stored)
    assert not np.shares_memory(pack(tensor, "f32" if form != "f32" else "f16").numbers, stored)


@pytest.mark.parametrize("form", [form for form in KINDS if form not in QUANTIZED or form in MADE])
def test_the_file_that_packed_matrices_lie_in_is_known(form: str, tmp_path: Path) -> None:
    odd_model(tmp_path / "made")
    assert convert.main([str(tmp_path / "made"), str(tmp_path / "kept"), "--dtype", form]) == 0
    tensor = open_checkpoint(tmp_path / "kept").tensors[layer_name(1, "q_proj")]
    (mapping,) = mappings_of(pack(tensor, form))
    assert mapping.path == tmp_path / "kept" / "model.safetensors"
    assert mappings_of([np.zeros(3), np.frombuffer(b"abcd", np.uint8)]) == set()


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot shrink on Windows")
def test_a_file_that_shrinks_between_two_passes(tmp_path: Path) -> None:
    """Kernels read it where it lies, which would end the process. Here one byte goes, so that nothing else does."""
    odd_model(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path, engine="numba", threads=1)
    engine = model.new_engine()
    assert isinstance(engine, NumbaEngine)
    engine.prefill([[1, 5, 9]])
    engine.decode(np.array([7]))
    file = tmp_path / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1)
    for again in (lambda: engine.decode(np.array([7])), lambda: engine.model.lm_logits(np.zeros((2, 64), np.float32))):
        with pytest.raises(ValueError, match=rf"{re.escape(str(file))} became shorter while it was in use"):
            again()


@pytest.mark.parametrize("form", FLOATS)
def test_matrices_of_a_checkpoint_are_used_in_the_mapped_file(form: str, tmp_path: Path) -> None:
    """All of them, so that a model takes no memory of its own."""
    odd_model(tmp_path / "made")
    assert convert.main([str(tmp_path / "made"), str(tmp_path / "kept"), "--dtype", form]) == 0
    model = LlamaForCausalLM.from_pretrained(tmp_path / "kept", engine="numba")
    fast, tensors = model.new_engine().model, model.weights.tensors
    assert (fast.form, len(fast.packed)) == (form, 2 * 7 + 1)
    for name, packed in fast.packed.items():
        tensor = tensors[name]
        assert isinstance(tensor, StoredTensor), name
        assert np.shares_memory(packed.numbers, tensor.stored()), name


def test_what_a_file_has_at_an_odd_address_is_copied(tmp_path: Path) -> None:
    tensor = in_file(tmp_path, "f32", 8, 32)
    assert isinstance(tensor, StoredTensor)
    assert not tensor.stored().flags.aligned
    numbers, _ = pack(tensor, "f32")
    assert numbers.flags.aligned
    np.testing.assert_array_equal(numbers.reshape(8, 32), tensor.read(np.float32))


@pytest.mark.parametrize("form", MADE)
def test_quantized_matrices_are_used_as_they_are(form: str) -> None:
    tensor = quantize(ArrayTensor(matrix(20, 40)), form)
    numbers, scales = pack(tensor, form)
    assert (numbers.dtype, scales.dtype) == (KINDS[form], np.int16)
    assert np.shares_memory(numbers, tensor.numbers)
    assert np.shares_memory(scales, tensor.scales)
    assert scales.size == 2 * 2 * TILE
    assert [address % 64 for address in pack(tensor, form).addresses] == [0, 0]


@pytest.mark.parametrize("form", MADE)
def test_others_are_to_be_packed_first(form: str) -> None:
    other = "q4_0" if form == "q8_0" else "q8_0"
    for tensor, name in ((ArrayTensor(matrix(4, 32)), "F32"), (quantize(ArrayTensor(matrix(4, 32)), other), "Q")):
        with pytest.raises(ValueError, match=f"a {name}.* matrix is to be packed as {form} first"):
            pack(tensor, form)


@pytest.mark.parametrize("form", MADE)
@pytest.mark.parametrize("shape", [(1, 1), (16, 32), (37, 70), (2100, 40)])
def test_quantized_rows_are_read_in_any_order(form: str, shape: tuple[int, int]) -> None:
    tensor = quantize(ArrayTensor(matrix(*shape)), form)
    whole = tensor.read(np.float64)
    assert (tensor.shape, whole.shape, whole.dtype) == (shape, shape, np.float64)
    # q8_0 is off by half of a 127th of the largest number of a group, q4_0 by an eighth, or more where a search finds
    # that better; nothing in these matrices is above 25
    np.testing.assert_allclose(whole, matrix(*shape), atol=0.1 if form == "q8_0" else 5)
    rng = np.random.default_rng(72)
    for rows in (rng.integers(0, shape[0], 9), rng.integers(0, shape[0], (2, 3)), np.zeros(0, int)):
        np.testing.assert_array_equal(tensor.read(np.float32, rows), whole[rows])


@pytest.mark.parametrize("form", FLOATS)
def test_numbers_come_back_as_they_went_in(form: str) -> None:
    tensor = ArrayTensor(matrix(6, 16))
    numbers, _ = pack(tensor, form)
    name = STORED[form]
    stored = numbers.view(np.float16) if form == "f16" else numbers
    np.testing.assert_array_equal(
        widen(stored, name, np.float32).reshape(6, 16), widen(narrow(matrix(6, 16), name), name, np.float32)
    )


@pytest.mark.parametrize("heads", [None, 6])
@pytest.mark.parametrize("form", MADE)
def test_blocks_of_a_gguf_file_are_rearranged_as_numpy_rearranges_them(
    form: str, heads: int | None, tmp_path: Path
) -> None:
    """Any bytes, in rows that do not fill the last tile."""
    block = FORMATS[form]
    stored = np.random.default_rng(72).integers(0, 256, 36 * 2 * block.nbytes, np.uint8).tobytes()
    described = Info("x", (36, 2 * block.size), KINDS_OF_GGUF[form.upper()], stored)
    (tmp_path / "x.gguf").write_bytes(gguf_bytes({}, [described]))
    gguf = read_gguf(tmp_path / "x.gguf")
    tensor = tensor_of(gguf.file, gguf.tensors["x"], heads)
    assert isinstance(tensor, TiledTensor)
    packed = pack(tensor, form)
    np.testing.assert_array_equal(packed.numbers.view(np.uint8), tensor.numbers)
    np.testing.assert_array_equal(packed.scales.view(np.uint16), tensor.scales.view(np.uint16))
