"""The public classes on compiled kernels, beside the same classes on NumPy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import minillama.runtime.model
from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM, LlamaForSequenceClassification
from minillama.runtime.decoder import BatchCache
from minillama.runtime.model import SOME
from minillama.weights.names import EMBED_TOKENS
from tests.tiny import ROPES, random_ids, random_weights, tiny_config

kinds = pytest.mark.parametrize("kind", ROPES)
IDS = random_ids(81, 3, 14)
MASK = np.ones((3, 14), int)
MASK[0, :3], MASK[1, 6], MASK[2, 12:] = 0, 0, 0
POSITIONS = np.maximum(MASK.cumsum(axis=1) - 1, 0)


@pytest.fixture(autouse=True, scope="module")
def all_threads() -> Iterator[None]:
    """Work this small would be done by one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minillama.runtime.model.SMALL", 0)
        yield


def both(**overrides: Any) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """On the kernels, and on NumPy in float64."""
    weights = random_weights(tiny_config(**overrides))
    return (
        LlamaForCausalLM(tiny_config(**overrides), weights, engine="numba", dtype="f32", threads=2),
        LlamaForCausalLM(tiny_config(**overrides), weights, dtype="float64"),
    )


def assert_near(ours: Array, exact: Array) -> None:
    """float32 rounds at 6e-8; sums of some dozen terms through two spiky layers make that some 1e-6 of the scale."""
    assert ours.dtype == np.float32
    assert ours.shape == exact.shape
    assert np.abs(ours - exact).max() < 1e-5 * np.abs(exact).max()


@kinds
def test_masks_positions_and_hidden_states(kind: str) -> None:
    fast, exact = both(attention_bias=True, mlp_bias=True, **ROPES[kind])
    how = {"attention_mask": MASK, "position_ids": POSITIONS, "labels": IDS, "output_hidden_states": True}
    ours, theirs = fast(IDS, **how), exact(IDS, **how)
    assert_near(ours.logits, theirs.logits)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert len(ours.hidden_states) == 3
    for x, y in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert_near(x, y)
    for pair, other in zip(ours.past_key_values, theirs.past_key_values, strict=True):
        for x, y in zip(pair, other, strict=True):
            assert_near(x, y)


@kinds
def test_a_cache_goes_on_whoever_computes(kind: str) -> None:
    """Attentions are computed by the NumPy model, on the same cache."""
    fast, exact = both(**ROPES[kind])
    ours = theirs = None
    for start, stop, attentions in ((0, 5, False), (5, 9, True), (9, 14, False)):
        how = {
            "attention_mask": MASK[:, :stop], "position_ids": POSITIONS[:, start:stop], "output_attentions": attentions,
        }  # fmt: skip
        ours = fast(IDS[:, start:stop], past_key_values=ours and ours.past_key_values, **how)
        theirs = exact(IDS[:, start:stop], past_key_values=theirs and theirs.past_key_values, **how)
        assert_near(ours.logits, theirs.logits)
        assert isinstance(ours.past_key_values, BatchCache)
        if attentions:
            assert_near(ours.attentions[1], theirs.attentions[1])
        else:
            assert ours.attentions is None


@kinds
def test_plain_pairs_and_caches_of_the_other_engine(kind: str) -> None:
    fast, exact = both(**ROPES[kind])
    whole = exact(IDS).logits
    for past in (tuple(fast(IDS[:, :9]).past_key_values), exact(IDS[:, :9]).past_key_values):
        assert_near(fast(IDS[:, 9:], past_key_values=past).logits, whole[:, 9:])
    out = exact(IDS[:, 9:], past_key_values=fast(IDS[:, :9]).past_key_values)
    assert np.abs(out.logits - whole[:, 9:]).max() < 1e-5 * np.abs(whole).max()


def test_the_cache_of_another_model_is_refused() -> None:
    past = both()[0](IDS).past_key_values
    with pytest.raises(ValueError, match="past_key_values is the cache of another model"):
        both()[0](IDS, past_key_values=past)


def test_a_cache_is_cut_copied_and_selected() -> None:
    fast = both()[0].model
    past = fast(IDS).past_key_values
    twin = past.fork()
    past.cut(5)
    past.select(np.array([2, 0]))
    assert (past.length, twin.length, len(past)) == (5, 14, 2)
    again = fast(IDS[[2, 0], 5:], past_key_values=past).last_hidden_state
    np.testing.assert_array_equal(again, fast(IDS).last_hidden_state[[2, 0], 5:])  # to the bit
    with pytest.raises(ValueError, match="cannot cut a cache of 14 tokens back to 15"):
        twin.cut(15)
    twin.cut(0)
    assert fast(IDS[:1], past_key_values=twin).last_hidden_state.shape == (1, 14, 16)


def test_a_call_that_fails_leaves_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = both()[0]
    past = fast(IDS[:, :5]).past_key_values
    with pytest.raises(ValueError, match="the cache holds a batch of 3 rows and the input has 1"):
        fast(IDS[:1, 5:], past_key_values=past)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        fast(np.full((3, 2), 99), past_key_values=past)
    assert past.length == 5


def test_a_call_that_fails_between_two_pieces_leaves_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = both()[0]
    whole, past = fast(IDS).logits, fast(IDS[:, :5]).past_key_values
    run, passes = past.model.run, []

    def failing(*args: Any, **settings: Any) -> Any:
        passes.append(run(*args, **settings))
        if len(passes) == 2:
            raise MemoryError
        return passes[-1]

    monkeypatch.setattr("minillama.runtime.decoder.CHUNK", 7)
    with monkeypatch.context() as patch:
        patch.setattr(past.model, "run", failing)
        with pytest.raises(MemoryError):
            fast(IDS[:, 5:], past_key_values=past)
    assert past.length == 5
    np.testing.assert_array_equal(fast(IDS[:, 5:], past_key_values=past).logits, whole[:, 5:])


