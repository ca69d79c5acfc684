"""The steps of a forward pass one by one, each computed from what an implementation has before it.

STEPS says how every intermediate is made of others. A Recomputation takes those that are known, another
implementation's own, and computes the rest in float64; any step may be exchanged for another, which is how a hypothesis
about that implementation is tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.debug.names import EMBED_TOKENS, LOGITS, NORM, Place
from minillama.model.attention import grouped_context, grouped_scores, merge_heads, scores_by_length, split_heads
from minillama.model.mlp import activation
from minillama.model.norm import rms_norm
from minillama.model.ops import linear, softmax
from minillama.model.rope import Rotary, Rotations, rotate
from minillama.weights.parameters import Layer, Parameters

How: TypeAlias = Callable[["Scene"], Array]  # how an intermediate is made where a scene is


class Recomputation:
    """The intermediates of some calls: those that are `known`, and all others as STEPS makes them, or `instead`.

    ids: (B, T) of each call. target: is computed though it is known.
    """

    def __init__(
        self,
        weights: Parameters,
        config: LlamaConfig,
        ids: list[Array],
        known: Mapping[str, Array],
        target: Place,
        instead: Mapping[str, How] | None = None,
    ):
        self.weights, self.config, self.ids, self.rotary = weights, config, ids, Rotary(config)
        self._known, self._target = known, target
        self._steps = STEPS | dict(instead or {})
        self._made: dict[Place, Array] = {}
        self.used: set[str] = set()  # the steps that have been computed, and not taken as known
        self.taken: list[Array] = []  # what was known

    def value(self, where: Place) -> Array:
        """An intermediate, float64."""
        if where not in self._made:
            if where != self._target and where.name in self._known:
                self._made[where] = np.asarray(self._known[where.name], np.float64)
                self.taken.append(self._made[where])
            else:
                self.used.add(where.local)
                self._made[where] = self._steps[where.local](Scene(self, where))
        return self._made[where]


class Scene:
    """A place in a recomputation, and what a step finds there."""

    def __init__(self, run: Recomputation, where: Place, weights_of: int | None = None):
        self._run, self._where, self._weights_of = run, where, weights_of
        self.config, self.weights = run.config, run.weights

    def __getitem__(self, local: str) -> Array:
        """Another intermediate of the same layer, or of no layer."""
        layer = None if local in (EMBED_TOKENS, NORM, LOGITS) else self._where.layer
        return self._run.value(self._where._replace(layer=layer, local=local))

    @property
    def local(self) -> str:
        """What is computed here."""
        return self._where.local

    @property
    def layer(self) -> int:
        return self._where.layer or 0

    @property
    def w(self) -> Layer:
        """The weights of this layer."""
        return self.weights.layers[self.layer if self._weights_of is None else self._weights_of]

    def with_weights_of(self, layer: int) -> Scene:
        """The same place with another layer's weights."""
        return Scene(self._run, self._where, layer)

    @property
    def ids(self) -> Array:
        """The ids (B, T) of this call."""
        return self._run.ids[self._where.step]

    @property
    def x(self) -> Array:
        """The stream before this layer, or behind the last one, (B, T, D)."""
        before = self.config.num_hidden_layers if self._where.layer is None else self.layer
        if before == 0:
            return self[EMBED_TOKENS]
        return self._run.value(self._where._replace(layer=before - 1, local="output"))

    def keys(self, local: str) -> Array:
        """What all calls up to this one made of keys or values, (B, G, S, K)."""
        calls = [self._where._replace(step=step, local=local) for step in range(self._where.step + 1)]
        return np.concatenate([self._run.value(where) for where in calls], axis=2)

    @property
    def past(self) -> int:
        """How many tokens came before this call."""
        return sum(ids.shape[1] for ids in self._run.ids[: self._where.step])

    @property
    def positions(self) -> Array:
        """Of the tokens of this call, (B, T)."""
        B, _, T, _ = self["self_attn.q_proj"].shape
        return np.broadcast_to(np.arange(self.past, self.past + T), (B, T))

    @property
    def rotations(self) -> Rotations:
        positions = self.positions
        S = self.past + positions.shape[1]
        return Rotations(self._run.rotary, positions, np.broadcast_to(np.arange(S), (len(positions), S)), np.float64)

    @property
    def act(self) -> Callable[[Array], Array]:
        return activation(self.config.hidden_act)


