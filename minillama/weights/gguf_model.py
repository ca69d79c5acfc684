"""A LLaMA out of a GGUF file: llama.cpp's names, settings and rotary layout turned into Hugging Face's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.messages import shown
from minillama.weights import names
from minillama.weights.formats import FLOATS
from minillama.weights.gguf_file import GGUF, field, shortest
from minillama.weights.gguf_keys import check_keys
from minillama.weights.gguf_rope import scaling_of
from minillama.weights.gguf_special import end_ids, special_id
from minillama.weights.gguf_split import open_whole
from minillama.weights.gguf_tensors import tensor_of
from minillama.weights.safetensors import ArrayTensor, Tensor
from minillama.weights.source import Source

TENSORS = {names.EMBED_TOKENS: "token_embd.weight", names.NORM: "output_norm.weight", names.LM_HEAD: "output.weight"}
PARTS = {  # of a layer, by the model's name of each
    "input_norm": "attn_norm.weight",
    "post_attention_norm": "ffn_norm.weight",
    **{f"{x}_proj": f"attn_{'output' if x == 'o' else x}.weight" for x in "qkvo"},
    **{f"{x}_bias": f"attn_{'output' if x == 'o' else x}.bias" for x in "qkvo"},
    **{f"{x}_proj": f"ffn_{x}.weight" for x in ("gate", "up", "down")},
    **{f"{x}_bias": f"ffn_{x}.bias" for x in ("gate", "up", "down")},
}
_STANDARD = {theirs: name for name, theirs in TENSORS.items()}
_ATTRIBUTES = {theirs: attribute for attribute, theirs in PARTS.items()}
ANOTHER_FILE = "get the file again, or another of the model"
ROPE_FREQS = "rope_freqs.weight"  # what each pair's frequency is divided by
IGNORED = re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd\.weight|blk\.\d+\.rope_freqs\.weight")


def open_gguf(path: Path) -> Source:
    """The tensors of a file, or of all parts of which it is the first, and its config; tensors are read when they are
    needed. ValueError or FileNotFoundError that names the file."""
    gguf = open_whole(path)
    try:
        config = config_of(gguf)
        return Source(dict(_tensors(gguf, config)), config=config, advice=ANOTHER_FILE)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def gguf_name(name: str) -> str:
    """GGUF's name of a tensor of the decoder or the head."""
    if name in TENSORS:
        return TENSORS[name]
    layer, part = name.removeprefix("model.layers.").split(".", 1)
    attribute = next(attribute for attribute, known in names.LAYER.items() if known == part)
    return f"blk.{layer}.{PARTS[attribute]}"


def standard_name(name: str) -> str:
    """Hugging Face's name of a tensor; of one that is unknown, the name that it has."""
    layer = re.fullmatch(r"blk\.(0|[1-9]\d{0,4})\.(.+)", name)
    if layer and layer[2] in _ATTRIBUTES:
        return names.layer_name(int(layer[1]), _ATTRIBUTES[layer[2]])
    return _STANDARD.get(name, name)


def heads_of(name: str, config: LlamaConfig) -> int | None:
    """How many heads the rows of a q or k projection are, which llama.cpp has in Meta's order; None for others."""
    if ".q_proj." in name:
        return config.num_attention_heads
    return config.num_key_value_heads if ".k_proj." in name else None


