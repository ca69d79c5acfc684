"""LoRA adapters in the layout of PEFT: a folder with adapter_config.json and adapter_model.safetensors.

scale is lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora. docs/formats.md has the names.
Source: github.com/huggingface/peft, whose merge_and_unload is what a merged model equals.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minillama.config import read_json_object
from minillama.messages import listed
from minillama.weights import names
from minillama.weights.formats import FLOATS
from minillama.weights.lora import Contents, Pair
from minillama.weights.safetensors import Tensor, open_safetensors
from minillama.weights.torch_file import open_torch_file

CONFIG, WEIGHTS, OLDER = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

# Fields that say what is merged, or nothing about it; any other that is set asks for something that is not done here
_READ = {"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "init_lora_weights"}
_IDLE = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core",
    "modules_to_save", "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
    "velora_config", "fan_in_fan_out",  # which is about layers that a LLaMA has not
}  # fmt: skip
_KEEPS_BASE = (None, True, False, "gaussian", "eva", "orthogonal")  # of init_lora_weights; others train another base


def read_settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        inner = sorted(path.parent.glob(f"*/{CONFIG}"))  # where peft saves adapters that are not called "default"
        if inner:
            raise FileNotFoundError(f"{path} does not exist: name one of the adapters in it, such as {inner[0].parent}")
        missing = path.parent if path.parent.is_file() else path
        what = "is not a LoRA adapter" if missing == path.parent else "does not exist"
        raise FileNotFoundError(
            f"{missing} {what}: name the folder of a LoRA adapter as peft saves it, or a .gguf file"
        )
    settings = read_json_object(path, "settings of a LoRA adapter")
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{path}: peft_type is {repr(settings.get('peft_type'))[:60]}, and only LORA is read")
    for field, value in settings.items():
        if value and field not in _READ | _IDLE:
            raise ValueError(
                f"{path}: {field[:60]!a} is {repr(value)[:60]}, which cannot be merged here: merge it with peft"
            )
    if settings.get("init_lora_weights") not in _KEEPS_BASE:
        raise ValueError(
            f"{path}: init_lora_weights is {repr(settings['init_lora_weights'])[:60]}, which trains another base: "
            "save the adapter converted to LoRA (path_initial_model_for_weight_conversion)"
        )
    if settings.get("bias", "none") not in ("none", "all", "lora_only"):
        raise ValueError(f"{path}: bias must be none, all or lora_only, not {repr(settings['bias'])[:60]}")
    for field, check, wanted, usual in (
        ("r", _is_rank, "a whole number above 0", 8),  # 8 is peft's default of both
        ("lora_alpha", _is_number, "a number", 8),
        ("rank_pattern", _is_pattern(_is_rank), "names, each with a whole number above 0", {}),
        ("alpha_pattern", _is_pattern(_is_number), "names, each with a number", {}),
    ):
        if settings.get(field) is None:
            settings[field] = usual
        if not check(settings[field]):
            raise ValueError(f"{path}: {field} must be {wanted}, not {repr(settings[field])[:60]}")
    return settings


def _is_rank(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -1e30 < value < 1e30  # type: ignore[operator]


def _is_pattern(check: Callable[[object], bool]) -> Callable[[object], bool]:
    """peft takes the names for regular expressions, of which some take forever: only those that are names are read."""

    def is_pattern(values: object) -> bool:
        return isinstance(values, dict) and all(
            re.fullmatch(r"\^?[\w.]+", name) and check(value) for name, value in values.items()
        )

    return is_pattern


def open_peft(folder: Path) -> Mapping[str, Tensor]:
    """The tensors of an adapter by the names they have there. FileNotFoundError or ValueError that names the file."""
    if not (folder / WEIGHTS).exists() and (folder / OLDER).exists():
        return open_torch_file(folder / OLDER)
    if not (folder / WEIGHTS).exists():
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}: name the folder that the adapter was saved in")
    return open_safetensors(folder / WEIGHTS)[0]


def contents_of(stored: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Contents:
    """What the tensors are, by the model's names. ValueError for what is of no adapter."""
    contents = Contents({}, {}, {})
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        match = re.fullmatch(
            r"base_model\.model\.(.+?)\.(?:(lora_[AB])\.weight|(lora_embedding_[AB])|(base_layer\.)?(weight|bias))",
            key.replace(".modules_to_save.", "."),
        )
        if ".original_module." in key:
            continue  # which peft saves beside tables that it trains whole, and does not use
        if match is None:
            raise ValueError(f"it has the tensor {key}, which is of no LoRA adapter of a LLaMA")
        if tensor.dtype not in FLOATS:
            raise ValueError(f"{key} is stored as {tensor.dtype} and not as one of {', '.join(FLOATS)}")
        module, matrix, table, is_base, part = match.groups()
        if part:
            (contents.bases if is_base else contents.trained)[_name(module, part)] = tensor
        else:
            found.setdefault(module, {})[matrix or table] = tensor
    for module, parts in found.items():
        a, b = (next((parts[name] for name in parts if name.endswith(side)), None) for side in "AB")
        if a is None or b is None or len(parts) != 2 or len({name[:-1] for name in parts}) != 1:
            raise ValueError(f"{module} has {listed(sorted(parts))} and not one A and one B")
        rank = _of_module(settings["rank_pattern"], module, settings["r"])
        alpha = _of_module(settings["alpha_pattern"], module, settings["lora_alpha"])
        scale = float(alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))
        contents.pairs[_name(module, "weight")] = Pair(a, b, rank, scale, "lora_embedding_A" in parts)
    if not contents.pairs:
        raise ValueError("it adapts nothing")
    return contents


def _name(module: str, part: str) -> str:
    """A tensor's name in the model, where that of a decoder saved without its head lacks `model.`."""
    name = f"{module}.{part}"
    return name if name.startswith("model.") or name in names.HEADS else f"model.{name}"


def _of_module(pattern: Mapping[str, float], module: str, usual: float) -> Any:
    """The value of the first name in `pattern` that is the module's or, without ^ in front, ends it."""
    for name, value in pattern.items():
        if module == name.removeprefix("^") or (not name.startswith("^") and module.endswith(f".{name}")):
            return value
    return usual