def heads_of(s: Scene, x: Array, weight: Array, bias: Array | None) -> Array:
    """(B, T, D) -> (B, heads, T, K)"""
    return split_heads(linear(x, weight, bias), s.config.head_dim)


def q_rope(s: Scene) -> Array:
    q, rotations = s["self_attn.q_proj"], s.rotations
    if rotations.by_length:
        return np.concatenate([rotate(q[:, :, columns], *angles) for columns, angles, _ in rotations.runs()], axis=2)
    return rotate(q, *rotations.angles)


def k_rope(s: Scene) -> Array:
    """ValueError where keys are turned anew for each run of queries, and have no one tensor."""
    if s.rotations.by_length:
        raise ValueError("keys that are turned more than once have no one tensor")
    return rotate(s["self_attn.k_proj"], *s.rotations.angles)


def scores(s: Scene) -> Array:
    if s.rotations.by_length:
        dots = scores_by_length(s["self_attn.q_proj"], s.keys("self_attn.k_proj"), s.rotations)
    else:
        dots = grouped_scores(s["self_attn.q_rope"], s.keys("self_attn.k_rope"))
    return dots / math.sqrt(s.config.head_dim)


def masked(scores: Array, beyond: int = 0) -> Array:
    """Scores (B, H, T, S) with -inf where a query may not look: more than `beyond` tokens after itself."""
    T, S = scores.shape[2:]
    return np.where(np.tri(T, S, S - T + beyond, dtype=bool), scores, -np.inf)


STEPS: dict[str, How] = {
    EMBED_TOKENS: lambda s: s.weights.embed_tokens[s.ids],
    "input_norm": lambda s: rms_norm(s.x, s.w.input_norm, s.config.rms_norm_eps),
    "self_attn.q_proj": lambda s: heads_of(s, s["input_norm"], s.w.q_proj, s.w.q_bias),
    "self_attn.k_proj": lambda s: heads_of(s, s["input_norm"], s.w.k_proj, s.w.k_bias),
    "self_attn.v_proj": lambda s: heads_of(s, s["input_norm"], s.w.v_proj, s.w.v_bias),
    "self_attn.q_rope": q_rope,
    "self_attn.k_rope": k_rope,
    "self_attn.scores": scores,
    "self_attn.probs": lambda s: softmax(masked(s["self_attn.scores"])),
    "self_attn.context": lambda s: merge_heads(grouped_context(s["self_attn.probs"], s.keys("self_attn.v_proj"))),
    "self_attn.o_proj": lambda s: linear(s["self_attn.context"], s.w.o_proj, s.w.o_bias),
    "residual": lambda s: s.x + s["self_attn.o_proj"],
    "post_attention_norm": lambda s: rms_norm(s["residual"], s.w.post_attention_norm, s.config.rms_norm_eps),
    "mlp.gate": lambda s: linear(s["post_attention_norm"], s.w.gate_proj, s.w.gate_bias),
    "mlp.up": lambda s: linear(s["post_attention_norm"], s.w.up_proj, s.w.up_bias),
    "mlp.act": lambda s: s.act(s["mlp.gate"]) * s["mlp.up"],
    "mlp.down": lambda s: linear(s["mlp.act"], s.w.down_proj, s.w.down_bias),
    "output": lambda s: s["residual"] + s["mlp.down"],
    NORM: lambda s: rms_norm(s.x, s.weights.norm, s.config.rms_norm_eps),
    LOGITS: lambda s: linear(s[NORM], s.weights.lm_head),
}
