"""Which tensor is which: the names and shapes of a Hugging Face LLaMA, and the rotary layouts."""

import logging
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.messages import listed
from minillama.weights.formats import FLOATS, QUANTS
from minillama.weights.projects import whose
from minillama.weights.safetensors import Tensor

T = TypeVar("T", bound=Tensor)
log = logging.getLogger("minillama")

EMBED_TOKENS = "model.embed_tokens.weight"
NORM = "model.norm.weight"
LM_HEAD = "lm_head.weight"
SCORE = "score.weight"
HEADS = (LM_HEAD, SCORE)
OTHER_CONFIG = "use the config.json that belongs to these weights (--config)"  # what to do where shapes differ

# The model's attribute -> the tensor's name after "model.layers.N."
LAYER = {
    "input_norm": "input_layernorm.weight",
    "q_proj": "self_attn.q_proj.weight",
    "k_proj": "self_attn.k_proj.weight",
    "v_proj": "self_attn.v_proj.weight",
    "o_proj": "self_attn.o_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "o_bias": "self_attn.o_proj.bias",
    "post_attention_norm": "post_attention_layernorm.weight",
    "gate_proj": "mlp.gate_proj.weight",
    "up_proj": "mlp.up_proj.weight",
    "down_proj": "mlp.down_proj.weight",
    "gate_bias": "mlp.gate_proj.bias",
    "up_bias": "mlp.up_proj.bias",
    "down_bias": "mlp.down_proj.bias",
}


def layer_name(layer: int, attribute: str) -> str:
    return f"model.layers.{layer}.{LAYER[attribute]}"


