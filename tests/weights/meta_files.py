"""Checkpoints as Meta publishes them, made of a small model's weights and cut as its model-parallel code cuts them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from tests.weights.torch_files import torch_save

NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}


def meta_weights(weights: Mapping[str, Array], config: LlamaConfig) -> dict[str, Array]:
    """The same model under Meta's names, rotary pairs side by side."""
    made = {}
    for name, array in weights.items():
        layer, short = re.fullmatch(r"(?:model\.(layers\.\d+\.))?(.+)\.weight", name).groups()  # type: ignore[union-attr]
        K = config.head_dim
        if short.endswith(("q_proj", "k_proj")):
            array = np.stack([array[first + half * K // 2 + j] for first in range(0, len(array), K)
                              for j in range(K // 2) for half in (0, 1)])  # fmt: skip
        made[f"{layer or ''}{NAMES[short]}.weight"] = array
    return made


def cut(weights: Mapping[str, Array], shards: int, llama3: bool = False) -> list[dict[str, Array]]:
    """The parts that the processes of a model-parallel run hold."""
    parts: list[dict[str, Array]] = [{} for _ in range(shards)]
    for name, array in weights.items():
        pieces = [array] * shards
        if array.ndim == 2:
            columns = ("wo.weight", "w2.weight") if llama3 else ("wo.weight", "w2.weight", "tok_embeddings.weight")
            pieces = np.split(array, shards, axis=1 if name.endswith(columns) else 0)
        for part, piece in zip(parts, pieces, strict=True):
            part[name] = np.ascontiguousarray(piece)
    return parts


def params_of(config: LlamaConfig, **more: Any) -> dict[str, Any]:
    """params.json in the way of Llama 2; multiple_of and ffn_dim_multiplier make the intermediate size."""
    size = int(8 * config.hidden_size / 3)
    params: dict[str, Any] = {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "multiple_of": config.intermediate_size if size <= config.intermediate_size else 1,
        "norm_eps": config.rms_norm_eps,
        "vocab_size": -1,
    }
    if config.num_key_value_heads != config.num_attention_heads:
        params["n_kv_heads"] = config.num_key_value_heads
    return params | more


def write_meta(
    folder: Path, weights: Mapping[str, Array], config: LlamaConfig, shards: int = 1, llama3: bool = False, **more: Any
) -> Path:
    """A whole folder, `more` set in its params.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(cut(meta_weights(weights, config), shards, llama3)):
        torch_save(part, folder / f"consolidated.{number:02}.pth")
    (folder / "params.json").write_text(json.dumps(params_of(config, **more)))
    return folder
