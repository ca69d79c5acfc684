"""Tolerances: what is right passes at its level, and what is coarser than that does not."""

import math
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.model.attention import grouped_context, grouped_scores, visible_keys
from minillama.model.mlp import silu
from minillama.model.ops import softmax
from minillama.testing import ConformanceError, check_attention, check_kv_cache, check_mlp, check_model, check_rms_norm
from minillama.testing.adapters import numpy_model
from minillama.testing.levels import LEVELS, bfloat16, level_named, on_four_bits
from tests.testing import eight_bits
from tests.tiny import spiky

# -- the same components, rounded to bfloat16 behind every operation -------------------------------------------------


def norm_bf16(x: Array, weight: Array, eps: float) -> Array:
    normed = bfloat16(x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps)))
    return bfloat16(normed * weight)


def attention_bf16(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    seen = visible_keys(q.shape[2], k.shape[2]) if mask is None else mask
    scores = bfloat16(bfloat16(grouped_scores(q, k)) / math.sqrt(q.shape[3]))
    return bfloat16(grouped_context(bfloat16(softmax(np.where(seen, scores, -math.inf))), v))


def mlp_bf16(x: Array, gate: Array, up: Array, down: Array) -> Array:
    hidden = bfloat16(bfloat16(silu(bfloat16(x @ gate.T))) * bfloat16(x @ up.T))
    return bfloat16(hidden @ down.T)


class CacheBf16:
    def __init__(self, num_layers: int, shape: tuple[int, ...]):
        self.cache = numpy_model.kv_cache(num_layers, shape)

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        return self.cache.append(layer, bfloat16(k), bfloat16(v))

    def cut(self, length: int) -> None:
        self.cache.cut(length)


ROUNDED = [
    (check_rms_norm, norm_bf16),
    (check_attention, attention_bf16),
    (check_mlp, mlp_bf16),
    (check_kv_cache, CacheBf16),
]


@pytest.mark.parametrize(("check", "fn"), ROUNDED)
def test_bfloat16_passes_as_bf16_and_not_as_float32(check: Any, fn: Any) -> None:
    assert all(outcome.skipped is None for outcome in check(fn, level="bf16"))
    with pytest.raises(ConformanceError, match="times what is allowed"):
        check(fn)


def test_a_mean_of_squares_in_bfloat16_is_too_coarse_for_bf16() -> None:
    def norm(x: Array, weight: Array, eps: float) -> Array:
        total = np.zeros_like(x[..., :1])
        for j in range(x.shape[-1]):
            total = bfloat16(total + bfloat16(x[..., j : j + 1] ** 2))
        return bfloat16(bfloat16(x / bfloat16(np.sqrt(bfloat16(total / x.shape[-1]) + eps))) * weight)

    with pytest.raises(ConformanceError, match="rms_norm::"):
        check_rms_norm(norm, level="bf16")


@pytest.mark.filterwarnings("ignore:model..cached is skipped")
@pytest.mark.parametrize(("check", "fn"), [(check_mlp, eight_bits.mlp), (check_model, eight_bits.model)])
def test_eight_bits_pass_as_quantized_and_not_as_bf16(check: Any, fn: Any) -> None:
    check(fn, level="quantized")
    with pytest.raises(ConformanceError):
        check(fn, level="float32")


def test_four_bit_weights_lose_nothing_in_q4_0() -> None:
    w = on_four_bits(spiky(np.random.default_rng(0), 5, 64))
    groups = w.reshape(5, 2, 32)
    peak = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[..., None], axis=2)
    scale = (peak / -8).astype(np.float16).astype(np.float32)  # as ggml finds it
    whole = groups / scale
    np.testing.assert_array_equal(whole, np.rint(whole))
    assert whole.min() == -8
    assert whole.max() <= 8
    assert len(np.unique(whole)) > 10
    np.testing.assert_array_equal(groups, np.clip(np.rint(groups / scale), -8, 7) * scale)


def test_inputs_are_numbers_that_the_level_has() -> None:
    x = spiky(np.random.default_rng(1), 4, 32)
    assert not np.array_equal(bfloat16(x), x.astype(np.float32))
    for name, exact in (("float32", np.float32), ("bf16", bfloat16)):
        np.testing.assert_array_equal(LEVELS[name].rounded(x), exact(x))  # type: ignore[operator]
    np.testing.assert_array_equal(LEVELS["quantized"].weight(x), on_four_bits(x))
    np.testing.assert_array_equal(LEVELS["quantized"].weight(x[0]), x[0].astype(np.float32))


def test_steps_are_a_part_of_the_largest_of_a_group() -> None:
    x = np.zeros((1, 64))
    x[0, 3], x[0, 40] = -127, 254
    np.testing.assert_allclose(LEVELS["quantized"].stepped(x)[0], [0.5] * 32 + [1.0] * 32)
    assert not LEVELS["bf16"].stepped(x).any()


def test_a_level_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match="level 'fp8' is unknown: use one of float32, bf16, quantized"):
        level_named("fp8")
