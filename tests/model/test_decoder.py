import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from minillama.model.attention import self_attention, visible_keys
from minillama.model.cache import KVCache
from minillama.model.mlp import mlp, silu
from minillama.model.norm import rms_norm
from minillama.model.rope import Rotations
from tests.tiny import ROPES, SEEDS, SIZES, assert_close, random_ids, tiny_model

kinds = pytest.mark.parametrize("kind", ROPES)


def in_pieces(model: LlamaForCausalLM, ids: Array, lengths: list[int]) -> Array:
    cache, logits, start = None, [], 0
    for length in lengths:
        out = model(ids[:, start : start + length], past_key_values=cache)
        cache, start = out.past_key_values, start + length
        logits.append(out.logits)
    assert start == ids.shape[1]
    return np.concatenate(logits, axis=1)


def positions_of(mask: Array) -> Array:
    """Counted over real tokens only, as generation counts them."""
    return np.maximum(mask.cumsum(axis=1) - 1, 0)


def test_a_layer_is_norm_attention_norm_mlp_with_two_shortcuts() -> None:
    model = tiny_model(num_hidden_layers=1)
    w, eps = model.weights.layers[0], model.config.rms_norm_eps
    ids, positions = random_ids(40, 2, 6), np.arange(6)[None]
    x = model.decoder.embed(ids)
    rotations = Rotations(model.decoder.rotary, positions, positions, x.dtype)
    h = x + self_attention(rms_norm(x, w.input_norm, eps), w, 6, rotations, visible_keys(6, 6), KVCache(1), 0)
    h = h + mlp(rms_norm(h, w.post_attention_norm, eps), w, silu)
    assert_close(model.decoder(x, model.decoder.new_cache()), rms_norm(h, model.weights.norm, eps))


# -- the cache ----------------------------------------------------------------------------------------------------


@kinds
@given(SEEDS, st.integers(2, 20))
def test_token_by_token_equals_all_at_once(kind: str, seed: int, length: int) -> None:
    model, ids = tiny_model(**ROPES[kind]), random_ids(seed, 2, length)
    assert_close(in_pieces(model, ids, [1] * length), model(ids).logits)


@kinds
@given(SEEDS, st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_any_pieces_equal_all_at_once(kind: str, seed: int, lengths: list[int]) -> None:
    model, ids = tiny_model(**ROPES[kind]), random_ids(seed, 1, sum(lengths))
    assert_close(in_pieces(model, ids, lengths), model(ids).logits)


# -- who sees whom ------------------------------------------------------------------------------------------------


@kinds
@given(SEEDS, st.integers(1, 14), st.data())
def test_a_token_changes_nothing_before_it(kind: str, seed: int, length: int, data: st.DataObject) -> None:
    t = data.draw(st.integers(0, length - 1))
    model, ids = tiny_model(**ROPES[kind]), random_ids(seed, 1, length)
    changed = ids.copy()
    changed[0, t] = (ids[0, t] + 1) % SIZES["vocab_size"]
    before, after = model(ids).logits, model(changed).logits
    assert_close(after[:, :t], before[:, :t])
    assert np.abs(after[0, t] - before[0, t]).max() > 1e-3 * np.abs(before).max()  # and something from it on


@kinds
@given(SEEDS, st.integers(1, 12), st.integers(1, 8))
def test_a_padded_row_gives_what_it_gives_alone(kind: str, seed: int, length: int, pads: int) -> None:
    model, ids = tiny_model(**ROPES[kind]), random_ids(seed, 1, length)
    alone = model(ids).logits
    filler = random_ids(seed + 1, 1, pads)
    left, right = np.hstack((filler, ids)), np.hstack((ids, filler))
    ones, zeros = np.ones_like(ids), np.zeros_like(filler)
    # beside a row that is as long as both together
    batch = np.vstack((left, right, random_ids(seed + 2, 1, length + pads)))
    mask = np.vstack((np.hstack((zeros, ones)), np.hstack((ones, zeros)), np.ones((1, length + pads), int)))
    logits = model(batch, attention_mask=mask, position_ids=positions_of(mask)).logits
    assert_close(logits[:1, pads:], alone)
    assert_close(logits[1:2, :length], alone)
    assert np.isfinite(logits).all()  # what padding itself gives means nothing, but is a number


# -- the rest -----------------------------------------------------------------------------------------------------


def test_every_intermediate_has_a_name_and_a_shape() -> None:
    taps: dict[str, Array] = {}
    tiny_model()(random_ids(41, 3, 5), tap=taps.__setitem__)
    B, T, D, H, G, K, F, V = 3, 5, 16, 4, 2, 6, 20, 37
    layer = {
        "input_norm": (B, T, D), "self_attn.q_proj": (B, H, T, K), "self_attn.k_proj": (B, G, T, K),
        "self_attn.v_proj": (B, G, T, K), "self_attn.q_rope": (B, H, T, K), "self_attn.k_rope": (B, G, T, K),
        "self_attn.scores": (B, H, T, T), "self_attn.probs": (B, H, T, T), "self_attn.context": (B, T, H * K),
        "self_attn.o_proj": (B, T, D), "residual": (B, T, D), "post_attention_norm": (B, T, D),
        "mlp.gate": (B, T, F), "mlp.up": (B, T, F), "mlp.act": (B, T, F), "mlp.down": (B, T, D), "output": (B, T, D),
    }  # fmt: skip
    layers = {f"model.layers.{i}.{name}": shape for i in range(2) for name, shape in layer.items()}
    expected = {"model.embed_tokens": (B, T, D), **layers, "model.norm": (B, T, D), "logits": (B, T, V)}
    assert {name: array.shape for name, array in taps.items()} == expected
    assert list(taps) == list(expected)  # in the order of the computation


def test_embedding_takes_the_rows_of_the_table() -> None:
    model = tiny_model()
    ids = np.array([[3, 36, 0], [3, 3, 1]])
    np.testing.assert_array_equal(model.decoder.embed(ids), model.weights.read("model.embed_tokens.weight")[ids])


@pytest.mark.parametrize("bad", [37, -1])
def test_an_id_outside_the_vocabulary(bad: int) -> None:
    with pytest.raises(ValueError, match=rf"input_ids has the id {bad}, outside the vocabulary 0..36"):
        tiny_model().decoder.embed(np.array([[1, bad]]))
