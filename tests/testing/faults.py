"""Mistakes people make, each in an implementation that is right otherwise: (what is wrong, the function, the property
that is broken first, a cause that the message names, if any)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.generation.sampling import Sampling
from minillama.testing.adapters import numpy_model as right
from minillama.weights import names
from tests.testing import styles


class Fault(NamedTuple):
    name: str
    function: Callable[..., Any]
    breaks: str
    cause: str | None = None


def rms(x: Array, eps: float = 0) -> Array:
    return np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps))


NORM = [
    Fault("eps outside the root", lambda x, w, eps: x / (rms(x) + np.float32(eps)) * w, "exact", "outside of the root"),
    Fault("eps missing", lambda x, w, eps: x / rms(x) * w, "exact", "eps is 0"),
    Fault("eps of its own", lambda x, w, eps: x / rms(x, 1e-5) * w, "exact", "eps is 1e-05"),
    Fault(
        "the mean subtracted",
        lambda x, w, eps: right.rms_norm(x - x.mean(axis=-1, keepdims=True), w, eps),
        "exact",
        "the mean is subtracted",
    ),
    Fault("1 + weight", lambda x, w, eps: right.rms_norm(x, 1 + w, eps), "exact", "1 is added to the weight"),
    Fault("no weight", lambda x, w, eps: right.rms_norm(x, 1 + 0 * w, eps), "exact", "the weight is left out"),
    Fault("mean over all axes", lambda x, w, eps: x / np.sqrt(np.mean(x * x) + eps) * w, "exact", "the last axis"),
    Fault("the sum", lambda x, w, eps: x / np.sqrt(np.sum(x * x, -1, keepdims=True) + eps) * w, "exact", "the sum of"),
    Fault("in float16", lambda x, w, eps: right.rms_norm(x.astype(np.float16), w, eps).astype(np.float32), "exact"),
]


def rope(**changed: Callable[..., Any]) -> Callable[..., Array]:
    """Right, with other arguments: a function of x, positions, theta and scaling for each that is changed."""

    def function(x: Array, positions: Array, theta: float, scaling: Any) -> Array:
        given = {"x": x, "positions": positions, "theta": theta, "scaling": scaling}
        return right.rope(**given | {name: change(*given.values()) for name, change in changed.items()})

    return function


ROPE = [
    Fault(
        "the other layout",
        lambda x, p, theta, s: styles.rope_by_complex_numbers(x, p, theta, None if s is None else {}),
        "exact",
        "the rotary layout is interleaved",
    ),
    Fault("positions from 1", rope(positions=lambda x, p, t, s: p + 1), "exact", "counted from 1"),
    Fault("theta ignored", rope(theta=lambda x, p, t, s: 10000.0), "exact", "theta is 10000"),
    Fault("the wrong sign", rope(positions=lambda x, p, t, s: -p), "exact", "the other way"),
    Fault("scaling ignored", rope(scaling=lambda x, p, t, s: None), "linear", "scaling is left out"),
    Fault("positions ignored", rope(positions=lambda x, p, t, s: np.arange(p.shape[1]) + 0 * p), "exact", "ignored"),
    Fault("the positions of one row", rope(positions=lambda x, p, t, s: p[:1] + 0 * p), "ragged", "of the first"),
    Fault("positions in float16", rope(positions=lambda x, p, t, s: p.astype(np.float16).astype(np.float64)), "far"),
    Fault("a table of 4096", rope(positions=lambda x, p, t, s: np.minimum(p, 4095)), "far"),
    Fault(
        "llama3 taken for linear",
        rope(scaling=lambda x, p, t, s: s and {"rope_type": "linear", "factor": s["factor"]}),
        "llama3",
        "all frequencies are divided",
    ),
    Fault(
        "yarn without its factor of attention",
        rope(scaling=lambda x, p, t, s: s | {"attention_factor": 1.0} if s and s["rope_type"] == "yarn" else s),
        "yarn",
        "cos and sin are not multiplied",
    ),
]


def attention_of_first_mask(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    return right.attention(q, k, v, None if mask is None else mask[:1])


ATTENTION = [
    Fault("no 1 / sqrt(K)", partial(styles.attention, scale=lambda K: 1), "exact", "not divided by sqrt(K)"),
    Fault("1 / K", partial(styles.attention, scale=lambda K: 1 / K), "exact", "divided by K"),
    Fault("one key too many", partial(styles.attention, shift=1), "exact", "one key too many"),
    Fault("not its own key", partial(styles.attention, shift=-1), "exact", "its own key"),
    Fault("heads tiled", partial(styles.attention, tile=True), "grouped", "h % G"),
    Fault("softmax over queries", partial(styles.attention, axis=2), "exact", "over the queries"),
    Fault("masked afterwards", partial(styles.attention, after=True), "exact", "masked after the softmax"),
    Fault("causal from the left", partial(styles.attention, from_left=True), "past", "query t sees keys 0 .. t"),
    Fault("exp of large scores", partial(styles.attention, subtract=False), "shifted"),
    Fault("-1e9 for hidden", partial(styles.attention, hidden=-1e9), "blind"),
    Fault("-10 for hidden", partial(styles.attention, hidden=-10), "exact"),
    Fault("scores in float16", partial(styles.attention, scores_in=np.float16), "exact"),
    Fault("no mask", lambda q, k, v, mask: right.attention(q, k, v, None), "masked"),
    Fault(
        "True for hidden",
        lambda q, k, v, mask: styles.attention(q, k, v, None if mask is None else ~mask),
        "masked",
        "taken for 'hidden'",
    ),
    Fault("one mask for all rows", attention_of_first_mask, "masked"),
]


class OneForAllLayers(styles.Cache):
    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        return super().append(0, k, v)


class OneLength(styles.Cache):
    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        got = super().append(layer, k, v)
        self.lengths = [self.lengths[layer]] * len(self.lengths)
        return got


class OffByOne(styles.Cache):
    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        self.lengths[layer] = max(self.lengths[layer] - 1, 0)  # over the last token
        return super().append(layer, k, v)


class Exchanged(styles.Cache):
    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        return super().append(layer, v, k)


class FirstRowForAll(styles.Cache):
    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        return super().append(layer, k[:1], v[:1])


class CutTooLate(styles.Cache):
    def cut(self, length: int) -> None:
        super().cut(length + 1)


class Wraps(styles.Cache):
    """Grows past 64 tokens, and begins anew."""

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        if self.lengths[layer] <= 64 < self.lengths[layer] + k.shape[2]:
            self.kept[:, layer] = 0
        return super().append(layer, k, v)


class Shared(styles.Cache):
    """One default argument for all of them."""

    room: dict[Any, Array] = {}  # noqa: RUF012

    def __init__(self, num_layers: int, shape: tuple[int, ...]):
        super().__init__(num_layers, shape)
        self.kept = self.room.setdefault((num_layers, shape), self.kept)


class InFloat16(styles.Cache):
    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        return super().append(layer, k.astype(np.float16), v.astype(np.float16))


class OneRoom(styles.Cache):
    """Values lie where keys do."""

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        _, values = super().append(layer, k, v)
        return values, values


KV_CACHE = [
    Fault("layers share", OneForAllLayers, "whole", "what the first has"),
    Fault("layers share a length", OneLength, "whole"),
    Fault("over the last token", OffByOne, "pieces"),
    Fault("keys for values", Exchanged, "whole", "keys and values are exchanged"),
    Fault("the first row for all", FirstRowForAll, "whole"),
    Fault("cut one too late", CutTooLate, "cut"),
    Fault("begins anew when it grows", Wraps, "pieces"),
    Fault("caches share", Shared, "apart"),
    Fault("in float16", InFloat16, "whole"),
    Fault("one room for keys and values", OneRoom, "whole", "keys and values are exchanged"),
]


def act(function: Callable[[Array], Array]) -> Callable[..., Array]:
    return lambda x, gate, up, down: (function(x @ gate.T) * (x @ up.T)) @ down.T


MLP = [
    Fault("gate for up", lambda x, gate, up, down: right.mlp(x, up, gate, down), "exact", "exchanged"),
    Fault("sigmoid", act(styles.sigmoid), "exact", "a sigmoid"),
    Fault("gelu", act(lambda x: x * styles.sigmoid(2 * 0.7978845608 * (x + 0.044715 * x**3))), "exact", "gelu by tanh"),
    Fault("quick gelu", act(lambda x: x * styles.sigmoid(1.702 * x)), "exact"),
    Fault("relu", act(lambda x: np.maximum(x, 0)), "exact", "relu"),
    Fault("no activation", act(lambda x: x), "exact", "the activation is left out"),
    Fault("e^x overflows", act(lambda x: x * np.exp(x) / (1 + np.exp(x))), "large"),
    Fault("no up", lambda x, gate, up, down: right.mlp(x, gate, up, down) / (x @ up.T).mean(), "exact"),
]


def model(
    change: Callable[[LlamaConfig, dict[str, Array]], dict[str, Array]] = lambda config, weights: {}, **fields: Any
) -> Callable[..., Any]:
    """Right, with other weights or another config."""

    def make(config: LlamaConfig, weights: dict[str, Array]) -> Any:
        return right.Model(LlamaConfig(**config.to_dict() | fields), weights | change(config, weights))

    return make


def of(weights: dict[str, Array], part: str) -> dict[str, Array]:
    return {name: w for name, w in weights.items() if part in name}


def interleaved(config: LlamaConfig, weights: dict[str, Array]) -> dict[str, Array]:
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    return {
        n: names.interleaved_to_halves(w, count) for part, count in heads.items() for n, w in of(weights, part).items()
    }


def other_order(config: LlamaConfig, weights: dict[str, Array]) -> dict[str, Array]:
    last = config.num_hidden_layers - 1
    return {
        f"model.layers.{last - int(n.split('.')[2])}.{n.split('.', 3)[3]}": w for n, w in of(weights, "layers").items()
    }


def untied(config: LlamaConfig, weights: dict[str, Array]) -> dict[str, Array]:
    return {names.LM_HEAD: 0 * weights[names.EMBED_TOKENS]} if config.tie_word_embeddings else {}


class Unmasked(right.Model):
    def __call__(self, ids: Array, mask: Array | None = None) -> Array:
        return super().__call__(ids)


class Forgets(right.Model):
    def cached(self, ids: Array, past: Any) -> Any:
        return super().cached(ids, None)


class Bidirectional(right.Model):
    def __call__(self, ids: Array, mask: Array | None = None) -> Array:
        return super().__call__(ids, mask) + 0.01 * super().__call__(ids[:, ::-1], mask)


class PositionsFromZero(right.Model):
    """Every piece is turned as if it were the first."""

    def cached(self, ids: Array, past: Any) -> Any:
        past = self.decoder.new_cache() if past is None else past
        start = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        hidden = self.decoder(self.decoder.embed(ids), past, None, start)
        return hidden @ self.weights.lm_head.T, past


MODEL = [
    Fault(
        "no final norm's weight", model(lambda c, w: {n: 0 * x + 1 for n, x in of(w, "model.norm").items()}), "exact"
    ),
    Fault("no mlp", model(lambda c, w: {n: 0 * x for n, x in of(w, "down_proj").items()}), "exact"),
    Fault("layers backwards", model(other_order), "exact"),
    Fault("rotary layout", model(interleaved), "exact", "the rotary layout is interleaved"),
    Fault("eps of its own", model(rms_norm_eps=1e-6), "exact", "eps is 1e-06"),
    Fault("theta of its own", model(rope_theta=10000.0), "exact", "theta is 10000"),
    Fault("gelu", model(hidden_act="gelu"), "exact", "the activation is gelu"),
    Fault("a head of its own, tied", model(untied, tie_word_embeddings=False), "tied"),
    Fault("no biases", model(lambda c, w: {n: 0 * x for n, x in of(w, ".bias").items()}), "biases", "all biases are"),
    Fault("no bias of o", model(lambda c, w: {n: 0 * x for n, x in of(w, "o_proj.bias").items()}), "biases", "of o"),
    Fault("no scaling", model(rope_scaling=None), "linear", "rope scaling is left out"),
    Fault("padding is seen", Unmasked, "padding", "the mask is left out"),
    Fault("the cache is forgotten", Forgets, "cached"),
    Fault("pieces from position 0", PositionsFromZero, "cached"),
    Fault("sees what comes", Bidirectional, "exact"),
    Fault(
        "weights in float16",
        model(lambda c, w: {n: x.astype(np.float16).astype(x.dtype) for n, x in w.items()}),
        "exact",
    ),
]


def with_settings(change: Callable[[Sampling], Sampling]) -> Callable[..., Array]:
    return lambda logits, settings, seen: right.sampler(logits, change(settings), seen)


def unnormalized(logits: Array, settings: Sampling, seen: Sequence[int]) -> Array:
    whole = right.sampler(logits, replace(settings, top_k=0, top_p=1.0, min_p=0.0), seen)
    return whole * (right.sampler(logits, settings, seen) > 0)


def crossing_left_out(logits: Array, settings: Sampling, seen: Sequence[int]) -> Array:
    if settings.top_p == 1:
        return right.sampler(logits, settings, seen)
    kept = int((right.sampler(logits, settings, seen) > 0).sum())
    return right.sampler(logits, replace(settings, top_p=1.0, top_k=max(kept - 1, 1)), seen)


def top_p_first(logits: Array, settings: Sampling, seen: Sequence[int]) -> Array:
    if settings.temperature == 0:
        return right.sampler(logits, settings, seen)
    kept = right.sampler(logits, replace(settings, temperature=1.0), seen) > 0
    p = right.sampler(logits, replace(settings, top_p=1.0), seen) * kept
    return p / p.sum()


def penalized(change: Callable[[Array, float, Array], Array]) -> Callable[..., Array]:
    def function(logits: Array, settings: Sampling, seen: Sequence[int]) -> Array:
        counts = np.bincount(np.array(seen, int), minlength=len(logits))
        logits = change(logits, settings.repetition_penalty, counts)
        return right.sampler(logits, replace(settings, repetition_penalty=1.0), [])

    return function


def min_p_absolute(logits: Array, settings: Sampling, seen: Sequence[int]) -> Array:
    p = right.sampler(logits, replace(settings, min_p=0.0), seen)
    p = p * ((p >= settings.min_p) | (p == p.max()))
    return p / p.sum()


SAMPLER = [
    Fault("no temperature", with_settings(lambda s: replace(s, temperature=1.0)), "greedy", "temperature is left out"),
    Fault("times the temperature", with_settings(lambda s: replace(s, temperature=s.temperature and 1 / s.temperature)),
          "temperature", "multiplied by the temperature"),
    Fault("one too many", with_settings(lambda s: replace(s, top_k=s.top_k and s.top_k + 1)), "top_k", "one id too"),
    Fault("what reaches p", crossing_left_out, "top_p", "leaves out the id that reaches it"),
    Fault("no sum of 1", unnormalized, "top_k", "not divided by its sum"),
    Fault("top_p first", top_p_first, "order", "before the temperature"),
    Fault("min_p absolute", min_p_absolute, "min_p", "taken for a probability"),
    Fault("negatives divided", penalized(lambda z, by, n: np.where(n, z / by, z)), "repetition", "negative logits"),
    Fault("subtracted", penalized(lambda z, by, n: np.where(n, z - by * (by != 1), z)), "repetition", "is subtracted"),
    Fault("each time", penalized(lambda z, by, n: np.where(z > 0, z / by**n, z * by**n)), "repetition", "each time"),
]  # fmt: skip


def drawing(change: Callable[[Sampling], Sampling]) -> Callable[..., int]:
    return lambda logits, settings, seen, seed: right.draw(logits, change(settings), seen, seed)


UNSEEDED = np.random.default_rng(5)
DRAW = [
    Fault("no temperature", drawing(lambda s: replace(s, temperature=1.0)), "frequencies"),
    Fault("the largest always", lambda logits, settings, seen, seed: int(logits.argmax()), "frequencies"),
    Fault("no top_k", drawing(lambda s: replace(s, top_k=0)), "frequencies"),
    Fault("no seed", lambda z, s, seen, seed: right.draw(z, s, seen, int(UNSEEDED.integers(1 << 30))), "seeded"),
    Fault("uniform among the kept", lambda z, s, seen, seed: int(np.random.default_rng(seed).choice(
        np.flatnonzero(right.sampler(z, s, seen)))), "frequencies"),
]  # fmt: skip

FAULTS = {
    "rms_norm": NORM, "rope": ROPE, "attention": ATTENTION, "kv_cache": KV_CACHE, "mlp": MLP, "model": MODEL,
    "sampler": SAMPLER, "draw": DRAW,
}  # fmt: skip
