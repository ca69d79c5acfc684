"""One call a component: ConformanceError, which is an AssertionError, if an implementation breaks a property."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minillama.testing.levels import Level, level_named
from minillama.testing.properties import attention, kv_cache, mlp, model, norm, rope, sampler
from minillama.testing.running import Outcome, check

PROPERTIES = [
    *norm.norm,
    *rope.rope,
    *attention.attention,
    *kv_cache.kv_cache,
    *mlp.mlp,
    *model.model,
    *sampler.sampler,
]
FUNCTIONS = tuple(dict.fromkeys(name for prop in PROPERTIES for name in prop.needs))
CONSTANTS = ("level", "layout")


def check_rms_norm(fn: Callable[..., Any], level: str | Level = "float32") -> list[Outcome]:
    """rms_norm(x (B, T, D), weight (D,), eps) -> (B, T, D)"""
    return check(norm.norm, {"rms_norm": fn}, level_named(level))


def check_rope(fn: Callable[..., Any], level: str | Level = "float32", *, layout: str = "halves") -> list[Outcome]:
    """rope(x (B, heads, T, K), positions (B, T), theta, scaling) -> (B, heads, T, K). layout: which components are a
    pair, "halves" j and j + K/2, "interleaved" 2j and 2j + 1. scaling: None or a dictionary as config.rope_scaling."""
    implementation = {"rope": fn, "layout": layout}
    rope.layout_of(implementation)
    return check(rope.rope, implementation, level_named(level))


def check_attention(fn: Callable[..., Any], level: str | Level = "float32") -> list[Outcome]:
    """attention(q (B, H, T, K), k (B, G, S, K), v (B, G, S, K), mask) -> (B, H, T, K). mask: bool (B, 1, T, S), True
    where a query may attend; or None, causal: the queries are the last T of S tokens."""
    return check(attention.attention, {"attention": fn}, level_named(level))


def check_kv_cache(fn: Callable[..., Any], level: str | Level = "float32") -> list[Outcome]:
    """kv_cache(num_layers, (B, G, room, K)) -> a cache with append(layer, k, v), both (B, G, T, K), which returns all
    keys and values of the layer so far, (B, G, S, K) twice; and cut(length), if it can be cut back."""
    return check(kv_cache.kv_cache, {"kv_cache": fn}, level_named(level))


def check_mlp(fn: Callable[..., Any], level: str | Level = "float32") -> list[Outcome]:
    """mlp(x (B, T, D), gate (F, D), up (F, D), down (D, F)) -> (B, T, D), with SiLU"""
    return check(mlp.mlp, {"mlp": fn}, level_named(level))


def check_model(fn: Callable[..., Any], level: str | Level = "float32") -> list[Outcome]:
    """model(config, weights) -> run, with run(ids (B, T)) -> logits (B, T, V), run(ids, mask (B, T)) where rows are
    padded, and, if it has a cache, run.cached(ids, past) -> (logits, past), past being None at first. weights: float32
    arrays under Hugging Face's names."""
    return check(model.model, {"model": fn}, level_named(level))


def check_sampler(
    fn: Callable[..., Any] | None = None,
    level: str | Level = "float32",
    *,
    draw: Callable[..., Any] | None = None,
) -> list[Outcome]:
    """sampler(logits (V,), settings, seen) -> probabilities (V,); draw(logits, settings, seen, seed) -> an id.
    settings: a minillama.generation.Sampling; seen: the ids so far. Without one of the two, its part is skipped."""
    given = {"sampler": fn, "draw": draw}
    return check(sampler.sampler, {name: f for name, f in given.items() if f is not None}, level_named(level))
