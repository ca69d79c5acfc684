"""Quantized checkpoints: what is written, read again, and refused. Needs the kernels, which quantize."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama import LlamaForCausalLM
from minillama.runtime.packing import quantize
from minillama.weights.quantized import QuantizedTensor, provenance, put_together, spelled_out
from minillama.weights.safetensors import ArrayTensor, open_safetensors
from tests.tiny import random_ids, random_weights, spiky, tiny_config

FORMS = pytest.mark.parametrize("form", ["q8_0", "q4_0"])


@FORMS
def test_rows_are_those_of_the_whole(form: str) -> None:
    w = spiky(np.random.default_rng(3), 1100, 40).astype(np.float32)  # more than 64 tiles, none of them whole groups
    tensor = quantize(ArrayTensor(w), form)
    whole = tensor.read(np.float64)
    assert whole.shape == (1100, 40)
    rows = np.array([[1099, 0], [17, 17]])
    np.testing.assert_array_equal(tensor.read(np.float64, rows), whole[rows])
    # half a step of a group's scale: largest / 127 or, for a number that may be on the other side, largest / 8
    assert np.abs(whole - w).max() <= np.abs(w).max() / (127 * 2 if form == "q8_0" else 8) * 1.01


@FORMS
def test_a_matrix_is_two_tensors_in_a_file(form: str) -> None:
    w = np.random.default_rng(4).standard_normal((20, 32)).astype(np.float32)
    made = {"a.weight": quantize(ArrayTensor(w), form), "b": ArrayTensor(w)}
    written = spelled_out(made)
    assert list(written) == [f"a.weight.{form}", "a.weight.scales", "b"]
    again = put_together(written, {"a.weight": (20, 32), "b": (20, 32)})
    assert list(again) == ["b", "a.weight"]
    np.testing.assert_array_equal(again["a.weight"].read(np.float32), made["a.weight"].read(np.float32))
    notes = provenance(made)
    assert notes["source_crc32.a.weight"] == f"{zlib.crc32(w.tobytes()):08x}"
    error = np.sqrt(((made["a.weight"].read(np.float64) - w) ** 2).sum() / (w.astype(float) ** 2).sum())
    assert float(notes["relative_error.a.weight"]) == pytest.approx(error, rel=1e-3)
    assert float(notes["relative_error_of_ggml.a.weight"]) >= float(notes["relative_error.a.weight"])


def test_parts_that_do_not_fit() -> None:
    w = quantize(ArrayTensor(np.ones((20, 32), np.float32)), "q8_0")
    parts = spelled_out({"a": w})
    with pytest.raises(ValueError, match=r"a\.q8_0 has no a\.scales beside it"):
        put_together({"a.q8_0": parts["a.q8_0"]}, {"a": (20, 32)})
    with pytest.raises(ValueError, match=r"a\.q8_0: 1024 bytes and 32 scales are no q8_0 matrix of \(40, 32\)"):
        put_together(parts, {"a": (40, 32)})
    with pytest.raises(ValueError, match="must be U8 and F16, not U8 and U8"):
        put_together(parts | {"a.scales": parts["a.q8_0"]}, {"a": (20, 32)})


def saved(folder: Path, form: str, **config: Any) -> LlamaForCausalLM:
    settings = tiny_config(**config)
    model = LlamaForCausalLM(settings, random_weights(settings), engine="numba", dtype=form)
    model.save_pretrained(folder)
    return model


@FORMS
@pytest.mark.parametrize("tied", [False, True])
def test_there_and_back_again(form: str, tied: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, ids = saved(tmp_path, form, tie_word_embeddings=tied), random_ids(5, 1, 9)
    again = LlamaForCausalLM.from_pretrained(tmp_path, engine="numba")
    assert (again.form, caplog.text) == (form, "")
    rows = ids.tolist()
    np.testing.assert_array_equal(again.new_engine().prefill(rows), model.new_engine().prefill(rows))
    floats = LlamaForCausalLM.from_pretrained(tmp_path, engine="numpy")  # which reads the same weights
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(floats.state_dict()[name], array)
    for name, tensor in again.weights.tensors.items():
        if isinstance(tensor, QuantizedTensor):
            assert tensor.numbers.ctypes.data % 64 == 0, name  # mapped where vectors may begin
    np.testing.assert_array_equal(
        again.state_dict()["model.layers.1.mlp.up_proj.weight"], floats.weights.layers[1].up_proj
    )


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    saved(tmp_path, "q4_0")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "minillama", "version": 1, "format": "q4_0"}
    tensors, notes = open_safetensors(tmp_path / "model.safetensors")
    assert tensors["model.layers.0.mlp.up_proj.weight.q4_0"].dtype == "U8"
    assert tensors["model.layers.0.mlp.up_proj.weight.scales"].dtype == "F16"
    assert tensors["model.embed_tokens.weight"].dtype == "F32"  # rows are read of it, so it stays as it is
    assert len(notes["source_crc32.lm_head.weight"]) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "is quantized in version 2 of the format, and this program knows 1"),
        ({"quant_method": "gptq"}, r"is quantized by GPTQ \(q8_0\), which is not read"),
    ],
)
def test_other_quantizations(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path, "q8_0")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        LlamaForCausalLM.from_pretrained(tmp_path)


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    config = tiny_config()
    weights = random_weights(config)
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = np.inf
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.up_proj\.weight cannot be quantized: it holds a NaN"):
        LlamaForCausalLM(config, weights, engine="numba", dtype="q8_0")


def test_a_quantized_table_is_not_resized() -> None:
    config = tiny_config()
    model = LlamaForCausalLM(config, random_weights(config), engine="numba", dtype="q8_0")
    with pytest.raises(ValueError, match=r"lm_head\.weight is quantized and cannot be resized"):
        model.resize_token_embeddings(50)
