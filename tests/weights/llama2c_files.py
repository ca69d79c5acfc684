"""llama2.c's files written out by hand, as its export.py and tokenizer.py write them; tests read them back."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.weights.names import halves_to_interleaved

QKVO = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
W123 = ("mlp.gate_proj", "mlp.down_proj", "mlp.up_proj")


def exported(config: LlamaConfig, weights: Mapping[str, Array], version: int = 0, group: int = 8) -> bytes:
    """The file of a model, Hugging Face's names and layout in `weights`. float32."""
    tied = config.tie_word_embeddings
    sizes = [config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.num_attention_heads,
             config.num_key_value_heads, config.vocab_size, config.max_position_embeddings]  # fmt: skip
    attention_norms, mlp_norms = (
        layers(config, weights, "input_layernorm"),
        layers(config, weights, "post_attention_layernorm"),
    )
    matrices = {name: layers(config, weights, name) for name in (*QKVO, *W123)}
    for name, heads in (("self_attn.q_proj", sizes[3]), ("self_attn.k_proj", sizes[4])):
        matrices[name] = [halves_to_interleaved(w, heads) for w in matrices[name]]
    qkvo = [w for name in QKVO for w in matrices[name]]
    w123 = [w for name in W123 for w in matrices[name]]
    embedding, norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
    head = [] if tied else [weights["lm_head.weight"]]
    if version == 0:
        freqs = [np.ones((sizes[6], config.head_dim // 2)), np.zeros((sizes[6], config.head_dim // 2))]
        order = [embedding, *attention_norms, *qkvo, *mlp_norms, *w123, norm, *freqs, *head]
        sizes[5] *= 1 if tied else -1
        return struct.pack("<7i", *sizes) + b"".join(map(float32, order))
    header = struct.pack("<Ii7iB", 0x616B3432, version, *sizes, tied)
    header += struct.pack("<i", group) if version == 2 else b""
    norms = b"".join(map(float32, [*attention_norms, *mlp_norms, norm]))
    write = float32 if version == 1 else lambda w: b"".join(part.tobytes() for part in quantized(w, group))
    return header.ljust(256, b"\0") + norms + b"".join(map(write, [embedding, *qkvo, *w123, *head]))


def layers(config: LlamaConfig, weights: Mapping[str, Array], name: str) -> list[Array]:
    return [weights[f"model.layers.{i}.{name}.weight"] for i in range(config.num_hidden_layers)]


def float32(w: Array) -> bytes:
    return w.astype("<f4").tobytes()


def quantized(w: Array, group: int) -> tuple[Array, Array]:
    """Whole numbers, and the scale of each group of them."""
    groups = w.reshape(-1, group)
    scales = np.abs(groups).max(axis=1).astype("<f4") / np.float32(127)
    return np.rint(groups / scales[:, None]).astype(np.int8), scales


def dequantized(w: Array, group: int) -> Array:
    numbers, scales = quantized(w, group)
    return (numbers * scales[:, None]).reshape(w.shape)


def tokenizer_bin(pieces: Sequence[bytes], scores: Sequence[float]) -> bytes:
    entries = (struct.pack("<fi", score, len(p)) + p for p, score in zip(pieces, scores, strict=True))
    return struct.pack("<i", max(map(len, pieces))) + b"".join(entries)
