"""LoRA adapters (Hu et al. 2021, arXiv:2106.09685) in the layout of PEFT, merged into the weights as they are read.

A folder with adapter_config.json and adapter_model.safetensors. A matrix W with an adapter is W + scale B A, where A
has r rows, B r columns, and scale is lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora. docs/formats.md has the
names.
Source: github.com/huggingface/peft, whose merge_and_unload this equals.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.config import LlamaConfig, read_json_object
from minillama.weights import names
from minillama.weights.formats import FLOATS, QUANTS, STORAGE, narrow, widen
from minillama.weights.safetensors import Tensor, open_safetensors

log = logging.getLogger("minillama")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BLOCK = 64  # rows that are merged together: products of one shape, so that a row's bits never depend on its company

# Fields that say what is merged, or nothing about it; any other that is set asks for something that is not done here
_READ = {"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "init_lora_weights"}
_IDLE = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core",
    "modules_to_save", "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
    "velora_config", "fan_in_fan_out",  # which is about layers that a LLaMA has not
}  # fmt: skip
_KEEPS_BASE = (None, True, False, "gaussian", "eva", "orthogonal")  # of init_lora_weights; others train another base


class Pair(NamedTuple):
    """An adapter of one matrix: its name in the file, and A and B, or of an embedding their transposes."""

    module: str
    a: Tensor
    b: Tensor
    transposed: bool


class Contents(NamedTuple):
    """What an adapter's file has, by the model's names: copies of what was adapted (of tables whose size may have been
    changed), tensors that were trained whole, and the adapters proper."""

    bases: dict[str, Tensor]
    trained: dict[str, Tensor]
    pairs: dict[str, Pair]

    def without(self, *excluded: str) -> Contents:
        for part in self:
            for name in excluded:
                part.pop(name, None)
        return self


class MergedTensor:
    """base + scale B A, computed in float32 (float64 for a base of that) and rounded to the base's own format.

    The numbers are the same however they are read, and those of peft on a CPU, up to the order in which a product's
    terms are added. Where the pair is transposed, a is (r, rows) and b (columns, r), and scale (B A)^T is added.
    """

    def __init__(self, base: Tensor, pair: Pair, scale: float):
        self.base, self.pair, self.scale = base, pair, scale
        self.dtype, self.shape = base.dtype, base.shape

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return widen(self.stored(rows), self.dtype, dtype)

    def stored(self, rows: Array | None = None) -> Array:
        if rows is None:
            out = np.empty(self.shape, STORAGE[self.dtype])
            for start in range(0, self.shape[0], BLOCK):
                out[start : start + BLOCK] = self._block(start)
            return out
        out = np.empty((*rows.shape, self.shape[1]), STORAGE[self.dtype])
        starts = rows // BLOCK * BLOCK
        for start in np.unique(starts).tolist():
            here = starts == start
            out[here] = self._block(start)[rows[here] - start]
        return out

    def pieces(self) -> Iterator[Array]:
        """The stored numbers in their order, a block at a time, each merged once."""
        return (self._block(start).reshape(-1) for start in range(0, self.shape[0], BLOCK))

    def _block(self, start: int) -> Array:
        """Rows start .. start + BLOCK - 1, as they are stored."""
        rows = np.arange(start, min(start + BLOCK, self.shape[0]))
        dtype = np.float64 if self.dtype == "F64" else np.float32
        if self.pair.transposed:
            left = widen(self.pair.a.stored()[:, rows], self.pair.a.dtype, dtype).T
            right = self.pair.b.read(dtype).T
        else:
            left, right = self.pair.b.read(dtype, rows), self.pair.a.read(dtype)
        added = (left @ right) * dtype(self.scale)
        if self.pair.transposed:  # peft rounds what it adds to a table, not what it adds to other matrices
            added = widen(narrow(added, self.dtype), self.dtype, dtype)
        return narrow(self.base.read(dtype, rows) + added, self.dtype)


class UnfitError(ValueError):
    """An adapter that is of this model, and that cannot be merged as it is; the sentence says what to do."""


def merge_lora(
    folder: Path, tensors: Mapping[str, Tensor], config: LlamaConfig, head: str | None
) -> tuple[dict[str, Tensor], LlamaConfig]:
    """A model's tensors with the adapter in `folder` merged into them, and its config; nothing is computed before they
    are read.

    head: which the model has; adapters of others are left out. Where the head is tied to the embedding, an adapter of
    either changes both, as in peft. An adapter that has whole tables of another size resizes the vocabulary.
    ValueError, OSError or FileNotFoundError that names the file.
    """
    settings = _read_settings(folder / CONFIG)
    if not (folder / WEIGHTS).exists():
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}: save the adapter with safe_serialization=True")
    stored, _ = open_safetensors(folder / WEIGHTS)
    try:
        contents = _sorted_out(stored).without(*(name for name in names.HEADS if name != head))
        return _merged(contents, settings, tensors, config, head)
    except UnfitError as error:
        raise ValueError(f"{folder / WEIGHTS}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit: {error}; name the adapter of this model") from None


def _merged(
    contents: Contents,
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    config: LlamaConfig,
    head: str | None,
) -> tuple[dict[str, Tensor], LlamaConfig]:
    merged, whole = dict(tensors), contents.bases | contents.trained
    if size := _new_size(contents, tensors, config):
        config = LlamaConfig.from_dict(config.to_dict(), vocab_size=size)
        merged |= _in_place_of(merged[names.EMBED_TOKENS], whole[names.EMBED_TOKENS], merged)
    expected = names.expected_shapes(config, head)
    for name, tensor in whole.items():
        if expected.get(name) != tensor.shape:
            raise ValueError(f"{name} is {tensor.shape} there and {expected.get(name, 'absent')} in the model")
    for name, tensor in contents.bases.items():
        merged |= _in_place_of(merged.get(name), tensor, merged) | {name: tensor}
    merged |= contents.trained
    for name, pair in contents.pairs.items():
        if name not in merged:
            raise ValueError(f"it adapts {name}, which the model has not")
        base = merged[name]
        merged |= _in_place_of(base, MergedTensor(base, pair, _checked_scale(settings, base, name, pair)), merged)
    return merged, config


def _new_size(contents: Contents, tensors: Mapping[str, Tensor], config: LlamaConfig) -> int | None:
    """How large the adapter's tables make the vocabulary, if not as large as it is. UnfitError where one is lacking."""
    embed, head = names.EMBED_TOKENS, names.LM_HEAD
    whole, D = contents.bases | contents.trained, config.hidden_size
    shapes = [whole[name].shape for name in (embed, head) if name in whole]
    for pair in (contents.pairs[name] for name in (embed, head) if name in contents.pairs):
        shape = (*pair.b.shape[:1], *pair.a.shape[-1:])
        shapes.append(shape[::-1] if pair.transposed else shape)
    sizes = {shape[0] for shape in shapes if shape[1:] == (D,)}
    if not sizes - {config.vocab_size}:
        return None
    needed = {embed} if head not in tensors else {embed, head}
    if embed in contents.bases and tensors[embed] is tensors.get(head):
        needed = {embed}  # which is the head too
    if len(sizes) > 1 or not needed <= whole.keys():
        raise UnfitError(
            f"it was trained with a vocabulary of {max(sizes)} tokens, and the model has {config.vocab_size}; it does "
            f"not bring {' and '.join(sorted(needed))} of that size: resize the model (resize_token_embeddings, "
            "save_pretrained) and name that one"
        )
    log.warning(
        "the adapter makes the vocabulary %d tokens instead of %d: its tokenizer is the one to name (--tokenizer)",
        *sizes,
        config.vocab_size,
    )
    return sizes.pop()


