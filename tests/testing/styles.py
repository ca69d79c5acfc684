"""Parts of a LLaMA written in other ways than minillama's, with switches for what people get wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.generation.sampling import Sampling


def norm_in_float32(x: Array, weight: Array, eps: float) -> Array:
    squares = np.einsum("btd,btd->bt", x, x)[..., None] / np.float32(x.shape[-1])
    return x * (1 / np.sqrt(squares + np.float32(eps))) * weight


def rope_by_complex_numbers(
    x: Array, positions: Array, theta: float, scaling: Any, *, angles: type = np.float64, sign: int = 1
) -> Array:
    """Interleaved, without scaling, as Meta's code has it."""
    if scaling is not None:
        raise NotImplementedError("rope scaling")
    K = x.shape[-1]
    frequencies = (theta ** -(np.arange(0, K, 2) / K)).astype(angles)
    turns = np.exp(1j * sign * (positions[..., None].astype(angles) * frequencies).astype(np.float64))[:, None]
    pairs = x.astype(np.float64).reshape(*x.shape[:-1], -1, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * turns
    return np.stack((turned.real, turned.imag), axis=-1).reshape(x.shape).astype(np.float32)


def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    *,
    scale: Callable[[int], float] = lambda K: 1 / math.sqrt(K),
    tile: bool = False,
    shift: int = 0,
    from_left: bool = False,
    axis: int = -1,
    hidden: float = -math.inf,
    subtract: bool = True,
    after: bool = False,
    scores_in: Any = np.float32,
) -> Array:
    """Keys and values repeated for every head, as transformers' eager attention does it."""
    (_, H, T, K), (G, S) = q.shape, k.shape[1:3]
    k, v = ((np.tile(x, (1, H // G, 1, 1)) if tile else np.repeat(x, H // G, axis=1)) for x in (k, v))
    scores = (q.astype(scores_in) @ k.astype(scores_in).swapaxes(2, 3)).astype(np.float32) * np.float32(scale(K))
    if mask is None:
        mask = np.arange(S) <= np.arange(T)[:, None] + (0 if from_left else S - T) + shift
    if not after:
        scores = np.where(mask, scores, np.float32(hidden))
    top = scores.max(axis=axis, keepdims=True) if subtract else np.float32(0)
    p = np.exp(scores - np.where(np.isinf(top), 0, top))
    total = p.sum(axis=axis, keepdims=True)
    p = p / np.where(total == 0, 1, total)
    return (p * mask if after else p) @ v


def attention_online(q: Array, k: Array, v: Array, mask: Array | None, block: int = 2) -> Array:
    """Keys in blocks, with a running maximum and sum, and heads in groups."""
    (B, H, T, K), (G, S) = q.shape, k.shape[1:3]
    grouped = q.reshape(B, G, H // G, T, K)
    seen = np.tri(T, S, S - T, bool)[None, None] if mask is None else mask
    top = np.full((B, G, H // G, T, 1), -1e30, np.float32)
    total, out = np.zeros_like(top), np.zeros(grouped.shape, np.float32)
    for start in range(0, S, block):
        part = slice(start, start + block)
        scores = np.einsum("bghtk,bgsk->bghts", grouped, k[:, :, part]) / np.float32(math.sqrt(K))
        here = seen[:, :, None, :, part]
        above = np.maximum(top, np.where(here, scores, -1e30).max(axis=-1, keepdims=True))
        p = np.where(here, np.exp(np.where(here, scores, 0) - np.where(here, above, 0)), 0)
        shrink = np.exp(top - above)
        total = total * shrink + p.sum(axis=-1, keepdims=True)
        out = out * shrink + np.einsum("bghts,bgsk->bghtk", p, v[:, :, part])
        top = above
    return (out / np.where(total == 0, 1, total)).reshape(q.shape)


class Cache:
    """One array with room for all tokens, into which is written; views of it are returned."""

    def __init__(self, num_layers: int, shape: tuple[int, ...]):
        self.kept = np.zeros((2, num_layers, *shape), np.float32)
        self.lengths = [0] * num_layers

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        start = self.lengths[layer]
        stop = self.lengths[layer] = start + k.shape[2]
        self.kept[0, layer, :, :, start:stop], self.kept[1, layer, :, :, start:stop] = k, v
        return self.kept[0, layer, :, :, :stop], self.kept[1, layer, :, :, :stop]

    def cut(self, length: int) -> None:
        self.lengths = [length] * len(self.lengths)


class ListOfPieces:
    """What was appended, put together when it is asked for; it cannot be cut."""

    def __init__(self, num_layers: int, shape: tuple[int, ...]):
        self.pieces: list[list[tuple[Array, Array]]] = [[] for _ in range(num_layers)]

    def append(self, layer: int, k: Array, v: Array) -> list[Array]:
        self.pieces[layer].append((k, v))
        return [np.concatenate([piece[i] for piece in self.pieces[layer]], axis=2) for i in (0, 1)]


def sigmoid(x: Array) -> Array:
    return (1 + np.tanh(x / 2)) / 2


def mlp(x: Array, gate: Array, up: Array, down: Array) -> Array:
    """Token by token, with the sigmoid by a hyperbolic tangent."""
    hidden = [[(row @ gate.T) * sigmoid(row @ gate.T) * (row @ up.T) for row in rows] for rows in x]
    return np.einsum("btf,df->btd", np.array(hidden), down)


def sampler(logits: Array, settings: Sampling, seen: Sequence[int]) -> Array:
    """In float32, by sorting once."""
    z = logits.astype(np.float32)
    for i in set(seen):
        z[i] = z[i] / settings.repetition_penalty if z[i] > 0 else z[i] * settings.repetition_penalty
    if settings.temperature == 0:
        return np.eye(len(z), dtype=np.float32)[z.argmax()]
    z = z / np.float32(settings.temperature)
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    order = np.argsort(-p)
    keep = np.ones(len(p), bool)
    if settings.top_k:
        keep[order[settings.top_k :]] = False
    if settings.top_p < 1:  # a sum in float32 may reach 1 too early
        keep[order[np.cumsum(p[order]) - p[order] >= settings.top_p]] = False
    keep &= p >= settings.min_p * p.max()
    return np.asarray(p * keep / (p * keep).sum())
