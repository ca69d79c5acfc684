"""torch's attention and transformers' LLaMA, as the conformance suite calls them:

pytest --pyargs minillama.testing.suite --impl tests.oracle.adapters.torch_parts
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.llama import modeling_llama as llama

from minillama.arrays import Array
from minillama.config import LlamaConfig


def theirs(config: LlamaConfig, **more: Any) -> Any:
    return transformers.LlamaConfig(**config.to_dict() | more)


class Parts:
    """gqa: whether torch is left to share keys and values among heads, or given a copy for each."""

    layout = "halves"

    def __init__(self, dtype: torch.dtype, gqa: bool = True):
        self.dtype, self.gqa = dtype, gqa
        self.level = {torch.float32: "float32", torch.bfloat16: "bf16"}[dtype]

    def tensor(self, x: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype)

    def attention(self, q: Array, k: Array, v: Array, mask: Array | None) -> Array:
        T, S, times = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
        if not self.gqa:
            k, v = (np.repeat(x, times, axis=1) for x in (k, v))
        # is_causal counts from the first key: with more keys than queries it is another mask
        seen = np.tri(T, S, S - T, bool) if mask is None and T < S else mask
        return numbers(
            torch.nn.functional.scaled_dot_product_attention(
                *map(self.tensor, (q, k, v)),
                attn_mask=None if seen is None else torch.from_numpy(seen),
                is_causal=seen is None,
                enable_gqa=self.gqa,
            )
        )

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        norm = llama.LlamaRMSNorm(x.shape[-1], eps).to(self.dtype)
        norm.weight.data = self.tensor(weight)
        return numbers(norm(self.tensor(x)))

    def rope(self, x: Array, positions: Array, theta: float, scaling: dict[str, Any] | None) -> Array:
        head: dict[str, Any] = {"hidden_size": x.shape[-1], "num_attention_heads": 1}
        config = theirs(LlamaConfig(**head, rope_theta=theta, rope_scaling=scaling))
        q = self.tensor(x)
        cos, sin = llama.LlamaRotaryEmbedding(config)(q, torch.from_numpy(positions))
        return numbers(llama.apply_rotary_pos_emb(q, q, cos, sin)[0])

    def model(self, config: LlamaConfig, weights: Mapping[str, Array]) -> Model:
        return Model(config, {name: self.tensor(w) for name, w in weights.items()}, self.dtype)


class Model:
    def __init__(self, config: LlamaConfig, weights: dict[str, torch.Tensor], dtype: torch.dtype):
        self.module = llama.LlamaForCausalLM(theirs(config)).to(dtype).eval()
        missing, unexpected = self.module.load_state_dict(weights, strict=False)
        assert set(missing) <= {"lm_head.weight"}
        assert not unexpected

    def __call__(self, ids: Array, mask: Array | None = None) -> Array:
        # transformers counts positions from a row's first token only if it is told to
        told = {}
        if mask is not None:
            told = {
                "attention_mask": torch.from_numpy(mask),
                "position_ids": torch.from_numpy(np.maximum(mask.cumsum(axis=1) - 1, 0)),
            }
        return numbers(self.module(torch.from_numpy(ids), **told).logits)

    def cached(self, ids: Array, past: Any) -> tuple[Array, Any]:
        got = self.module(torch.from_numpy(ids), past_key_values=past, use_cache=True)
        return numbers(got.logits), got.past_key_values


def numbers(x: torch.Tensor) -> Array:
    return x.detach().float().numpy()


_FLOATS = Parts(torch.float32)
level, layout = _FLOATS.level, _FLOATS.layout
rms_norm, rope, attention, model = _FLOATS.rms_norm, _FLOATS.rope, _FLOATS.attention, _FLOATS.model