def test_long_texts_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = both()[0]
    whole = fast(IDS, output_hidden_states=True)
    monkeypatch.setattr("minillama.runtime.decoder.CHUNK", 7)
    pieces = fast(IDS, output_hidden_states=True)
    np.testing.assert_array_equal(pieces.logits, whole.logits)
    for x, y in zip(pieces.hidden_states, whole.hidden_states, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_larger_vocabulary_is_seen() -> None:
    fast = both()[0]
    before = fast(IDS).logits
    fast.resize_token_embeddings(50)
    after = fast(np.where(IDS == 3, 45, IDS)).logits
    assert after.shape == (3, 14, 50)
    assert_near(np.ascontiguousarray(fast(IDS).logits[..., :37]), before)


def test_the_other_classes() -> None:
    config = tiny_config(num_labels=3, pad_token_id=36)
    arrays = random_weights(config)
    fast = LlamaForSequenceClassification(config, arrays, engine="numba", dtype="f32", seed=4)
    slow = LlamaForSequenceClassification(tiny_config(num_labels=3, pad_token_id=36), arrays, dtype="float64", seed=4)
    ids = np.where(MASK == 0, 36, IDS % 36)
    assert_near(fast(ids, attention_mask=MASK).logits, slow(ids, attention_mask=MASK).logits)
    assert_near(fast.model(ids).last_hidden_state, slow.model(ids).last_hidden_state)
    np.testing.assert_array_equal(
        LlamaForCausalLM(tiny_config(), random_weights(tiny_config()), engine="numba", dtype="f32").generate(
            IDS, attention_mask=MASK, max_new_tokens=6, num_beams=3
        ),
        LlamaForCausalLM(tiny_config(), random_weights(tiny_config()), dtype="float64").generate(
            IDS, attention_mask=MASK, max_new_tokens=6, num_beams=3
        ),
    )


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("length", [1, 14, SOME + 3])
def test_a_call_gives_the_logits_of_generation_to_the_bit(dtype: str, length: int) -> None:
    config = tiny_config(max_position_embeddings=512)
    model = LlamaForCausalLM(config, random_weights(config), engine="numba", dtype=dtype, threads=2)
    ids, engine = random_ids(82, 1, length), model.new_engine()
    logits = model(ids).logits
    np.testing.assert_array_equal(logits[:, -1], engine.prefill(ids.tolist()))
    # The head by itself, on the hidden states it was given
    np.testing.assert_array_equal(model.get_output_embeddings()(model.model(ids).last_hidden_state), logits)


NAMES = [name for name in random_weights(tiny_config()) if name != EMBED_TOKENS and ".layers.0." not in name]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["f32", "f16", "bf16"])
def test_a_weight_that_is_no_number_is_named(form: str, name: str, bad: float) -> None:
    """Scores that are none must show in what attention gives, and so must what is cached as float16."""
    config = tiny_config()
    weights = random_weights(config)
    place = (3,) * weights[name].ndim
    weights[name][place] = bad
    if form == "f16":  # used as they are: float32 weights would be refused when they are made smaller
        weights = {key: array.astype(np.float16) for key, array in weights.items()}
    model = LlamaForCausalLM(config, weights, engine="numba", dtype=form, cache_dtype=form)
    said = re.escape(f"the weights have a NaN or an infinite number, {name}{list(place)}: get them again")
    with pytest.raises(ValueError, match=said):
        model(IDS)
    with pytest.raises(ValueError, match=said):
        model.new_engine().prefill([[1, 2]])


def test_activations_that_overflow_are_looked_into_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    weights = random_weights(config)
    weights["model.norm.weight"] = np.full(config.hidden_size, 3e38, np.float32)
    weights["lm_head.weight"] = np.full_like(weights["lm_head.weight"], 3e38)
    model = LlamaForCausalLM(config, weights, engine="numba", dtype="f32")
    looks = []
    look = minillama.runtime.model.first_odd_number
    monkeypatch.setattr("minillama.runtime.model.first_odd_number", lambda tensors: looks.append(1) or look(tensors))
    for _ in range(3):
        assert not np.isfinite(model(IDS).logits).all()
    assert looks == [1]


def test_the_head_takes_no_rows_and_none_of_another_width() -> None:
    model, exact = both()
    D = model.config.hidden_size
    for made in (model, exact):
        assert made(IDS, logits_to_keep=np.zeros(0, int)).logits.shape == (3, 0, model.config.vocab_size)
        head = made.get_output_embeddings()
        assert head is not None
        assert head(np.zeros((0, D), np.float32)).shape == (0, model.config.vocab_size)
        with pytest.raises(ValueError, match=f"{D}"):
            head(np.zeros((1, 2 * D), np.float32))


@pytest.mark.parametrize("name", ["forward", "head"])
def test_an_interruption_before_a_thread_begins_leaves_no_other_waiting(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, _ = both()
    before = fast(IDS).logits
    kernel = getattr(minillama.runtime.model, name)

    def interrupted(thread: int, threads: int, *arguments: Any) -> None:
        if thread == 0 and threads > 1:
            raise KeyboardInterrupt
        kernel(thread, threads, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(minillama.runtime.model, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            fast(IDS)
    np.testing.assert_array_equal(fast(IDS).logits, before)
