"""minillama's own kernels, as the conformance suite calls them:

pytest --pyargs minillama.testing.suite --impl minillama.testing.adapters.numba_kernels

The module's functions compute with weights, keys and values in float32; Kernels(form) has the same functions for the
other formats. There is no sampler: sampling is NumPy's whichever engine computes the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.kernels import ACTIVATIONS
from minillama.kernels import attention as attending
from minillama.kernels import mlp as feed_forward
from minillama.kernels import norm as norming
from minillama.kernels import rope as turning
from minillama.kernels.floats import panel_room
from minillama.kernels.linear import block_rows, linear, whole_blocks
from minillama.kernels.llvm import LANES
from minillama.kernels.quantize import arrange_row
from minillama.kernels.state import Arranged
from minillama.layout import GROUP, QUANTIZED, TILE, rounded_up
from minillama.model.decoder import Decoder
from minillama.model.rope import Rotary
from minillama.runtime.angles import Angles
from minillama.runtime.cache import RowCache
from minillama.runtime.decoder import BatchCache, FastDecoder
from minillama.runtime.model import FastModel
from minillama.runtime.packing import aligned, pack, quantize, row_width
from minillama.weights import Parameters, names
from minillama.weights.safetensors import ArrayTensor, Tensor

LEVEL = {"f32": "float32", "bf16": "bf16", "q8_0": "quantized", "q4_0": "quantized"}
CACHED = {"f32": "f32", "bf16": "bf16", "q8_0": "f16", "q4_0": "f16"}  # keys and values, beside weights of a format


@njit
def _norm(x: Any, weight: Any, width: int, size: int, eps: float, out: Any) -> None:
    for i in range(0, len(x), width):
        norming.rms_norm(x, i, weight, width, size, eps, out, i)


@njit
def _rotate(x: Any, heads: int, head_dim: int, cos: Any, sin: Any, rows: int) -> None:
    for row in range(rows):
        turning.rotate(x, row * heads * head_dim, heads, head_dim, cos, sin, row * (head_dim // 2))


@njit
def _attend(
    q: Any, first: int, heads: int, rows: int, head_dim: int, past: int, keys: Any, k_size: int, values: Any,
    v_size: int, groups: int, flags: Any, masked: bool, no_angles: Any, own: Any, out: Any,
) -> None:  # fmt: skip
    step = groups * heads * head_dim
    for g in range(groups):
        attending.attention(
            q, first, step, g, heads, 0, rows, head_dim, past, keys, g * k_size, values, g * v_size,
            flags, 0, masked, no_angles, no_angles, False, own, out, step,
        )  # fmt: skip


@njit
def _product(
    x: Any, width: int, w: Any, scales: Any, n_out: int, n: int, rows: int, to: Any, panel: Any, work: Any, out: Any,
    out_step: int,
) -> None:  # fmt: skip
    for row in range(n):
        arrange_row((w,), x, row * width, 0, width, width, to.a, to.s, to.z, row, rows)
    linear(out, out_step, w, scales, n_out, width, to, n, panel, work, 0)


@njit
def _gate(act: int, gate: Any, up: Any) -> None:
    feed_forward.gated(act, gate, 0, up, 0, len(gate))


def widened(x: Array, width: int) -> Array:
    """Rows (..., n) as float32 rows of `width` numbers, zeros behind their own."""
    rows = np.zeros((x.size // x.shape[-1], width), np.float32)
    rows[:, : x.shape[-1]] = x.reshape(-1, x.shape[-1])
    return rows


class Kernels:
    """The functions of docs/testing.md for weights in a format of LEVEL."""

    layout = "halves"

    def __init__(self, form: str):
        self.form, self.level, self.quantized = form, LEVEL[form], form in QUANTIZED

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        D, width = x.shape[-1], rounded_up(x.shape[-1], LANES)
        rows = widened(x, width)
        out = np.empty_like(rows)
        _norm(rows.reshape(-1), widened(weight, width)[0], width, D, eps, out.reshape(-1))
        return out[:, :D].reshape(x.shape)

    def rope(self, x: Array, positions: Array, theta: float, scaling: dict[str, Any] | None) -> Array:
        B, heads, T, K = x.shape
        head: dict[str, Any] = {"hidden_size": K, "num_attention_heads": 1}
        rotary = Rotary(LlamaConfig(**head, rope_theta=theta, rope_scaling=scaling))
        cos, sin = np.empty((2, B * T, K // 2), np.float32)
        Angles(rotary).write(positions.reshape(-1), rotary.inv_freq(positions, T), cos, sin)
        rows = np.ascontiguousarray(x.swapaxes(1, 2), np.float32)  # (B, T, heads, K)
        _rotate(rows.reshape(-1), heads, K, cos.reshape(-1), sin.reshape(-1), B * T)
        return rows.swapaxes(1, 2)

    def attention(self, q: Array, k: Array, v: Array, mask: Array | None) -> Array:
        """The kernel's mask is of keys, the same for all queries, beside the causal one: where each query has its own,
        it is called for one query after the other, as the last of all tokens."""
        (B, H, T, K), (G, S) = q.shape, k.shape[1:3]
        out = np.empty((B, T, H, K), np.float32)
        for b in range(B):
            cache = RowCache(1, G, K, CACHED[self.form], S)
            cache.put(0, 0, k[b], v[b], np.arange(S))
            queries = np.ascontiguousarray(q[b].swapaxes(0, 1), np.float32).reshape(-1)
            pieces = [(0, T)] if mask is None else [(t, t + 1) for t in range(T)]
            for start, stop in pieces:
                flags = np.zeros(cache.capacity, np.uint8)
                flags[:S] = 1 if mask is None else mask[b, 0, start]
                part = np.empty((stop - start) * H * K, np.float32)
                own, no_angles = np.empty(attending.own_room(K, H // G), np.float32), np.zeros(0, np.float32)
                _attend(
                    queries[start * H * K :], 0, H // G, (stop - start) * (H // G), K, S - (stop - start),
                    cache.keys, cache.capacity * K, cache.values, cache.capacity * cache.width, G, flags,
                    mask is not None, no_angles, own, part,
                )  # fmt: skip
                out[b, start:stop] = part.reshape(-1, H, K)
        return out.swapaxes(1, 2)

    def kv_cache(self, num_layers: int, shape: tuple[int, int, int, int]) -> Cache:
        return Cache(num_layers, shape, CACHED[self.form])

    def mlp(self, x: Array, gate: Array, up: Array, down: Array) -> Array:
        hidden, other = self._product(x, gate), self._product(x, up)
        _gate(ACTIVATIONS["silu"], hidden.reshape(-1), other.reshape(-1))
        return self._product(hidden[:, : len(gate)], down)[:, : len(down)].reshape(x.shape)

    def _product(self, x: Array, weight: Array) -> Array:
        """x W^T, with zeros behind the numbers of each row up to a whole vector."""
        n_out, D = weight.shape
        width, step = row_width(D, self.form), rounded_up(n_out, TILE)
        packed = pack(self._tensor(weight), self.form)
        rows = widened(x, width)
        n, block = len(rows), block_rows(self.quantized, len(rows))
        count = whole_blocks(self.quantized, n)
        a = aligned(count * width, np.int8 if self.quantized else np.float32)
        a[:] = 0
        groups = count * width // GROUP + 1
        out = np.zeros((count, step), np.float32)
        to = Arranged(a, np.zeros(groups, np.float32), np.zeros(groups, np.int32), 1)
        _product(
            rows.reshape(-1), width, packed.numbers, packed.scales, n_out, n, block, to,
            np.zeros(panel_room(n), np.float32), np.zeros(1, np.int64), out.reshape(-1), step,
        )  # fmt: skip
        return out[:n]

    def _tensor(self, weight: Array) -> Tensor:
        """A weight as a loaded model has it."""
        tensor = ArrayTensor(weight)
        return quantize(tensor, self.form) if self.quantized and weight.ndim == 2 else tensor

    def model(self, config: LlamaConfig, weights: Mapping[str, Array]) -> Model:
        tensors = {name: self._tensor(weight) for name, weight in weights.items()}
        return Model(config, names.match_tensors(config, tensors, {}, "weights"), self.form)


class Cache:
    """A cache row by row, each with all its layers, given tokens layer by layer as a pass gives them."""

    def __init__(self, num_layers: int, shape: tuple[int, int, int, int], form: str):
        B, G, _, K = shape  # it grows by itself
        self.rows = [RowCache(num_layers, G, K, form) for _ in range(B)]
        self.lengths = [0] * num_layers

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        start = self.lengths[layer]
        stop = self.lengths[layer] = start + k.shape[2]
        pairs = []
        for row, of_k, of_v in zip(self.rows, k, v, strict=True):
            row.put(layer, start, of_k, of_v, np.arange(start, stop))
            row.length = stop
            pairs.append(row.pairs()[layer])
        return np.stack([of_k for of_k, _ in pairs]), np.stack([of_v for _, of_v in pairs])

    def cut(self, length: int) -> None:
        self.lengths = [length] * len(self.lengths)
        for row in self.rows:
            row.length = length


class Model:
    """The engine that generate.py runs with --engine numba, on one thread."""

    def __init__(self, config: LlamaConfig, tensors: dict[str, Tensor], form: str):
        self.fast = FastModel(config, tensors, form, CACHED[form], threads=1)
        self.decoder = FastDecoder(self.fast, Decoder(config, Parameters(tensors, config)))

    def __call__(self, ids: Array, mask: Array | None = None) -> Array:
        return self._logits(ids, self.decoder.new_cache(), mask)

    def cached(self, ids: Array, past: BatchCache | None) -> tuple[Array, BatchCache]:
        past = self.decoder.new_cache() if past is None else past
        return self._logits(ids, past, None), past

    def _logits(self, ids: Array, cache: BatchCache, mask: Array | None) -> Array:
        hidden = self.decoder(self.decoder.embed(ids), cache, mask)
        return self.fast.lm_logits(hidden.reshape(-1, hidden.shape[-1])).reshape(*ids.shape, -1)


_FLOATS = Kernels("f32")
level, layout = _FLOATS.level, _FLOATS.layout
rms_norm, rope, attention, kv_cache = _FLOATS.rms_norm, _FLOATS.rope, _FLOATS.attention, _FLOATS.kv_cache
mlp, model = _FLOATS.mlp, _FLOATS.model
