import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from minillama.model.cache import KVCache
from minillama.model.ops import Tap
from minillama.model.rope import Rotary
from minillama.model.rope_scaling import inverse_frequencies
from tests.tiny import LONGROPE, ROPES, SEEDS, assert_close, random_ids, spiky, tiny_config, tiny_model


def pairs(cache: KVCache) -> list[Array]:
    return [array for pair in cache for array in pair]


def test_what_is_appended_is_there_in_order_however_it_grew() -> None:
    rng = np.random.default_rng(7)
    k, v = spiky(rng, 2, 3, 11, 4), spiky(rng, 2, 3, 11, 4)
    cache, start = KVCache(2), 0
    for count in (2, 1, 1, 5, 2):
        stop = start + count
        cache.add_positions(np.broadcast_to(np.arange(start, stop), (2, count)))
        for layer, sign in ((0, 1), (1, -1)):
            all_k, all_v = cache.append(layer, sign * k[:, :, start:stop], sign * v[:, :, start:stop])
            np.testing.assert_array_equal(all_k, sign * k[:, :, :stop])
            np.testing.assert_array_equal(all_v, sign * v[:, :, :stop])
        start = stop
    assert (cache.length, len(cache)) == (11, 2)
    np.testing.assert_array_equal(cache[1][0], -k)
    np.testing.assert_array_equal(cache[0][1], v)


def test_the_keys_handed_out_are_rotated() -> None:
    taps: dict[str, Array] = {}
    cache = tiny_model()(random_ids(8, 1, 5), tap=taps.__setitem__).past_key_values
    np.testing.assert_array_equal(cache[1][0], taps["model.layers.1.self_attn.k_rope"])
    np.testing.assert_array_equal(cache[1][1], taps["model.layers.1.self_attn.v_proj"])


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
@pytest.mark.parametrize("length", [8, 13])
def test_the_keys_handed_out_are_rotated_for_the_length_at_hand(kind: str, length: int) -> None:
    taps: dict[str, Array] = {}
    model = tiny_model(**ROPES[kind])
    cache = model(random_ids(9, 1, length), tap=taps.__setitem__).past_key_values
    k = taps["model.layers.0.self_attn.k_proj"][0, 1]  # (T, K), of one head, not rotated
    turned = (k[:, :3] + 1j * k[:, 3:]) * np.exp(
        1j * np.outer(np.arange(length), inverse_frequencies(model.config, np.asarray(length)))
    )
    expected = np.concatenate((turned.real, turned.imag), axis=1) * Rotary(model.config).scale
    assert_close(cache[0][0][0, 1], expected)


@pytest.mark.parametrize("kind", ROPES)
@given(SEEDS, st.integers(1, 12), st.integers(1, 8), st.integers(1, 6))
def test_cut_back_and_gone_on_as_if_nothing_had_been(kind: str, seed: int, kept: int, lost: int, more: int) -> None:
    model = tiny_model(**ROPES[kind])
    ids = random_ids(seed, 2, kept + lost + more)
    cache = model(ids[:, : kept + lost]).past_key_values
    cache.cut(kept)
    assert cache.length == kept
    went_on = model(ids[:, kept + lost :], past_key_values=cache)
    straight = model(ids[:, kept + lost :], past_key_values=model(ids[:, :kept]).past_key_values)
    assert_close(went_on.logits, straight.logits)
    for ours, theirs in zip(pairs(cache), pairs(straight.past_key_values), strict=True):
        assert_close(ours, theirs)


def test_a_cache_that_was_emptied_takes_another_batch() -> None:
    model = tiny_model()
    cache = model(random_ids(10, 3, 4)).past_key_values
    cache.cut(0)
    assert cache.length == 0
    ids = random_ids(11, 1, 4)
    assert_close(model(ids, past_key_values=cache).logits, model(ids).logits)


@pytest.mark.parametrize("kind", ["default", "dynamic"])
def test_forks_do_not_touch_each_other(kind: str) -> None:
    model = tiny_model(**ROPES[kind])
    beginning, one, other = random_ids(12, 2, 7), random_ids(13, 2, 5), random_ids(14, 2, 5)
    trunk = model(beginning).past_key_values
    before = [array.copy() for array in pairs(trunk)]
    twin = trunk.fork()
    of_twin = model(one, past_key_values=twin).logits
    for ours, theirs in zip(pairs(trunk), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    of_trunk = model(other, past_key_values=trunk).logits
    assert (trunk.length, twin.length) == (12, 12)
    assert_close(of_twin, model(np.hstack((beginning, one))).logits[:, 7:])
    assert_close(of_trunk, model(np.hstack((beginning, other))).logits[:, 7:])


def test_a_fork_shares_no_room_with_its_trunk() -> None:
    model = tiny_model()
    beginning, one, other = random_ids(15, 1, 6), random_ids(16, 1, 2), random_ids(17, 1, 2)
    trunk = model(beginning).past_key_values
    trunk.cut(4)  # there is room for two tokens, which both would write to if they shared it
    twin = trunk.fork()
    model(one, past_key_values=trunk)
    model(other, past_key_values=twin)
    for cache, ids in ((trunk, one), (twin, other)):
        straight = model(np.hstack((beginning[:, :4], ids))).past_key_values
        for ours, theirs in zip(pairs(cache), pairs(straight), strict=True):
            assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["default", "longrope"])
@pytest.mark.parametrize("rows", [[1], [2, 0], [1, 1, 0]])
def test_selected_rows_go_on_as_alone(kind: str, rows: list[int]) -> None:
    model = tiny_model(**ROPES[kind])
    ids, more = random_ids(18, 3, 9), random_ids(19, len(rows), 2)
    cache = model(ids).past_key_values
    cache.select(np.array(rows))
    logits = model(more, past_key_values=cache).logits
    assert_close(logits, model(np.hstack((ids[rows], more))).logits[:, 9:])


