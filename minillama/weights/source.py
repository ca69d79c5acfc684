"""What a reader of any format hands on: a LLaMA as Hugging Face has it, whatever the file calls things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from minillama.config import LlamaConfig
from minillama.weights.names import OTHER_CONFIG
from minillama.weights.safetensors import Tensor


class Source(NamedTuple):
    """tensors: under Hugging Face's names, rows of q and k in its rotary layout. metadata: which names share a tensor.
    config: where the format itself says what model it holds; else config.json, or a guess, does. advice: what to do
    where that config and the tensors differ."""

    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = {}
    config: LlamaConfig | None = None
    advice: str = OTHER_CONFIG
