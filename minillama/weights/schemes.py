"""Quantized weights of other programs, known by their config or by their tensors, and refused by name.

Sources of the names: quantization_config.py of transformers 5.24 (quant_method and its fields), and the files that
mlx-lm, AutoAWQ, AutoGPTQ, bitsandbytes, compressed-tensors and NVIDIA's ModelOpt write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from minillama.weights.formats import FLOATS
from minillama.weights.quantized import METHOD, VERSION
from minillama.weights.safetensors import Tensor

FIELDS = ("quantization_config", "quantization", "compression_config")  # of config.json; mlx-lm has the second
NAMES = {  # quant_method -> what people call it
    "aqlm": "AQLM", "auto-round": "AutoRound", "autoround": "AutoRound", "awq": "AWQ", "bitnet": "BitNet",
    "bitsandbytes": "bitsandbytes", "compressed-tensors": "compressed-tensors", "eetq": "EETQ", "exl2": "ExLlamaV2",
    "exl3": "ExLlamaV3", "fbgemm_fp8": "FBGEMM FP8", "fp8": "FP8", "fp_quant": "FP-Quant", "gptq": "GPTQ",
    "higgs": "HIGGS", "hqq": "HQQ", "marlin": "Marlin", "mlx": "MLX", "modelopt": "ModelOpt", "mxfp4": "MXFP4",
    "mxfp8": "MXFP8", "nvfp4": "NVFP4", "quanto": "quanto", "quark": "Quark", "spqr": "SpQR", "torchao": "torchao",
    "vptq": "VPTQ",
}  # fmt: skip
FLOAT_WEIGHTS = "get the float16 or bfloat16 weights that it was made from, or a GGUF file of the model"
_LOADED = "or load it in transformers with {} and save it anew"
MADE_FLOAT = {  # how each is made floats again, where its own tools do that
    "MLX": "or make them with `mlx_lm.convert --hf-path FOLDER --mlx-path NEW --dequantize`",
    "bitsandbytes": "or load it in transformers, call model.dequantize() and save it anew",
    "compressed-tensors": _LOADED.format("CompressedTensorsConfig(run_compressed=False)"),
    "FP8": _LOADED.format("FineGrainedFP8Config(dequantize=True)"),
    "MXFP4": _LOADED.format("Mxfp4Config(dequantize=True)"),
}
# How the names of tensors end in each scheme, the surest first
_ENDINGS = (
    (r"\.quant_state\.bitsandbytes__(nf4|fp4)|\.(absmax|quant_map|SCB)", "bitsandbytes"),
    (r"\.weight_packed", "compressed-tensors"),
    (r"\.g_idx", "GPTQ"),
    (r"\.qweight", "AWQ or GPTQ"),
    (r"(_blocks|\.blocks)", "MXFP4"),
)


def check_scheme(config: Mapping[str, Any], tensors: Mapping[str, Tensor] | None, where: object) -> None:
    """ValueError, naming the scheme and what to do, for weights that another program, or a later version of this one,
    has quantized. config: the unknown fields of config.json, which may say so; tensors: as the file has them, or None
    where it cannot be read."""
    stated = next((config[field] for field in FIELDS if config.get(field)), None)
    if isinstance(stated, dict) and stated.get("quant_method") == METHOD:
        if stated.get("version") != VERSION:
            raise ValueError(
                f"{where} is quantized in version {str(stated.get('version'))[:60]} of the format, and this program "
                f"knows {VERSION}: use the program that wrote it, or quantize the weights again"
            )
        return
    seen = _of_tensors(tensors or {})
    if stated is None and seen is None:
        return
    scheme = seen if stated is None else _of_config(stated, seen)
    if tensors and seen is None and all(tensor.dtype in FLOATS for tensor in tensors.values()):
        raise ValueError(
            f"the config of {where} says that it is quantized by {scheme}, and its weights are floats: if they are "
            f"the model itself, remove quantization_config from config.json; else {FLOAT_WEIGHTS}"
        )
    name = next((name for name in MADE_FLOAT if str(scheme).startswith(name)), "")
    advice = f"{FLOAT_WEIGHTS}, {MADE_FLOAT[name]}" if name else FLOAT_WEIGHTS
    raise ValueError(f"{where} is quantized by {scheme}, which is not read: {advice}")


def _of_config(stated: Any, seen: str | None) -> str:
    """The scheme that a config states, with its number of bits or its kind."""
    if not isinstance(stated, dict):
        return ascii(stated)[:60]
    method = stated.get("quant_method")
    if method is None:
        method = "mlx" if {"group_size", "bits"} <= stated.keys() else seen or "a scheme without a name"
    name = NAMES.get(str(method).lower(), str(method)[:60])
    if name == "bitsandbytes":
        four = str(stated.get("bnb_4bit_quant_type", "fp4")).upper()[:20]
        return f"{name} ({four if stated.get('load_in_4bit') else 'LLM.int8'})"
    details = [
        f"{value} bits" if key in ("bits", "w_bit") else str(value)
        for key in ("bits", "w_bit", "quant_algo", "format", "fmt")
        if isinstance(value := stated.get(key), int | str) and value
    ]
    if "group_size" in stated:
        details.append(f"groups of {stated['group_size']}")
    return f"{name} ({', '.join(details)[:80]})" if details else name


def _of_tensors(tensors: Mapping[str, Tensor]) -> str | None:
    """The scheme that the names and number formats of tensors show; None where all may be weights."""
    for ending, scheme in _ENDINGS:
        if any(re.search(f"(?:{ending})$", name) for name in tensors):
            return scheme
    if any(tensor.dtype.startswith("F8_") for tensor in tensors.values()):
        return "FP8"
    if any(tensor.dtype in ("F4", "F6_E2M3", "F6_E3M2") for tensor in tensors.values()):
        return "a format of fewer than eight bits"
    if any(_beside(name, tensors) for name, tensor in tensors.items() if tensor.dtype == "U32"):
        return "MLX"
    return None


def _beside(name: str, tensors: Iterable[str]) -> bool:
    """Whether mlx's scales lie beside a matrix of whole numbers."""
    return name.endswith(".weight") and f"{name.removesuffix('weight')}scales" in tensors