def expected_shapes(config: LlamaConfig, head: str | None = LM_HEAD) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of a decoder and its head: LM_HEAD, SCORE (of a classifier), or None."""
    D, F, V = config.hidden_size, config.intermediate_size, config.vocab_size
    HK, GK = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_norm": (D,),
        "q_proj": (HK, D),
        "k_proj": (GK, D),
        "v_proj": (GK, D),
        "o_proj": (D, HK),
        "post_attention_norm": (D,),
        "gate_proj": (F, D),
        "up_proj": (F, D),
        "down_proj": (D, F),
    }
    if config.attention_bias:
        layer |= {"q_bias": (HK,), "k_bias": (GK,), "v_bias": (GK,), "o_bias": (D,)}
    if config.mlp_bias:
        layer |= {"gate_bias": (F,), "up_bias": (F,), "down_bias": (D,)}
    shapes: dict[str, tuple[int, ...]] = {EMBED_TOKENS: (V, D)}
    for i in range(config.num_hidden_layers):
        shapes |= {layer_name(i, attribute): shape for attribute, shape in layer.items()}
    rows = {LM_HEAD: V, SCORE: config.num_labels}
    return shapes | {NORM: (D,)} | ({} if head is None else {head: (rows[head], D)})


def standard_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """The names of a decoder that was saved without its head lack `model.`: here they have it."""
    bare = EMBED_TOKENS.removeprefix("model.") in tensors
    return {f"model.{name}" if bare and name not in HEADS else name: tensor for name, tensor in tensors.items()}


def same_numbers(a: Tensor, b: Tensor, rows: int = 4096) -> bool:
    """Whether two matrices are equal, compared a few rows at a time."""
    if a is b or a.shape != b.shape:
        return a is b
    starts = range(0, a.shape[0], rows)
    pieces = (np.arange(start, min(start + rows, a.shape[0])) for start in starts)
    return all(np.array_equal(a.read(np.float32, piece), b.read(np.float32, piece)) for piece in pieces)


def is_derived(name: str) -> bool:
    """Tensors some checkpoints carry that follow from the config."""
    return name == "rope.freqs" or name.endswith("rotary_emb.inv_freq")


def match_tensors(
    config: LlamaConfig,
    tensors: Mapping[str, T],
    metadata: Mapping[str, str],
    where: object,
    head: str | None = LM_HEAD,
    advice: str = OTHER_CONFIG,
) -> dict[str, T]:
    """Every tensor that a model with this head needs, under its own name, aliases resolved.

    The heads of other models are left out, and a classifier's head may be missing. ValueError that names missing,
    unexpected and misshaped tensors, and those that are not floats, up to 30 of each, and gives the advice.
    """
    found = {name: tensor for name, tensor in standard_names(tensors).items() if not is_derived(name)}
    for dropped, kept in metadata.items():  # tensors that shared memory with another when they were saved
        if dropped not in found and kept in found:
            found[dropped] = found[kept]
    if config.tie_word_embeddings:  # one matrix, stored under either name or both
        embed, lm_head = found.get(EMBED_TOKENS), found.get(LM_HEAD)
        if lm_head is not None and lm_head.dtype in QUANTS:
            pass  # of the embedding, quantized
        elif embed is not None and lm_head is not None and not same_numbers(embed, lm_head):
            log.warning(
                "%s: its config ties the head to the embedding and it stores two that differ: both are used", where
            )
        elif embed is not None or lm_head is not None:
            found[EMBED_TOKENS] = found[LM_HEAD] = embed or lm_head  # type: ignore[assignment]

    if config.num_hidden_layers > len(found):  # listing what is missing could take all memory
        raise ValueError(
            f"{where}: its config says {config.num_hidden_layers} layers and it has {len(found)} tensors in all; "
            + advice
        )
    for other in HEADS:
        if other != head:
            found.pop(other, None)
    expected = expected_shapes(config, head)
    complaints = {
        "missing": [name for name in expected if name not in found and name != SCORE],
        "unexpected": [name for name in found if name not in expected],
        "of another shape than the config says": [
            f"{name} {found[name].shape} instead of {shape}"
            for name, shape in expected.items()
            if name in found and found[name].shape != shape
        ],
        f"not stored as one of {', '.join(FLOATS)}": [
            f"{name} ({found[name].dtype})"
            for name in expected
            if name in found and found[name].dtype not in (*FLOATS, *QUANTS)
        ],
    }
    parts = [f"{len(names)} {kind}: {listed(names, most=30)}" for kind, names in complaints.items() if names]
    if parts:
        raise ValueError(
            f"{where}: the tensors are not those of its config; {'; '.join(parts)}; "
            + (whose(complaints["unexpected"]) or advice)
        )
    return {name: found[name] for name in expected if name in found}


def with_true_tie(config: LlamaConfig, tensors: dict[str, Tensor]) -> LlamaConfig:
    """The config with what it says of the head and the embedding made true; equal ones are made one tensor.

    A head that was quantized or compressed by itself may be of a tied embedding, and is left at what the config says.
    """
    embed, lm_head = tensors[EMBED_TOKENS], tensors.get(LM_HEAD)
    if lm_head is None or lm_head.dtype in QUANTS or (embed is lm_head) == config.tie_word_embeddings:
        return config
    if config.tie_word_embeddings and same_numbers(embed, lm_head):
        tensors[LM_HEAD] = embed
        return config
    return LlamaConfig.from_dict(config.to_dict(), tie_word_embeddings=embed is lm_head)


def interleaved_to_halves(weight: Array, heads: int) -> Array:
    """Reorder the rows of a q or k projection (heads K, in) from Meta's rotary layout to Hugging Face's.

    Meta turns neighbours (0, 1), (2, 3), ...; Hugging Face turns (0, K/2), (1, K/2 + 1), ... For k, `heads` is the
    number of key/value heads. Works for biases (heads K,) too.
    """
    pairs = weight.reshape(heads, -1, 2, *weight.shape[1:])  # (heads, K/2, 2, in)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def halves_to_interleaved(weight: Array, heads: int) -> Array:
    """The inverse of interleaved_to_halves."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])  # (heads, 2, K/2, in)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)