def _in_place_of(old: Tensor | None, new: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`new` under every name of `old`, of which a tied matrix has two."""
    return {name: new for name, tensor in tensors.items() if tensor is old}


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: name the folder of a LoRA adapter as peft saves it")
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


def _sorted_out(stored: Mapping[str, Tensor]) -> Contents:
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
            raise ValueError(f"{module} has {', '.join(sorted(parts))} and not one A and one B")
        contents.pairs[_name(module, "weight")] = Pair(module, a, b, transposed="lora_embedding_A" in parts)
    if not contents.pairs:
        raise ValueError("it adapts nothing")
    return contents


def _name(module: str, part: str) -> str:
    """A tensor's name in the model, where that of a decoder saved without its head lacks `model.`."""
    name = f"{module}.{part}"
    return name if name.startswith("model.") or name in names.HEADS else f"model.{name}"


def _checked_scale(settings: Mapping[str, Any], base: Tensor, name: str, pair: Pair) -> float:
    """What B A is multiplied by. ValueError where it cannot be added to `base`."""
    if base.dtype in QUANTS:
        raise UnfitError(f"{name} is quantized: merge the adapter into float weights, then quantize them")
    rank = _of_module(settings["rank_pattern"], pair.module, settings["r"])
    alpha = _of_module(settings["alpha_pattern"], pair.module, settings["lora_alpha"])
    (rows, columns) = base.shape if len(base.shape) == 2 else (0, 0)
    wanted = ((rank, rows), (columns, rank)) if pair.transposed else ((rank, columns), (rows, rank))
    if (pair.a.shape, pair.b.shape) != wanted:
        raise ValueError(f"A {pair.a.shape} and B {pair.b.shape} of rank {rank} do not make {name} {base.shape}")
    return float(alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))


def _of_module(pattern: Mapping[str, float], module: str, usual: float) -> Any:
    """The value of the first name in `pattern` that is the module's or, without ^ in front, ends it."""
    for name, value in pattern.items():
        if module == name.removeprefix("^") or (not name.startswith("^") and module.endswith(f".{name}")):
            return value
    return usual
