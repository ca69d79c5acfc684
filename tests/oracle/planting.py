"""What the tests with faults planted in transformers' Llama share: parts of it to exchange, and the capturing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minillama.debug.capture import capture

torch = pytest.importorskip("torch", reason="needs the oracle extra")


def attention_like(change: Callable[..., Any]) -> Callable[..., Any]:
    """transformers' eager attention, with a function that is handed all parts and may change them."""

    def forward(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **_: Any) -> Any:
        return change(module, query, key, value, scaling)

    return forward


def causal(T: int, diagonal: int = 1) -> Any:
    return torch.full((T, T), -math.inf).triu(diagonal)


def attend(q: Any, k: Any, v: Any, scaling: float, bias: Any, groups: int) -> Any:
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    probs = torch.softmax(q @ k.transpose(2, 3) * scaling + bias, dim=-1)
    return (probs @ v).transpose(1, 2), probs


def layer_forward(add: Callable[..., Any]) -> Callable[..., Any]:
    """transformers' decoder layer, with a function that says what is added to what."""

    def forward(self: Any, hidden_states: Any, **named: Any) -> Any:
        h = self.input_layernorm(hidden_states)
        x = add(hidden_states, h, self.self_attn(hidden_states=h, **named)[0])
        h = self.post_attention_layernorm(x)
        return add(x, h, self.mlp(h), second=True)

    return forward


def captured(model: Any, file: Path, ids: list[int], **named: Any) -> Path:
    """The trace of one call, in a file."""
    with capture(model) as trace, torch.no_grad():
        model(torch.tensor([ids]), **named)
    trace.save(file)
    return file
