"""Checkpoints in bf16z: what is written, read again, made of others, and refused. Needs the kernels, which compress."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minillama import LlamaForCausalLM, convert, generate
from minillama.arrays import Array
from minillama.layout import FAR, WORDS
from minillama.runtime.packing import compress
from minillama.weights.compressed import CompressedTensor
from minillama.weights.formats import narrow
from minillama.weights.quantized import RawTensor, provenance, put_together, spelled_out
from minillama.weights.safetensors import open_safetensors
from tests.tiny import random_ids, random_weights, spiky, tiny_config, write_safetensors

NAME = "model.layers.1.mlp.up_proj.weight"


def bfloat16(*shape: int) -> RawTensor:
    return RawTensor(narrow(spiky(np.random.default_rng(3), *shape).astype(np.float32), "BF16"), "BF16")


def saved(folder: Path, **config: object) -> dict[str, Array]:
    """A checkpoint in bfloat16; its bits."""
    settings = tiny_config(**config)
    bits = {name: narrow(array, "BF16") for name, array in random_weights(settings).items()}
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", bits)
    (folder / "config.json").write_text(settings.to_json_string())
    return bits


def test_a_matrix_is_two_tensors_in_a_file() -> None:
    source = bfloat16(21, 300)
    made = {"a.weight": compress(source), "b": source}
    written = spelled_out(made)
    assert [(name, tensor.dtype) for name, tensor in written.items()] == [
        ("a.weight.bf16z", "U32"), ("a.weight.rows", "I16"), ("b", "BF16"),
    ]  # fmt: skip
    again = put_together(written, {"a.weight": (21, 300), "b": (21, 300)})
    np.testing.assert_array_equal(again["a.weight"].read(np.float32), made["a.weight"].read(np.float32))
    notes = provenance(made)
    assert notes["source_crc32.a.weight"] == f"{zlib.crc32(source.array.tobytes()):08x}"
    assert sorted(notes) == ["crc32.a.weight", "source_crc32.a.weight"]


def test_parts_that_do_not_fit() -> None:
    parts = spelled_out({"a": compress(bfloat16(21, 300))})
    with pytest.raises(ValueError, match=r"a\.bf16z has no a\.rows beside it"):
        put_together({"a.bf16z": parts["a.bf16z"]}, {"a": (21, 300)})
    with pytest.raises(ValueError, match=r"a\.bf16z: \d+ words and what is said of their rows are no bf16z matrix"):
        put_together(parts, {"a": (22, 300)})
    with pytest.raises(ValueError, match="must be U32 and I16, not U32 and U32"):
        put_together(parts | {"a.rows": parts["a.bf16z"]}, {"a": (21, 300)})


@pytest.mark.parametrize(
    "change",
    [
        lambda words, rows: (words[:-16], rows),
        lambda words, rows: (np.append(words, words[:16]), rows),
        lambda words, rows: (_with(words, 3, words[3] + 1), rows),  # a row that begins elsewhere
        lambda words, rows: (_with(words, 0, 1 << 31), rows),
        lambda words, rows: (words, _with(rows, 1, rows[1] ^ 1)),  # a block of another size
        lambda words, rows: (words, _with(rows, 2, -1)),
        lambda words, rows: (words, _with(rows, 2, 121)),
        lambda words, rows: (words[:8], rows),
        lambda words, rows: (words, rows[:-1]),
    ],
)  # fmt: skip
def test_parts_that_would_lead_elsewhere_are_refused(change: Callable[[Array, Array], tuple[Array, Array]]) -> None:
    tensor = compress(bfloat16(21, 300))
    CompressedTensor(tensor.shape, tensor.numbers, tensor.rows)  # as it is, it is taken
    with pytest.raises(ValueError, match="are no bf16z matrix"):
        CompressedTensor(tensor.shape, *change(tensor.numbers, tensor.rows))


def _with(array: Array, place: int, value: int) -> Array:
    changed = array.copy()
    changed[place] = value
    return changed


def test_the_size_of_a_row_follows_from_its_blocks() -> None:
    numbers = np.ones((4, 300), np.float32)
    numbers[2, 140] = 1e-20
    tensor = compress(RawTensor(narrow(numbers, "BF16"), "BF16"))
    sizes = np.diff([*tensor.starts, tensor.numbers.size])
    assert sizes.tolist() == [3 * WORDS, 3 * WORDS, 2 * WORDS + FAR, 3 * WORDS]
    with pytest.raises(ValueError, match="are not stored by themselves: read them"):
        tensor.stored(np.arange(2))


@pytest.mark.parametrize("tied", [False, True])
def test_kept_and_opened_it_gives_the_logits_of_bfloat16_to_the_bit(tied: bool, tmp_path: Path) -> None:
    bits = saved(tmp_path / "plain", tie_word_embeddings=tied)
    shared = {"engine": "numba", "cache_dtype": "float16"}
    plain = LlamaForCausalLM.from_pretrained(tmp_path / "plain", dtype="bfloat16", **shared)
    model = LlamaForCausalLM.from_pretrained(tmp_path / "plain", dtype="bf16z", **shared)
    model.save_pretrained(tmp_path / "kept")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "kept", **shared)
    assert (model.form, again.form) == ("bf16z", "bf16z")
    ids = random_ids(5, 1, 9)
    wanted = plain(ids).logits
    np.testing.assert_array_equal(model(ids).logits, wanted)
    np.testing.assert_array_equal(again(ids).logits, wanted)
    for name, tensor in again.weights.tensors.items():
        if isinstance(tensor, CompressedTensor):
            assert tensor.numbers.ctypes.data % 64 == 0, name  # mapped where vectors may begin
    floats = LlamaForCausalLM.from_pretrained(tmp_path / "kept", engine="numpy")  # which reads the same weights
    np.testing.assert_array_equal(narrow(floats.state_dict()[NAME], "BF16"), bits[NAME])
    config = json.loads((tmp_path / "kept" / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "minillama", "version": 1, "format": "bf16z"}


def test_converted_and_converted_back(tmp_path: Path) -> None:
    saved(tmp_path / "plain")
    assert convert.main([str(tmp_path / "plain"), str(tmp_path / "kept"), "--dtype", "bf16z"]) == 0
    assert convert.main(["--check", str(tmp_path / "kept")]) == 0
    assert convert.main([str(tmp_path / "kept"), str(tmp_path / "back"), "--dtype", "bf16"]) == 0
    assert convert.main([str(tmp_path / "plain"), str(tmp_path / "same"), "--dtype", "bf16"]) == 0
    back, same = (tmp_path / name / "model.safetensors" for name in ("back", "same"))
    assert back.read_bytes() == same.read_bytes()
    kept = LlamaForCausalLM.from_pretrained(tmp_path / "kept", engine="numba")
    made = LlamaForCausalLM.from_pretrained(tmp_path / "plain", engine="numba", dtype="bf16z")
    for name, tensor in kept.weights.tensors.items():
        if isinstance(tensor, CompressedTensor):
            twin = made.weights.tensors[name]
            assert isinstance(twin, CompressedTensor)
            np.testing.assert_array_equal(tensor.numbers, twin.numbers)


def test_in_gguf_it_is_bfloat16(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    saved(tmp_path / "plain")
    convert.main([str(tmp_path / "plain"), str(tmp_path / "kept"), "--dtype", "bf16z"])
    for name in ("plain", "kept"):
        assert convert.main([str(tmp_path / name), str(tmp_path / f"{name}.gguf")]) == 0
    opened = (LlamaForCausalLM.from_pretrained(tmp_path / f"{name}.gguf", engine="numba") for name in ("plain", "kept"))
    first, second = (model.weights.tensors[NAME] for model in opened)
    assert (first.dtype, second.dtype) == ("BF16", "BF16")
    np.testing.assert_array_equal(first.stored(), second.stored())


def test_a_changed_byte_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "plain")
    convert.main([str(tmp_path / "plain"), str(tmp_path / "kept"), "--dtype", "bf16z"])
    file = tmp_path / "kept" / "model.safetensors"
    tensor = open_safetensors(file)[0][f"{NAME}.bf16z"]
    contents = bytearray(file.read_bytes())
    place = contents.find(tensor.stored()[200:220].tobytes())
    contents[place + 7] ^= 4
    file.write_bytes(contents)
    capsys.readouterr()
    assert convert.main(["--check", str(tmp_path / "kept")]) == 1
    assert f"the bytes of {NAME} have changed since it was packed" in "".join(capsys.readouterr())


def test_generate_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--prompt", "Once", "--max-new-tokens", "3", "--temperature", "0", "--engine", "numba"]
    assert generate.main([*line, "--dtype", "bf16z", "--save-quantized", str(tmp_path / "kept")]) == 0
    first = capsys.readouterr().out
    assert generate.main([*line, "--weights", str(tmp_path / "kept")]) == 0
    assert capsys.readouterr().out == first
