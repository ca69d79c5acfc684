"""The numba engine beside the NumPy engine, on the same weights, and beside itself to the bit."""

from __future__ import annotations

import functools
import json
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillama.model.attention
import minillama.model.engine
import minillama.model.mlp
import minillama.runtime.engine
from minillama.arrays import Array
from minillama.generation.loop import SHARED, read
from minillama.generation.sampling import log_softmax
from minillama.generation.search import GenerateOutput
from minillama.llama import LlamaForCausalLM
from minillama.model.cache import KVCache
from minillama.runtime.batch import Append
from minillama.runtime.engine import NumbaEngine
from minillama.runtime.model import FastModel
from minillama.runtime.packing import quantize
from minillama.weights.formats import narrow
from minillama.weights.mapped import MappedFile
from minillama.weights.names import EMBED_TOKENS
from minillama.weights.safetensors import ArrayTensor, StoredTensor, Tensor
from tests.runtime.beside import (
    FORMS,
    ODD,
    TOLERANCE,
    NumpyRounded,
    assert_like_numpy,
    assert_near,
    models,
    models_of,
    numba_engine,
    random_rows,
)
from tests.tiny import ROPES, SEEDS, random_ids, random_weights, tiny_config

LONGER = {"max_position_embeddings": 512}
# Queries, keys and values that are several tasks each, of whole heads: 144 rows, and 32 with 2 left over
MANY_HEADS = {"num_attention_heads": 42, "num_key_value_heads": 21, "head_dim": 18, "attention_bias": True}
SMALL_HEADS = {"num_attention_heads": 17, "num_key_value_heads": 17, "head_dim": 2, "attention_bias": True}


