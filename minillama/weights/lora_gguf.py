"""LoRA adapters in GGUF files, as llama.cpp's convert_lora_to_gguf.py writes them.

The adapter of a tensor NAME is NAME.lora_a (r, in) and NAME.lora_b (out, r); scale is adapter.lora.alpha / r, or 1
where that is 0 or missing. Of the embedding the two are (V, r) and (D, r). Rows of q and k are in Meta's rotary order.
Source: src/llama-adapter.cpp of llama.cpp.
"""

from __future__ import annotations

import logging

import numpy as np

from minillama.config import LlamaConfig
from minillama.messages import listed, shown
from minillama.weights import names
from minillama.weights.gguf_file import GGUF, field
from minillama.weights.gguf_model import heads_of, standard_name
from minillama.weights.gguf_tensors import tensor_of
from minillama.weights.lora import Contents, Pair, UnfitError
from minillama.weights.safetensors import ArrayTensor, Tensor

log = logging.getLogger("minillama")


def lora_of_gguf(gguf: GGUF, config: LlamaConfig) -> Contents:
    """The adapters of a file, by the model's names. ValueError for what is of no LLaMA's adapter."""
    metadata = gguf.metadata
    kind = field(metadata, "adapter.type", str, "none")
    if field(metadata, "general.type", str, "model") != "adapter" or kind != "lora":
        raise UnfitError("it is not a LoRA adapter: name the file of one, or the folder that peft saves")
    if (architecture := field(metadata, "general.architecture", str)) != "llama":
        raise ValueError(f"it is for a model of the architecture {shown(architecture)}")
    if "adapter.alora.invocation_tokens" in metadata:
        raise UnfitError("it is an activated LoRA, which counts behind certain tokens only and cannot be merged")
    alpha = field(metadata, "adapter.lora.alpha", float, 0.0)
    if not np.isfinite(alpha):
        raise ValueError(f"its adapter.lora.alpha is {alpha}")
    found: dict[str, dict[str, Tensor]] = {}
    ignored = []
    for name, described in gguf.tensors.items():
        base, _, side = name.rpartition(".")
        if name.endswith("_norm.weight"):
            ignored.append(name)
            continue
        if side not in ("lora_a", "lora_b"):
            raise ValueError(f"it has the tensor {name}, which is of no LoRA adapter of a LLaMA")
        standard = standard_name(base)
        heads = heads_of(standard, config) if side == "lora_b" else None
        if heads is not None and described.shape[0] != heads * config.head_dim:
            raise ValueError(f"{name} has {described.shape[0]} rows, and the model {heads} heads of {config.head_dim}")
        found.setdefault(standard, {})[side] = tensor_of(gguf.file, described, heads)
    if ignored:
        log.warning("norms that the adapter has (%s ...) are left out, as llama.cpp does", ignored[0])
    if not found:
        raise ValueError("it adapts nothing")
    return Contents({}, {}, {name: _pair(name, parts, alpha) for name, parts in found.items()})


def _pair(name: str, parts: dict[str, Tensor], alpha: float) -> Pair:
    if len(parts) != 2:
        raise ValueError(f"{name} has {listed(parts)} and not one A and one B")
    a, b = parts["lora_a"], parts["lora_b"]
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ValueError(f"the adapter of {name} is {a.shape} and {b.shape}, and not two matrices")
    if name == names.EMBED_TOKENS:
        a, b = ArrayTensor(np.ascontiguousarray(b.read(np.float32).T)), a
    rank = a.shape[0]
    return Pair(a, b, rank, alpha / rank if alpha else 1.0)