def test_an_empty_cache_has_no_pairs() -> None:
    cache = KVCache(tiny_config().num_hidden_layers)
    assert cache.length == 0
    with pytest.raises(ValueError, match="empty"):
        cache[0]


def test_rows_at_other_positions_get_their_own_keys() -> None:
    model = tiny_model(**ROPES["dynamic"])
    ids = random_ids(11, 1, 12)
    both = np.concatenate((ids, np.concatenate((np.zeros((1, 3), int), ids[:, :9]), axis=1)))
    mask = np.array([[1] * 12, [0] * 3 + [1] * 9])
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    k, _ = model(both, attention_mask=mask, position_ids=positions).past_key_values[1]
    assert_close(k[:1], model(ids).past_key_values[1][0])
    assert_close(k[1:, :, 3:], model(ids[:, :9]).past_key_values[1][0])


@pytest.mark.parametrize(
    "other",
    [
        {"num_hidden_layers": 3},
        {"num_key_value_heads": 1},
        {"head_dim": 8},
        {"rope_theta": 5e5},
        *(ROPES[kind] for kind in ROPES if kind != "default"),
    ],
)
def test_the_cache_of_another_model_is_refused(other: dict[str, object]) -> None:
    ids = random_ids(12, 1, 4)
    for one, another in ((tiny_model(**other), tiny_model()), (tiny_model(), tiny_model(**other))):
        past = one(ids).past_key_values
        for cache in (past, past.fork()):
            with pytest.raises(ValueError, match="past_key_values is the cache of another model"):
                another(ids, past_key_values=cache)
            assert cache.length == 4


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("yarn", {"rope_scaling": ROPES["yarn"]["rope_scaling"] | {"attention_factor": 2.0}}),
        ("dynamic", {"max_position_embeddings": 16}),
        ("longrope", {"rope_scaling": LONGROPE | {"original_max_position_embeddings": 16}}),
    ],
)
def test_two_of_one_kind_are_told_apart(kind: str, other: dict[str, object]) -> None:
    ids, model = random_ids(12, 1, 4), tiny_model(**ROPES[kind])
    past = model(ids).past_key_values
    with pytest.raises(ValueError, match="the cache of another model"):
        tiny_model(**ROPES[kind] | other)(ids, past_key_values=past)
    assert tiny_model(**ROPES[kind])(ids, past_key_values=past).past_key_values.length == 8


@pytest.mark.parametrize("compat", [None, "hf4", "hf5"])
def test_caches_of_scalings_by_length_go_with_their_own_only(compat: str | None) -> None:
    ids = random_ids(12, 1, 4)

    def model(factor: float, compat: str | None = compat, key: str = "rope_type") -> LlamaForCausalLM:
        return tiny_model(rope_scaling={key: "dynamic", "factor": factor}, compat=compat)

    past = model(2.0)(ids).past_key_values
    for other in (model(8.0), model(2.0, "hf5" if compat == "hf4" else "hf4" if compat else "hf5")):
        with pytest.raises(ValueError, match="the cache of another model"):
            other(ids, past_key_values=past)
    assert_close(
        model(2.0, key="type")(ids, past_key_values=past.fork()).logits, model(2.0)(ids, past_key_values=past).logits
    )


def test_a_model_that_turns_alike_takes_the_cache() -> None:
    ids = random_ids(12, 1, 4)
    past = tiny_model(compat="hf4")(ids).past_key_values
    again = tiny_model(max_position_embeddings=64, rope_scaling={"type": "default"})
    assert_close(again(ids, past_key_values=past.fork()).logits, tiny_model()(ids, past_key_values=past).logits)
    assert tiny_model()(ids, past_key_values=KVCache(2)).past_key_values.length == 4  # one that nobody has used yet
    with pytest.raises(ValueError, match="the cache of another model"):
        tiny_model(**ROPES["dynamic"])(ids, past_key_values=KVCache(2))


def test_a_cache_of_another_precision_is_refused() -> None:
    ids = random_ids(12, 1, 4)
    past = tiny_model(dtype="float32")(ids).past_key_values
    with pytest.raises(ValueError, match="past_key_values holds float32 and the model computes in float64"):
        tiny_model()(ids, past_key_values=past)
    past.cut(0)
    assert tiny_model()(ids, past_key_values=past).past_key_values[0][0].dtype == np.float64


def stop_at(where: str) -> Tap:
    """A tap that interrupts the pass at one intermediate."""

    def stop(name: str, array: Array) -> None:
        if name == where:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("where", ["model.layers.1.mlp.up", "model.norm", "logits"])
@pytest.mark.parametrize("length", [0, 5])
def test_a_pass_that_fails_leaves_the_cache_as_it_was(length: int, where: str) -> None:
    model, ids = tiny_model(), random_ids(13, 2, 9)
    past = model(ids[:, :5]).past_key_values
    past.cut(length)
    with pytest.raises(KeyboardInterrupt):
        model(ids[:, :3], past_key_values=past, tap=stop_at(where))
    assert past.length == length
    whole = model(ids[:, 5 - length :]).logits  # of what is left, and what comes now
    assert_close(model(ids[:, 5:], past_key_values=past).logits, whole[:, length:])


def test_what_makes_no_sense_after_the_decoder_is_refused_before_it() -> None:
    model, ids = tiny_model(), random_ids(13, 2, 9)
    past = model(ids).past_key_values
    with pytest.raises(ValueError, match="logits_to_keep must be 0"):
        model(ids, past_key_values=past, logits_to_keep=-1)
    with pytest.raises(KeyboardInterrupt):
        model.model(ids, past_key_values=past, tap=stop_at("layers.0.output"))
    assert past.length == 9
