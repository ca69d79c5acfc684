"""Another implementation: one token at a time with buffers that are used again, in the manner of llama2.c's run.c.

It shares no code with minillama, and makes a mistake where a method is overridden. `buffers` holds what
minillama/debug/mappings/llama2c.toml expects.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig


class Port:
    """weights: by Hugging Face's names, float32, with the rows of q_proj and k_proj in Meta's order, as llama2.c has
    them."""

    def __init__(self, config: LlamaConfig, weights: Mapping[str, Array]):
        self.c, self.w = config, weights
        self.buffers: dict[str, Array] = {}
        c = config
        self.kv_dim, self.groups = c.num_key_value_heads * c.head_dim, c.num_attention_heads // c.num_key_value_heads
        shape = (c.num_hidden_layers, 64, self.kv_dim)
        self.key_cache, self.value_cache = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def run(self, ids: list[int]) -> Port:
        for pos, token in enumerate(ids):
            self.forward(token, pos)
        return self

    def save(self, folder: Path) -> Path:
        folder.mkdir()
        for name, array in self.buffers.items():
            np.save(folder / f"{name}.npy", array)
        return folder

    def forward(self, token: int, pos: int) -> None:
        c, keep = self.c, lambda name, x: self.buffers.__setitem__(f"pos{pos}.{name}", np.array(x))
        x = self.embed(token).copy()
        keep("x", x)
        for layer in range(c.num_hidden_layers):
            w = {name: self.w[f"model.layers.{layer}.{name}.weight"] for name in NAMES}
            xb = self.rmsnorm(x, w["input_layernorm"])
            keep(f"l{layer}.xb", xb)
            q, k, v = (self.matmul(w[f"self_attn.{name}_proj"], xb) for name in "qkv")
            for head in range(c.num_attention_heads):
                self.turn(q[head * c.head_dim : (head + 1) * c.head_dim], pos)
            for head in range(c.num_key_value_heads):
                self.turn(k[head * c.head_dim : (head + 1) * c.head_dim], pos)
            keep(f"l{layer}.q", q), keep(f"l{layer}.k", k), keep(f"l{layer}.v", v)
            self.key_cache[layer, pos], self.value_cache[layer, pos] = k, v
            att = np.full((c.num_attention_heads, 64), np.float32(7))  # what was there before
            xb = np.concatenate([self.head(att[head], q, layer, head, pos) for head in range(c.num_attention_heads)])
            keep(f"l{layer}.att", att), keep(f"l{layer}.xb_att", xb)
            xb2 = self.matmul(w["self_attn.o_proj"], xb)
            keep(f"l{layer}.xb2", xb2)
            x = self.add(x, xb2)
            keep(f"l{layer}.x_att", x)
            xb = self.rmsnorm(x, w["post_attention_layernorm"])
            keep(f"l{layer}.xb_ffn", xb)
            hb, hb2 = self.matmul(w["mlp.gate_proj"], xb), self.matmul(w["mlp.up_proj"], xb)
            keep(f"l{layer}.gate", hb), keep(f"l{layer}.up", hb2)
            hb = self.swiglu(hb, hb2)
            keep(f"l{layer}.hb", hb)
            xb = self.matmul(w["mlp.down_proj"], hb)
            keep(f"l{layer}.down", xb)
            x = self.add(x, xb)
            keep(f"l{layer}.x", x)
        x = self.rmsnorm(x, self.w["model.norm.weight"])
        keep("x_final", x)
        keep("logits", self.classify(x))

    def embed(self, token: int) -> Array:
        return self.w["model.embed_tokens.weight"][token]

    def rmsnorm(self, x: Array, weight: Array) -> Array:
        return weight * (x * np.float32(1 / np.sqrt(x @ x / len(x) + self.c.rms_norm_eps)))

    def matmul(self, w: Array, x: Array) -> Array:
        return w @ x

    def turn(self, head: Array, pos: int) -> None:
        """Turn neighbours, in place."""
        for j in range(0, len(head), 2):
            angle = pos * self.c.rope_theta ** (-j / len(head))
            a, b = head[j], head[j + 1]
            head[j], head[j + 1] = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)

    def head(self, att: Array, q: Array, layer: int, head: int, pos: int) -> Array:
        """Fill att[: pos + 1] with probabilities; the average of the values."""
        size, at = self.c.head_dim, self.key_head(head) * self.c.head_dim
        q = q[head * size : (head + 1) * size]
        scores = self.key_cache[layer, : pos + 1, at : at + size] @ q / self.root()
        scores = np.exp(scores - scores.max())
        att[: pos + 1] = scores / scores.sum()
        return att[: pos + 1] @ self.value_cache[layer, : pos + 1, at : at + size]

    def key_head(self, head: int) -> int:
        return head // self.groups

    def root(self) -> Any:
        return np.float32(self.c.head_dim**0.5)

    def swiglu(self, gate: Array, up: Array) -> Array:
        return gate / (1 + np.exp(-gate)) * up

    def add(self, x: Array, y: Array) -> Array:
        return x + y

    def classify(self, x: Array) -> Array:
        return self.matmul(self.w["model.embed_tokens.weight"], x)


NAMES = [
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
]  # fmt: skip
