import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.model.attention import (
    grouped_context,
    grouped_scores,
    merge_heads,
    self_attention,
    split_heads,
    visible_keys,
)
from minillama.model.cache import KVCache
from minillama.model.ops import softmax
from minillama.model.rope import Rotary, Rotations, rotate
from tests.tiny import SEEDS, assert_close, spiky, tiny_config

D, K = 10, 6


def attention_weights(rng: np.random.Generator, H: int, G: int) -> SimpleNamespace:
    shapes = {"q": (H * K, D), "k": (G * K, D), "v": (G * K, D), "o": (D, H * K)}
    matrices = {f"{name}_proj": spiky(rng, *shape) / math.sqrt(shape[1]) for name, shape in shapes.items()}
    biases = {f"{name}_bias": spiky(rng, shape[0]) for name, shape in shapes.items()}
    return SimpleNamespace(**matrices, **biases)


def attend(x: Array, w: SimpleNamespace, visible: Array, seen: dict[str, Array] | None = None) -> Array:
    positions = np.broadcast_to(np.arange(x.shape[1]), x.shape[:2])
    rotations = Rotations(Rotary(tiny_config()), positions, positions, x.dtype)
    seen = {} if seen is None else seen
    return self_attention(x, w, K, rotations, visible, KVCache(1), 0, seen.__setitem__)


def test_the_formula_in_loops() -> None:
    """With grouped heads, all four biases, and one key hidden from everyone."""
    rng = np.random.default_rng(5)
    B, T, H, G = 2, 5, 4, 2
    x, w = spiky(rng, B, T, D), attention_weights(rng, H, G)
    mask = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 1]])
    positions, rotary = np.arange(T)[None], Rotary(tiny_config())
    cos, sin = rotary.angles(positions, rotary.inv_freq(positions, T), np.float64)

    expected = np.zeros((B, T, D))
    for b in range(B):
        context = np.zeros((T, H * K))
        for h in range(H):
            g = h // (H // G)  # neighbouring query heads share a key/value head
            mine, shared = slice(h * K, h * K + K), slice(g * K, g * K + K)
            q = rotate((x[b] @ w.q_proj[mine].T + w.q_bias[mine])[None, None], cos, sin)[0, 0]
            k = rotate((x[b] @ w.k_proj[shared].T + w.k_bias[shared])[None, None], cos, sin)[0, 0]
            v = x[b] @ w.v_proj[shared].T + w.v_bias[shared]
            for t in range(T):
                keys = [s for s in range(t + 1) if mask[b, s]]
                parts = np.array([math.exp(q[t] @ k[s] / math.sqrt(K)) for s in keys])
                context[t, mine] = parts / parts.sum() @ v[keys]
        expected[b] = context @ w.o_proj.T + w.o_bias
    assert_close(attend(x, w, visible_keys(T, T, mask)), expected)


@given(SEEDS, st.sampled_from([(4, 1), (4, 2), (4, 4), (6, 2), (6, 3)]), st.integers(1, 6))
def test_grouped_heads_equal_full_ones_with_repeated_keys_and_values(seed: int, heads: tuple[int, int], T: int) -> None:
    H, G = heads
    rng = np.random.default_rng(seed)
    x, w = spiky(rng, 2, T, D), attention_weights(rng, H, G)
    repeated = SimpleNamespace(**vars(w))
    for name in ("k_proj", "v_proj", "k_bias", "v_bias"):
        matrix = getattr(w, name).reshape(G, K, -1)
        setattr(repeated, name, np.repeat(matrix, H // G, axis=0).reshape(H * K, *getattr(w, name).shape[1:]))
    visible = visible_keys(T, T)
    assert_close(attend(x, w, visible), attend(x, repeated, visible))


@given(SEEDS)
def test_scores_and_context_of_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, k, v = spiky(rng, 2, 6, 3, K), spiky(rng, 2, 2, 5, K), spiky(rng, 2, 2, 5, 4)
    scores = grouped_scores(q, k)
    assert_close(scores, np.einsum("bhtk,bhsk->bhts", q, np.repeat(k, 3, axis=1)))
    assert_close(grouped_context(scores, v), np.einsum("bhts,bhsk->bhtk", scores, np.repeat(v, 3, axis=1)))


def test_a_query_that_may_see_no_key_gets_zeros() -> None:
    rng = np.random.default_rng(6)
    x, w = spiky(rng, 2, 4, D), attention_weights(rng, 4, 2)
    mask = np.array([[0, 0, 1, 1], [1, 1, 0, 1]])
    seen: dict[str, Array] = {}
    out = attend(x, w, visible_keys(4, 4, mask), seen)
    assert (seen["probs"][0, :, :2] == 0).all()
    assert (seen["context"][0, :2] == 0).all()
    np.testing.assert_array_equal(out[0, :2], [w.o_bias, w.o_bias])
    assert (seen["context"][0, 2:] != 0).all()
    assert (seen["context"][1] != 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_sum_to_one_whatever_the_scores(dtype: str) -> None:
    scores = np.array([[1e4, -1e4, 9999.0], [-3e38, 0, 1], [5, 5, -np.inf]], dtype)
    probs = softmax(scores)
    assert probs.dtype == dtype
    np.testing.assert_allclose(probs.sum(axis=-1), 1, rtol=1e-6)  # three roundings of float32, 6e-8 each
    np.testing.assert_array_equal(probs[2], [0.5, 0.5, 0])


def test_who_sees_whom() -> None:
    np.testing.assert_array_equal(visible_keys(3, 3)[0, 0], [[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(visible_keys(2, 4)[0, 0], [[1, 1, 1, 0], [1, 1, 1, 1]])  # two are cached
    padded = visible_keys(2, 3, np.array([[1, 1, 1], [0, 1, 1]]))
    assert padded.shape == (2, 1, 2, 3)
    np.testing.assert_array_equal(padded[1, 0], [[0, 1, 0], [0, 1, 1]])


def test_heads_lie_side_by_side() -> None:
    x = np.arange(2 * 3 * 8.0).reshape(2, 3, 8)
    heads = split_heads(x, 2)
    assert heads.shape == (2, 4, 3, 2)
    np.testing.assert_array_equal(heads[1, 2, 0], x[1, 0, 4:6])
    np.testing.assert_array_equal(merge_heads(heads), x)