def _tensors(gguf: GGUF, config: LlamaConfig) -> Mapping[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, described in gguf.tensors.items():
        if IGNORED.fullmatch(name):
            continue
        standard = standard_name(name)  # one that is unknown is refused by the name that it has
        heads = heads_of(standard, config)
        if heads is not None and described.shape[0] != heads * config.head_dim:
            raise ValueError(
                f"the tensor {name} has {described.shape[0]} rows, and its metadata say {heads} heads of "
                f"{config.head_dim}"
            )
        if heads is not None and len(described.shape) == 1 and described.kind not in FLOATS:
            raise ValueError(f"the tensor {name} is in {described.kind}, whose blocks its rows cannot be moved between")
        tensors[standard] = tensor_of(gguf.file_of(name), described, heads)
    there = {int(name.split(".")[1]) for name in gguf.tensors if re.match(r"blk\.\d{1,5}\.", name)}
    return _zero_biases(config, there) | tensors


def _any_bias(projections: Iterable[str], gguf: GGUF) -> bool:
    biases = {PARTS[f"{x}_bias"] for x in projections}
    return any(name.split(".", 2)[-1] in biases for name in gguf.tensors)


def _zero_biases(config: LlamaConfig, layers: Iterable[int]) -> dict[str, Tensor]:
    """Every bias that the config has, at zero, for the layers that there are: a file may have those of some
    projections, or of some layers."""
    D, F = config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * config.head_dim
    sizes: dict[str, int] = {}
    if config.attention_bias:
        sizes |= {"q_bias": config.num_attention_heads * config.head_dim, "k_bias": kv, "v_bias": kv, "o_bias": D}
    if config.mlp_bias:
        sizes |= {"gate_bias": F, "up_bias": F, "down_bias": D}
    return {
        names.layer_name(layer, bias): ArrayTensor(np.zeros(size, np.float32))
        for layer in layers
        for bias, size in sizes.items()
    }


# -- the config ---------------------------------------------------------------------------------------------------


def config_of(gguf: GGUF) -> LlamaConfig:
    """The config that the metadata of a file say. ValueError for another architecture, and for what is missing."""
    metadata = gguf.metadata
    architecture = field(metadata, "general.architecture", str)
    if architecture != "llama":
        raise ValueError(
            f"it holds a model of the architecture {shown(architecture)}, and minillama reads only 'llama'"
        )
    if field(metadata, "llama.expert_count", int, 0):
        raise ValueError("it holds a mixture of experts, which minillama does not have")
    D, H = (_count(metadata, f"llama.{key}") for key in ("embedding_length", "attention.head_count"))
    head_dim = _count(metadata, "llama.attention.key_length", D // H if D % H == 0 else None)
    for key in ("attention.value_length", "rope.dimension_count"):
        if (size := _count(metadata, f"llama.{key}", head_dim)) != head_dim:
            raise ValueError(f"its llama.{key} is {size} and its heads are {head_dim} wide: a LLaMA has these equal")
    length = _count(metadata, "llama.context_length")
    check_keys(metadata, head_dim, length)
    embedding = gguf.tensors.get(TENSORS[names.EMBED_TOKENS])
    if embedding is None:
        raise ValueError(f"it has no tensor {TENSORS[names.EMBED_TOKENS]}: it holds no whole model")
    theta = shortest(field(metadata, "llama.rope.freq_base", float, 1e4))
    if not 0 < theta < math.inf:
        raise ValueError(f"its llama.rope.freq_base is {theta}, which must be above 0 and finite")
    ends = end_ids(metadata)
    said: dict[str, Any] = {
        "vocab_size": _count(metadata, "llama.vocab_size", embedding.shape[0]),
        "hidden_size": D,
        "intermediate_size": _count(metadata, "llama.feed_forward_length"),
        "num_hidden_layers": _count(metadata, "llama.block_count"),
        "num_attention_heads": H,
        "num_key_value_heads": _count(metadata, "llama.attention.head_count_kv", H),
        "head_dim": head_dim,
        "max_position_embeddings": length,
        "rms_norm_eps": shortest(field(metadata, "llama.attention.layer_norm_rms_epsilon", float)),
        "rope_theta": theta,
        "rope_scaling": scaling_of(metadata, _rope_factors(gguf, head_dim), theta, head_dim),
        "attention_bias": _any_bias("qkvo", gguf),
        "mlp_bias": _any_bias(("gate", "up", "down"), gguf),
        "tie_word_embeddings": TENSORS[names.LM_HEAD] not in gguf.tensors,
        "bos_token_id": special_id(metadata, "bos"),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": special_id(metadata, "padding"),
    }
    try:
        return LlamaConfig(**said)
    except ValueError as error:
        raise ValueError(f"its metadata are no LLaMA's: {error}") from None


def _count(metadata: Mapping[str, Any], key: str, otherwise: int | None = None) -> int:
    """A size; some files have one for every layer, all equal."""
    value = metadata.get(key)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and len(value):
        if (value != value[0]).any():
            raise ValueError(f"its {key} differs from layer to layer, which no LLaMA's does")
        metadata = {key: int(value[0])}
    size = field(metadata, key, int, otherwise)
    if not 1 <= size < 1 << 31:
        raise ValueError(f"its {key} is {size}")
    return size


def _rope_factors(gguf: GGUF, head_dim: int) -> Array | None:
    described = gguf.tensors.get(ROPE_FREQS)
    if described is None:
        return None
    if described.kind != "F32" or described.shape != (head_dim // 2,):
        raise ValueError(f"its {ROPE_FREQS} must be {head_dim // 2} numbers in F32, not {described.shape}")
    return tensor_of(gguf.file_of(ROPE_FREQS), described).read(np.float64)
