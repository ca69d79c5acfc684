"""Folders that other programs have quantized: refused by the name of the scheme, with what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from minillama.weights import open_checkpoint
from tests.bad import CONFIG, Capture, assert_refused

Q = "model.layers.0.self_attn.q_proj"
BITS = {"bits": 4, "group_size": 64}
WIDTHS = {"F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "BF16": 16, "F16": 16, "F32": 32, "U32": 32, "I32": 32, "U8": 8, "I8": 8}


def folder_of(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, str]) -> Path:
    """A folder with a config and tensors (2, 8) of these number formats, all zeros."""
    header, end = {}, 0
    for name, dtype in {"model.embed_tokens.weight": "BF16", **tensors}.items():
        size = 16 * WIDTHS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": [2, 8], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    (folder / "config.json").write_text(json.dumps(CONFIG | dict(config)))
    return folder


# What is in config.json, the tensors of a matrix, and what the sentence says
SCHEMES: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "mlx": (
        {"quantization": BITS, "quantization_config": BITS},
        {f"{Q}.weight": "U32", f"{Q}.scales": "BF16", f"{Q}.biases": "BF16"},
        "by MLX (4 bits, groups of 64), which is not read: get the float16 or bfloat16 weights that it was made from, "
        "or a GGUF file of the model, or make them with `mlx_lm.convert",
    ),
    "older mlx": ({"quantization": BITS}, {f"{Q}.weight": "U32"}, "by MLX (4 bits, groups of 64)"),
    "mlx of mixed bits": (
        {"quantization": {**BITS, f"{Q}": {"group_size": 64, "bits": 8}}}, {f"{Q}.weight": "U32"}, "by MLX (4 bits"
    ),
    "awq": (
        {"quantization_config": {"quant_method": "awq", **BITS, "version": "gemm", "zero_point": True}},
        {f"{Q}.qweight": "I32", f"{Q}.qzeros": "I32", f"{Q}.scales": "F16"},
        "by AWQ (4 bits, groups of 64)",
    ),
    "gptq": (
        {"quantization_config": {"quant_method": "gptq", "bits": 8, "group_size": -1}},
        {f"{Q}.qweight": "I32", f"{Q}.g_idx": "I32"},
        "by GPTQ (8 bits, groups of -1)",
    ),
    "compressed-tensors": (
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
        {f"{Q}.weight_packed": "I32", f"{Q}.weight_scale": "BF16"},
        "by compressed-tensors (pack-quantized)",
    ),
    "older compressed-tensors": (
        {"compression_config": {"quant_method": "compressed-tensors"}}, {f"{Q}.weight": "I8"}, "by compressed-tensors,"
    ),
    "nf4": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}},
        {f"{Q}.weight": "U8", f"{Q}.weight.absmax": "F32", f"{Q}.weight.quant_state.bitsandbytes__nf4": "U8"},
        "by bitsandbytes (NF4)",
    ),
    "int8": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {f"{Q}.weight": "I8", f"{Q}.SCB": "F32"},
        "by bitsandbytes (LLM.int8)",
    ),
    "torchao": ({"quantization_config": {"quant_method": "torchao"}}, {f"{Q}.weight": "I8"}, "by torchao,"),
    "fp8": (
        {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}},
        {f"{Q}.weight": "F8_E4M3", f"{Q}.weight_scale_inv": "F32"},
        "by FP8 (e4m3), which is not read",
    ),
    "mxfp4": (
        {"quantization_config": {"quant_method": "mxfp4"}}, {f"{Q}_blocks": "U8", f"{Q}_scales": "U8"}, "by MXFP4,"
    ),
    "mxfp8": (
        {"quantization_config": {"quant_method": "mxfp8"}},
        {f"{Q}.weight": "F8_E4M3", f"{Q}.weight_scale": "F8_E8M0"},
        "by MXFP8,",
    ),
    "nvfp4": (
        {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
        {f"{Q}.weight": "F4"},
        "by ModelOpt (NVFP4)",
    ),
    "one that is not known": ({"quantization_config": {"quant_method": "nine"}}, {f"{Q}.weight": "I8"}, "by nine,"),
    "no dictionary": ({"quantization_config": "q" * 999}, {f"{Q}.weight": "I8"}, "qqq"),
    # The config says nothing, and the tensors do:
    "silent mlx": ({}, {f"{Q}.weight": "U32", f"{Q}.scales": "F16", f"{Q}.biases": "F16"}, "by MLX,"),
    "silent gptq": ({}, {f"{Q}.qweight": "I32", f"{Q}.g_idx": "I32"}, "by GPTQ,"),
    "silent awq": ({}, {f"{Q}.qweight": "I32", f"{Q}.qzeros": "I32"}, "by AWQ or GPTQ,"),
    "silent nf4": ({}, {f"{Q}.weight": "U8", f"{Q}.weight.absmax": "F32"}, "by bitsandbytes,"),
    "silent fp8": ({}, {f"{Q}.weight": "F8_E4M3", f"{Q}.weight_scale": "F32"}, "by FP8,"),
    "silent int4": ({}, {f"{Q}.weight_packed": "I32", f"{Q}.weight_scale": "F16"}, "by compressed-tensors,"),
    "silent fp4": ({}, {f"{Q}.weight": "F4"}, "by a format of fewer than eight bits,"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_by_its_name(name: str, tmp_path: Path, capfd: Capture) -> None:
    config, tensors, words = SCHEMES[name]
    folder = folder_of(tmp_path, config, tensors)
    assert_refused(capfd, ["--weights", folder], folder, f"is quantized {words}" if words[:2] == "by" else words,
                   "get the float16 or bfloat16 weights")  # fmt: skip


def test_without_a_config_beside_it(tmp_path: Path, capfd: Capture) -> None:
    folder = folder_of(tmp_path, *SCHEMES["silent mlx"][:2])
    (folder / "config.json").unlink()
    assert_refused(capfd, ["--weights", folder], "is quantized by MLX")


def test_a_file_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    """As torchao's pickles, which have classes of its own."""
    folder = folder_of(tmp_path, SCHEMES["torchao"][0], {})
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="is quantized by torchao, which is not read"):
        open_checkpoint(folder)


def test_a_config_that_was_left_behind(tmp_path: Path) -> None:
    """Floats, as what merges adapters into a quantized base may save: whether they are the whole model is unknown."""
    folder = folder_of(tmp_path, SCHEMES["nf4"][0], {f"{Q}.weight": "BF16"})
    with pytest.raises(
        ValueError, match=r"NF4\), and its weights are floats: if they are .* remove quantization_config"
    ):
        open_checkpoint(folder)
