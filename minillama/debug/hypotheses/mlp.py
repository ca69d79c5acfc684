"""The gated MLP: its activation, and which branch goes through it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minillama.debug.hypotheses.base import Case, Hypothesis, table
from minillama.debug.steps import How, Scene
from minillama.model import mlp
from minillama.model.ops import linear

GATE, UP, ACT = "mlp.gate", "mlp.up", "mlp.act"
ACTIVATIONS = {
    "silu": mlp.silu,
    "gelu": mlp.gelu,
    "gelu by tanh": mlp.gelu_tanh,
    "gelu by a sigmoid": mlp.quick_gelu,
    "relu": mlp.relu,
    "a sigmoid": mlp.sigmoid,
    "tanh": np.tanh,
    "relu squared": lambda x: mlp.relu(x) ** 2,
    "leaky relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.logaddexp(0, x),
}
TABLE: dict[str, tuple[str, dict[str, How]]] = {
    "mlp.gate_up_swapped": ("gate and up are exchanged", {ACT: lambda s: s.act(s[UP]) * s[GATE]}),
    "mlp.activation_missing": ("there is no activation", {ACT: lambda s: s[GATE] * s[UP]}),
    "mlp.activation_both": ("both branches go through the activation", {ACT: lambda s: s.act(s[GATE]) * s.act(s[UP])}),
    "mlp.activation_late": ("the activation is of the product", {ACT: lambda s: s.act(s[GATE] * s[UP])}),
    "mlp.activation_twice": ("the activation is applied twice", {ACT: lambda s: s.act(s.act(s[GATE])) * s[UP]}),
    "mlp.activation_sign": (
        "the sigmoid is of -gate: a minus is missing, or one too many",
        {ACT: lambda s: s[GATE] * mlp.sigmoid(-s[GATE]) * s[UP]},
    ),
    "mlp.sum": ("the branches are added, not multiplied", {ACT: lambda s: s.act(s[GATE]) + s[UP]}),
    "mlp.gate_missing": ("the gate is left out", {ACT: lambda s: s[UP]}),
    "mlp.gate_missing_activated": ("the gate is left out, and up is activated", {ACT: lambda s: s.act(s[UP])}),
    "mlp.up_missing": ("the other branch is left out", {ACT: lambda s: s.act(s[GATE])}),
}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    own = case.config.hidden_act
    for name, act in ACTIVATIONS.items():
        step: How = lambda s, act=act: act(s[GATE]) * s[UP]  # type: ignore[misc]  # noqa: E731
        yield Hypothesis("mlp.activation", f"the activation is {name} and not {own}", {ACT: step})
    yield from table(TABLE)
    yield Hypothesis("mlp.weights_swapped", "gate_proj and up_proj are exchanged", {GATE: _by("up"), UP: _by("gate")})


def _by(branch: str) -> How:
    def step(s: Scene) -> np.ndarray:
        return linear(s["post_attention_norm"], getattr(s.w, f"{branch}_proj"), getattr(s.w, f"{branch}_bias"))

    return step