@pytest.fixture(autouse=True, scope="module")
def all_threads() -> Iterator[None]:
    """Work this small would be done by one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minillama.runtime.model.SMALL", 0)
        yield


# -- beside NumPy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ROPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_rope(form: str, kind: str) -> None:
    assert_like_numpy(form, random_rows(81, [21, 5, 13]), **ROPES[kind])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "overrides",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True, **ODD},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4, "num_hidden_layers": 1},
        {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 10, "hidden_size": 33},
        MANY_HEADS,
        SMALL_HEADS,
        {"tie_word_embeddings": True},
        {"rms_norm_eps": 0.1},
    ],
    ids=lambda overrides: "-".join(overrides),
)
def test_every_kind_of_model(form: str, overrides: dict[str, Any]) -> None:
    assert_like_numpy(form, random_rows(82, [3, 17, 1]), **overrides)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("act", ["silu", "relu", "gelu_pytorch_tanh", "quick_gelu", "gelu"])
def test_every_activation(form: str, act: str) -> None:
    assert_like_numpy(form, random_rows(83, [9, 4]), hidden_act=act)


@pytest.mark.parametrize("form", FORMS)
def test_a_text_longer_than_a_block_of_keys(form: str) -> None:
    assert_like_numpy(form, random_rows(84, [70, 150]), **LONGER)


@given(SEEDS, st.lists(st.integers(1, 11), min_size=1, max_size=5), st.sampled_from(list(ROPES)))
@settings(max_examples=15)
def test_ragged_rows(seed: int, lengths: list[int], kind: str) -> None:
    assert_like_numpy("f32", random_rows(seed, lengths), **ROPES[kind])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["default", "dynamic", "longrope"])
def test_chunks_of_any_length_give_the_same_bits(form: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, rows = numba_engine(form, **ROPES[kind]), random_rows(85, [19, 2, 11])
    whole = engine.prefill(rows)
    for chunk in (1, 2, 3, 7, 8, 20, 1000):
        monkeypatch.setattr(minillama.runtime.engine, "CHUNK", chunk)
        engine.reset()
        np.testing.assert_array_equal(engine.prefill(rows), whole)


def test_hidden_states_and_the_norm_of_the_last() -> None:
    model, fast = models("f32", attention_bias=True, mlp_bias=True)
    ids = random_ids(86, 7)
    x = fast.embed(ids)
    passed = fast.run([Append(fast.new_cache(), x, np.arange(7), range(7))], hidden=True, states=True)
    out = model(ids[None], output_hidden_states=True)
    assert passed.states is not None
    assert passed.hidden is not None
    assert out.hidden_states is not None
    assert_near("f32", passed.logits, out.logits[0])
    # The last of the states that transformers' name lists is the normed one
    for ours, theirs in zip([*passed.states[:-1], passed.hidden], out.hidden_states[1:], strict=True):
        assert_near("f32", ours, theirs[0])


@pytest.mark.parametrize("kind", ["default", "longrope"])
def test_what_is_cached_is_what_numpy_caches(kind: str) -> None:
    model, fast = models("f32", **ROPES[kind])
    ids, cache = random_ids(87, 6), fast.new_cache()
    fast.run([Append(cache, fast.embed(ids), np.arange(6))])
    theirs = KVCache(2)  # without a rotary: keys that are cached unturned are handed out so
    decoder = model.model.decoder
    own = decoder.new_cache()
    decoder(decoder.embed(ids[None]), own)
    theirs._keys, theirs._values, theirs._lengths = own._keys, own._values, own._lengths
    for (k, v), (wanted, wanted_values) in zip(cache.pairs(), theirs, strict=True):
        assert_near("f32", k, wanted[0])
        assert_near("f32", v, wanted_values[0])


@pytest.mark.parametrize("kind", ["default", "dynamic"])
def test_keys_that_no_query_may_see(kind: str) -> None:
    """Beside a sequence that sees all of its own."""
    model, fast = models("f32", **ROPES[kind])
    ids, mask = random_ids(88, 2, 6), np.array([[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1]])
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    theirs = model(ids, attention_mask=mask, position_ids=positions).logits
    appends = [
        Append(fast.new_cache(), fast.embed(ids[b]), positions[b], range(6), mask[b] if b == 0 else None)
        for b in range(2)
    ]
    ours = fast.run(appends).logits if kind == "default" else token_by_token(fast, appends)
    assert_near("f32", ours, theirs.reshape(12, -1))


def token_by_token(fast: FastModel, appends: list[Append]) -> Array:
    """Where frequencies change inside a text, each pass has tokens of one set only."""
    logits = []
    for append in appends:
        for t in range(len(append.x)):
            seen = None if append.seen is None else append.seen[: t + 1]
            one = Append(append.cache, append.x[t : t + 1], append.positions[t : t + 1], [0], seen)
            logits.append(fast.run([one]).logits)
    return np.concatenate(logits)


@pytest.mark.parametrize("name", ["F16", "F32", "F64", "BF16", "Q8_0"])
def test_embeddings_of_any_kind_are_read_into_an_array(name: str, tmp_path: Path) -> None:
    """Those of bfloat16 from a file: there is no array of them."""
    tensors: dict[str, Tensor] = {key: ArrayTensor(array) for key, array in random_weights(tiny_config()).items()}
    table, file = tensors[EMBED_TOKENS].read(np.float32), tmp_path / "table"
    if name == "BF16":
        file.write_bytes(narrow(table, name).tobytes())
        tensors[EMBED_TOKENS] = StoredTensor(MappedFile(file), name, table.shape, 0)
    else:
        kept = quantize(tensors[EMBED_TOKENS], "q8_0") if name == "Q8_0" else ArrayTensor(narrow(table, name))
        tensors[EMBED_TOKENS] = kept
    fast, ids = FastModel(tiny_config(), tensors, "f32", "f32", 1), random_ids(105, 9)
    out = np.full((9, 16), np.nan, np.float32)
    assert fast.embed(ids, out) is out
    np.testing.assert_array_equal(out, tensors[EMBED_TOKENS].read(np.float32, ids))


# -- rows of a batch ----------------------------------------------------------------------------------------------


def test_rows_that_are_kept_again_and_in_another_order() -> None:
    ours, theirs = numba_engine("f32"), NumpyRounded("f32")
    rows = random_rows(89, [3, 6, 4])
    for engine in (ours, theirs):
        engine.prefill(rows)
        engine.keep([2, 0, 2, 2])
    for step in range(3):
        ids = random_ids(91 + step, 4)  # the copies go different ways
        assert_near("f32", ours.decode(ids), theirs.decode(ids))
    for engine in (ours, theirs):
        engine.keep([3, 1])
    assert_near("f32", ours.decode(np.array([1, 2])), theirs.decode(np.array([1, 2])))


@pytest.mark.parametrize("kind", ["default", "dynamic"])
def test_cut_back_and_gone_on(kind: str) -> None:
    ours, theirs, rows = numba_engine("f32", **ROPES[kind]), NumpyRounded("f32", **ROPES[kind]), random_rows(92, [9, 9])
    for engine in (ours, theirs):
        engine.prefill(rows)
        engine.decode(np.array([1, 2]))
        engine.cut(6)
    assert_near("f32", ours.decode(np.array([8, 9])), theirs.decode(np.array([8, 9])))


def test_cuts_that_cannot_be_made() -> None:
    engine = numba_engine("f32")
    engine.prefill(random_rows(93, [4, 4]))
    for length in (-1, 5):
        with pytest.raises(ValueError, match=f"cannot cut a cache of 4 tokens back to {length}"):
            engine.cut(length)
    engine.prefill([[1], [1, 2]])
    with pytest.raises(ValueError, match="rows of different lengths"):
        engine.cut(2)


def test_a_batch_of_another_size_is_refused() -> None:
    engine = numba_engine("f32")
    engine.prefill([[1], [2]])
    with pytest.raises(ValueError, match="a batch of 2 rows and the input has 3"):
        engine.prefill([[1], [2], [3]])
    engine.reset()
    assert engine.prefill([[1], [2], [3]]).shape == (3, 37)


def test_after_cutting_all_another_batch_may_come() -> None:
    engine = numba_engine("f32")
    engine.prefill(random_rows(94, [3, 3]))
    engine.cut(0)
    engine.prefill([[1]])


@pytest.mark.parametrize("form", ["f32", "q8_0"])
@pytest.mark.parametrize("bad", [37, -1])
def test_an_id_outside_the_vocabulary_is_told(form: str, bad: int) -> None:
    engine = numba_engine(form, tie_word_embeddings=True)
    try:
        engine.prefill([[1, bad]])
    except ValueError as error:
        assert "outside the vocabulary" in str(error)  # noqa: PT017  # any other ValueError would do no good
    else:
        raise AssertionError("it is taken for another one")


def test_what_generation_is_told() -> None:
    engine = numba_engine("f32", **ROPES["dynamic"])
    assert (engine.vocab_size, engine.context_length) == (37, 32)


# -- to the bit ---------------------------------------------------------------------------------------------------

ALL = {"attention_bias": True, "mlp_bias": True, **ODD, **LONGER}
TEXTS = random_rows(95, [70, 3, 18, 9])


@functools.cache
def one_pass(form: str, threads: int) -> Array:
    return numba_engine(form, threads, **ALL).prefill(TEXTS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads(form: str, threads: int) -> None:
    np.testing.assert_array_equal(one_pass(form, threads), one_pass(form, 2))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("heads", [MANY_HEADS, SMALL_HEADS], ids=["many", "small"])
def test_heads_that_several_threads_share(form: str, heads: dict[str, Any]) -> None:
    rows = random_rows(95, [19, 2])
    alone, together, ids = numba_engine(form, 1, **heads), numba_engine(form, 3, **heads), random_ids(96, 2)
    prefilled, decoded = alone.prefill(rows), alone.decode(ids)
    for _ in range(5):
        together.reset()
        np.testing.assert_array_equal(together.prefill(rows), prefilled)
        np.testing.assert_array_equal(together.decode(ids), decoded)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", [2, 67, 130, 258, 300])
def test_features_that_several_threads_share(form: str, inner: int) -> None:
    """Widths of the gated network whose last task is all of it, a little larger than the others, or smaller."""
    how: dict[str, Any] = {"intermediate_size": inner, "mlp_bias": True}
    rows = random_rows(6, [1, 11, 4])
    assert_like_numpy(form, rows, **how)
    assert_like_numpy(form, rows[:1], **how)
    one, three = (numba_engine(form, threads, **how) for threads in (1, 3))
    np.testing.assert_array_equal(three.prefill(rows), one.prefill(rows))
    np.testing.assert_array_equal(three.decode(random_ids(7, 3)), one.decode(random_ids(7, 3)))


@pytest.mark.parametrize("form", FORMS)
def test_alone_and_token_by_token_as_in_a_batch(form: str) -> None:
    engine = numba_engine(form, 1, **ALL)
    for text, wanted in zip(TEXTS, one_pass(form, 2), strict=True):
        engine.reset()
        np.testing.assert_array_equal(engine.prefill([text])[0], wanted)
        engine.reset()
        for token in text:
            logits = engine.decode(np.array([token]))
        np.testing.assert_array_equal(logits[0], wanted)


@pytest.mark.parametrize("form", FORMS)
def test_after_a_cut_as_if_it_had_not_been(form: str) -> None:
    engine, text = numba_engine(form, **ALL), TEXTS[0]
    for length in (0, 1, 33, 64, 69):
        engine.reset()
        engine.prefill([text[:length] + [5] * 40])
        engine.cut(length)
        np.testing.assert_array_equal(engine.prefill([text[length:]])[0], one_pass(form, 2)[0])


@pytest.mark.parametrize("form", FORMS)
def test_as_a_copy_beside_others(form: str) -> None:
    engine, text = numba_engine(form, **ALL), TEXTS[2]
    engine.prefill([TEXTS[1], text[:10]])
    engine.keep([1, 0, 1])
    logits = engine.prefill([[1, 2, 3], [4], text[10:]])
    np.testing.assert_array_equal(logits[2], one_pass(form, 2)[2])


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
@pytest.mark.parametrize("form", ["f32", "q4_0"])
def test_token_by_token_where_frequencies_change(form: str, kind: str) -> None:
    engine, rows = numba_engine(form, **ROPES[kind]), random_rows(96, [20, 13])
    whole = engine.prefill(rows)
    for row, wanted in zip(rows, whole, strict=True):
        engine.reset()
        for token in row:
            logits = engine.decode(np.array([token]))
        np.testing.assert_array_equal(logits[0], wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("form", FORMS)
def test_a_text_that_is_not_finite_spoils_none_beside_it(form: str, bad: float) -> None:
    fast = models_of.__wrapped__(form, 2, json.dumps(ODD))[1]
    x = fast.embed(random_ids(97, 5))
    clean, spoiled = logits_of(fast, x, x), x.copy()
    spoiled[2, 3] = bad
    np.testing.assert_array_equal(logits_of(fast, spoiled, x)[1], clean[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("form", FORMS)
def test_a_text_that_is_not_finite_spoils_none_after_it(form: str, bad: float) -> None:
    fast = models_of.__wrapped__(form, 2, json.dumps(ODD))[1]
    x = fast.embed(random_ids(97, 5))
    clean, of_head, spoiled = logits_of(fast, x), fast.lm_logits(x), x.copy()
    spoiled[2, 3] = bad
    logits_of(fast, spoiled)
    np.testing.assert_array_equal(fast.lm_logits(x), of_head)
    logits_of(fast, spoiled)
    np.testing.assert_array_equal(logits_of(fast, x), clean)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_a_number_shows_in_the_logits(form: str) -> None:
    fast = models(form)[1]
    x = fast.embed(random_ids(98, 5))
    x[2, 3] = np.nan
    assert np.isnan(logits_of(fast, x)).all()


def test_nothing_is_written_before_the_logits_of_a_tiny_vocabulary() -> None:
    fast = models_of.__wrapped__("f32", 1, json.dumps({"vocab_size": 3}))[1]
    x, guarded = fast.embed(np.array([0, 1, 2])), np.full(1000, 7, np.float32)
    fast.run([Append(fast.new_cache(), x, np.arange(3))])  # room for three tokens
    fast.room = fast.room._replace(logits=guarded[500:])
    fast.run([Append(fast.new_cache(), x, np.arange(3), [2])])
    np.testing.assert_array_equal(guarded[:500], 7)


def logits_of(fast: FastModel, *rows: Array) -> Array:
    """Of the last token of each row of embeddings (5, D)."""
    return fast.run([Append(fast.new_cache(), row, np.arange(5), [4]) for row in rows]).logits


def test_two_texts_at_the_same_time() -> None:
    """From two threads, on one model: each gets what it gets alone."""
    fast = models("f32", threads=2)[1]
    rows = [random_ids(seed, 40).tolist() for seed in (101, 102)]
    alone = [NumbaEngine(fast).prefill([row]) for row in rows]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda row: [NumbaEngine(fast).prefill([row]) for _ in range(20)], rows))
    for wanted, several in zip(alone, together, strict=True):
        for got in several:
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_a_beginning_that_is_read_once_changes_no_bit(form: str) -> None:
    beginning = random_ids(95, SHARED + 9).tolist()
    prompts = [[*beginning, *rest] for rest in random_rows(96, [1, 7, 3])]
    shared, alone = numba_engine(form, **LONGER), numba_engine(form, **LONGER)
    np.testing.assert_array_equal(read(shared, prompts), alone.prefill(prompts))
    ids = random_ids(97, 3)
    np.testing.assert_array_equal(shared.decode(ids), alone.decode(ids))


@pytest.mark.parametrize("by", ["numpy", "numba"])
def test_prompts_that_share_a_beginning_are_continued_as_each_alone(by: str) -> None:
    model = models("f32", **LONGER)[0]
    beginning = random_ids(98, SHARED).tolist()
    prompts = [[*beginning, *rest] for rest in random_rows(99, [4, 1, 9])]
    engine = numba_engine("f32", **LONGER) if by == "numba" else model.new_engine()
    logits = read(engine, prompts)
    for row, prompt in zip(logits, prompts, strict=True):
        alone = model.new_engine().prefill([prompt])[0]
        assert np.abs(row - alone).max() <= TOLERANCE["f32"] * np.abs(alone).max()


# Python's objects of one token take 3 to 5 KB: heads of array views, and tuples and a signature that Numba makes of its
# arguments. NumPy tells tracemalloc of its data too, so no array of this size is made. By one thread: another one is
# asked by a future, which is some KB more of Python's objects, and is not always gone when the next comes
A_TOKEN = 6_000


def assert_a_token_makes_no_array(engine: NumbaEngine, rows: list[list[int]]) -> None:
    engine.prefill(rows)
    ids = random_ids(101, 6, len(rows))
    tracemalloc.start()
    try:
        engine.decode(ids[0])  # the first of its shape makes what the others use
        for step in ids[1:]:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            engine.keep(range(len(rows)))
            engine.decode(step)
            assert tracemalloc.get_traced_memory()[1] - before < A_TOKEN
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "wide",
    [
        {"intermediate_size": 1 << 14},
        {"hidden_size": 1 << 13},
        {"vocab_size": 1 << 14},
        {"head_dim": 1 << 13, "num_attention_heads": 1, "num_key_value_heads": 1},
    ],
    ids=lambda wide: next(iter(wide)),
)
def test_a_token_makes_no_array(form: str, wide: dict[str, int]) -> None:
    """One row of what is wide takes 16 KB at least."""
    assert_a_token_makes_no_array(numba_engine(form, 1, **wide, num_hidden_layers=1), random_rows(100, [3, 5]))


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_token_makes_no_array_of_the_length_of_the_text(kind: str) -> None:
    """The cosines of 1,000 keys take 24 KB while they are computed, and those of dynamic are for every token."""
    assert_a_token_makes_no_array(numba_engine("f32", 1, **ROPES[kind]), random_rows(100, [1000]))


# -- whose logits they are ----------------------------------------------------------------------------------------


def test_logits_of_decode_are_good_until_the_next_and_those_of_prefill_for_ever() -> None:
    engine = numba_engine("f32")
    prefilled = engine.prefill(random_rows(103, [4, 2]))
    kept = prefilled.copy()
    first = engine.decode(np.array([1, 2]))
    second = engine.decode(np.array([3, 4]))
    assert np.shares_memory(first, second)
    engine.keep([1, 0])  # another batch has another array
    assert not np.shares_memory(engine.decode(np.array([5, 6])), second)
    np.testing.assert_array_equal(prefilled, kept)


def test_what_another_engine_of_the_model_computes_leaves_logits_alone() -> None:
    fast = models("f32")[1]
    one, other = NumbaEngine(fast), NumbaEngine(fast)
    logits = one.decode(np.array([1, 2]))
    kept = logits.copy()
    other.decode(np.array([3, 4]))
    other.prefill([[7], [8]])
    fast.lm_logits(np.ones((2, 16), np.float32))
    np.testing.assert_array_equal(logits, kept)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_logits_and_scores_that_generation_hands_out_are_of_their_own_step(settings: dict[str, int]) -> None:
    config = tiny_config()
    model = LlamaForCausalLM(config, random_weights(config), engine="numba", dtype="f32")
    asked = {"return_dict_in_generate": True, "output_logits": True, "output_scores": True, "max_new_tokens": 6}
    out = model.generate(random_ids(104, 1, 5), **asked, **settings)
    assert isinstance(out, GenerateOutput)
    assert out.logits is not None
    assert out.scores is not None
    for step, (logits, scores) in enumerate(zip(out.logits, out.scores, strict=True)):
        row = 0 if out.beam_indices is None else out.beam_indices[0, step]
        wanted = model.new_engine().prefill([out.sequences[0, : 5 + step].tolist()])[0]
        np.testing.assert_array_equal(logits[row], wanted)
        np.testing.assert_array_equal(scores[row], log_softmax(wanted) if settings else wanted)
