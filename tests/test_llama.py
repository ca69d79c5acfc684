import math
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM, LlamaForSequenceClassification
from minillama.model.cache import KVCache
from minillama.model.heads import classification_loss
from minillama.model.ops import linear, softmax
from minillama.model.rope_scaling import attention_factor
from tests.tiny import ROPES, assert_close, frequencies, random_ids, random_weights, tiny_config, tiny_model

IDS = random_ids(70, 2, 6)


# -- outputs ------------------------------------------------------------------------------------------------------


def test_outputs_by_name_by_index_and_in_a_row() -> None:
    out = tiny_model()(IDS, labels=IDS, output_hidden_states=True, output_attentions=True)
    names = ("loss", "logits", "past_key_values", "hidden_states", "attentions")
    assert all(item is getattr(out, name) for name, item in zip(names, out.to_tuple(), strict=True))
    assert all(out[name] is out[i] is getattr(out, name) for i, name in enumerate(names))
    assert [id(item) for item in out] == [id(item) for item in out.to_tuple()]


def test_absent_outputs_are_left_out_of_the_row() -> None:
    out = tiny_model()(IDS, use_cache=False)
    assert len(out.to_tuple()) == 1
    assert out[0] is out.logits
    assert out.loss is out.past_key_values is out.hidden_states is out.attentions is None
    assert tiny_model(use_cache=False)(IDS).past_key_values is None
    assert tiny_model(use_cache=False)(IDS, use_cache=True).past_key_values.length == 6


def test_hidden_states_are_the_embeddings_and_each_layer_the_last_after_the_norm() -> None:
    taps: dict[str, Array] = {}
    hidden = tiny_model(num_hidden_layers=3)(IDS, output_hidden_states=True, tap=taps.__setitem__).hidden_states
    names = ("model.embed_tokens", "model.layers.0.output", "model.layers.1.output", "model.norm")
    assert len(hidden) == 4
    for array, name in zip(hidden, names, strict=True):
        assert array is taps[name]
        assert array.shape == (2, 6, 16)


def test_attentions_are_a_causal_average_for_every_head() -> None:
    model = tiny_model()
    past = model(IDS[:, :4]).past_key_values
    attentions = model(IDS[:, 4:], past_key_values=past, output_attentions=True).attentions
    assert len(attentions) == 2
    for probs in attentions:
        assert probs.shape == (2, 4, 2, 6)  # (B, H, T, S)
        assert_close(probs.sum(axis=-1), np.ones((2, 4, 2)))
        assert (probs[:, :, 0, 5] == 0).all()


def test_past_key_values_are_a_pair_a_layer() -> None:
    past = tiny_model()(IDS).past_key_values
    assert [(k.shape, v.shape) for k, v in past] == [((2, 2, 6, 6), (2, 2, 6, 6))] * 2


# -- the loss -----------------------------------------------------------------------------------------------------


def test_the_loss_is_of_the_next_token() -> None:
    labels = IDS.copy()
    labels[0, 3] = labels[1, 5] = -100
    out = tiny_model()(IDS, labels=labels)
    probs = softmax(out.logits)
    each = [
        -math.log(probs[b, t, labels[b, t + 1]]) for b in range(2) for t in range(5) if labels[b, t + 1] != -100
    ]  # fmt: skip
    assert len(each) == 8
    assert out.loss == pytest.approx(sum(each) / 8, rel=1e-12)  # a softmax and sums of some ten terms, in float64


def test_the_loss_of_no_label_is_nan() -> None:
    assert math.isnan(tiny_model()(IDS, labels=np.full_like(IDS, -100)).loss)


def test_a_label_outside_the_vocabulary_is_an_error() -> None:
    model = tiny_model()
    past = model(IDS).past_key_values
    with pytest.raises(ValueError, match=r"labels has 37, outside the vocabulary 0\.\.36"):
        model(IDS, labels=np.full_like(IDS, 37), past_key_values=past)
    assert past.length == 6  # what is wrong is found before anything is computed


# -- inputs -------------------------------------------------------------------------------------------------------


def test_embeddings_may_be_given_instead_of_ids() -> None:
    model = tiny_model()
    x = model.weights.embed_tokens[IDS]
    np.testing.assert_array_equal(model(inputs_embeds=x).logits, model(IDS).logits)
    assert (model(inputs_embeds=x[:, ::-1]).logits != model(IDS).logits).any()


def test_lists_will_do() -> None:
    np.testing.assert_array_equal(tiny_model()(IDS.tolist()).logits, tiny_model()(IDS).logits)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "uint64"])
def test_ids_of_any_whole_type_will_do(dtype: str) -> None:
    config = tiny_config(vocab_size=300, pad_token_id=299, num_labels=2)  # more than these bytes can say
    ids = np.array([[5, 127, 3], [9, 0, 8]])
    for model in (LlamaForCausalLM(config), LlamaForSequenceClassification(config)):
        np.testing.assert_array_equal(model(ids.astype(dtype)).logits, model(ids).logits)
        embeds = model.get_input_embeddings()(ids.astype(dtype))
        np.testing.assert_array_equal(embeds, model.get_input_embeddings()(ids))
    loaded = LlamaForCausalLM(config, random_weights(config))
    np.testing.assert_array_equal(loaded(ids.astype(dtype), labels=ids.astype(dtype)).logits, loaded(ids).logits)


def test_positions_count_on_by_default_padding_included() -> None:
    model = tiny_model()
    out = model(IDS, position_ids=np.arange(6)[None])
    np.testing.assert_array_equal(out.logits, model(IDS).logits)
    np.testing.assert_array_equal(out.logits, model(IDS, position_ids=range(6)).logits)
    past = model(IDS[:, :4]).past_key_values
    counted = model(IDS[:, 4:], past_key_values=past, position_ids=[[4, 5]]).logits
    assert_close(counted, out.logits[:, 4:])
    assert np.abs(model(IDS, position_ids=[[0, 1, 2, 4, 5, 6]]).logits - out.logits).max() > 0.01


def test_left_padding_needs_no_positions_where_only_distances_matter() -> None:
    model = tiny_model()
    mask = np.array([[0, 0, 0, 1, 1, 1]])
    assert_close(model(IDS[:1], attention_mask=mask).logits[:, 3:], model(IDS[:1, 3:]).logits)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "exactly one of input_ids and inputs_embeds"),
        ({"input_ids": [[1]], "inputs_embeds": np.ones((1, 1, 16))}, "exactly one"),
        ({"input_ids": [1, 2]}, "input_ids must be a 2-dimensional array of integers"),
        ({"input_ids": [[1.0]]}, "input_ids must be"),
        ({"input_ids": [[]]}, "the input is empty"),
        ({"input_ids": [[1, 99]]}, "the id 99"),
        ({"inputs_embeds": np.ones((1, 2, 15))}, r"\(B, T, 16\)"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, r"attention_mask must have the shape \(1, 2\)"),
        ({"input_ids": [[1, 2]], "position_ids": [[0]]}, "position_ids must be"),
        ({"input_ids": [[1, 2]], "position_ids": [[-1, 0]]}, "position_ids must be"),
        ({"input_ids": [[1, 2]], "labels": [[1]]}, r"labels must have the shape \(1, 2\)"),
        ({"input_ids": [[1, 2]], "labels": [[1.0, 2.0]]}, "labels must be a 2-dimensional array of integers"),
        ({"input_ids": [[1, 2], [3]]}, "input_ids has rows of different lengths: pad them"),
        ({"input_ids": [[1], [2]], "attention_mask": [[1]]}, r"attention_mask must have the shape \(2, 1\)"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 0.5]]}, "attention_mask must hold 1 for tokens and 0"),
        ({"input_ids": [[1], [2]], "position_ids": [[0], [1], [2]]}, r"position_ids must be \(2, 1\) integers"),
        ({"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 1], [1]]}, "attention_mask has rows of different leng"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 1 + 0j]]}, "attention_mask must hold 1 for tokens and 0"),
        ({"input_ids": [[1, 2], [3, 4]], "position_ids": [[0, 1], [0]]}, "position_ids has rows of different lengths"),
        ({"input_ids": [[1, 2], [3, 4]], "labels": [[0, 1], [0]]}, "labels has rows of different lengths: pad them"),
        ({"inputs_embeds": [[[1.0] * 16] * 2, [[1.0] * 16]]}, "inputs_embeds has rows of different lengths: pad them"),
        ({"inputs_embeds": np.ones((1, 2, 17))}, r"\(B, T, 16\), not \(1, 2, 17\)"),
        ({"inputs_embeds": np.ones((1, 2, 16)) * 1j}, "inputs_embeds must hold real numbers, not complex128"),
        ({"inputs_embeds": np.full((1, 2, 16), None)}, "inputs_embeds must hold real numbers, not object"),
        ({"input_ids": [[1, 2]], "logits_to_keep": None}, "logits_to_keep must be 0"),
        ({"input_ids": [[1, 2]], "logits_to_keep": True}, "logits_to_keep must be 0"),
        ({"input_ids": [[1, 2]], "logits_to_keep": [0.0]}, "logits_to_keep must be a 1-dimensional array of integers"),
        ({"input_ids": [[1, 2]], "labels": [[1, 2]], "logits_to_keep": ""}, "logits_to_keep must be 0"),
        ({"input_ids": [[1, 2]], "labels": [[1, 2]], "logits_to_keep": None}, "logits_to_keep must be 0"),
        ({"input_ids": [[1, 2]], "labels": [[1, 2]], "logits_to_keep": np.array([0, 1])}, "leave logits_to_keep out"),
        ({"input_ids": [[1, 2]], "labels": [[1, 2]], "logits_to_keep": []}, "leave logits_to_keep out"),
        ({"input_ids": [[1, 2]], "logits_to_keep": 1.5}, "logits_to_keep must be 0"),
        ({"input_ids": [[1, 2]], "logits_to_keep": [-3]}, "logits_to_keep has -3, and there are 2 positions"),
    ],
)
def test_arguments_that_make_no_sense(how: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model()(**how)


def test_a_cache_of_another_batch_or_of_another_kind() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="batch of 2 rows and the input has 1"):
        model(IDS[:1], past_key_values=model(IDS).past_key_values)
    with pytest.raises(ValueError, match=r"past_key_values must be 2 pairs of arrays \(2, 2, S, 6\)"):
        model(IDS, past_key_values=[(IDS, IDS)])


@pytest.mark.parametrize(
    "wrong", [{"engine": "abacus"}, {"dtype": "float8"}, {"compat": "hf3"}, {"seed": -1}, {"seed": True}]
)
def test_choices_are_named(wrong: dict[str, str]) -> None:
    (name,) = wrong
    config = tiny_config()
    with pytest.raises(ValueError, match=f"{name} must be (one of|a whole number)"):
        LlamaForCausalLM(config, random_weights(config), **wrong)


# -- precision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ROPES)
def test_every_intermediate_has_the_models_dtype(dtype: str, kind: str) -> None:
    model = tiny_model(dtype=dtype, attention_bias=True, mlp_bias=True, **ROPES[kind])
    dtypes: dict[str, str] = {}

    def note(name: str, array: Array) -> None:
        dtypes[name] = str(array.dtype)

    ids = random_ids(71, 2, 12)
    mask = np.ones_like(ids)
    mask[1, :3] = 0
    out = model(ids, attention_mask=mask, tap=note)
    assert len(dtypes) > 30
    assert set(dtypes.values()) == {dtype}
    assert {str(array.dtype) for pair in out.past_key_values for array in pair} == {dtype}
    assert model.new_engine().prefill([[1, 2], [3]]).dtype == dtype


@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_new", "quick_gelu", "relu"])
def test_no_activation_leaks_float64(act: str) -> None:
    assert tiny_model(dtype="float32", hidden_act=act)(IDS).logits.dtype == np.float32


def test_embeddings_and_pairs_of_another_type_are_taken_into_the_models() -> None:
    model = tiny_model(dtype="float32")
    x = model.get_input_embeddings()(IDS).astype(np.float16)
    out = model(inputs_embeds=x)
    assert out.logits.dtype == np.float32
    wide = [(k.astype(np.float64), v.astype(np.float64)) for k, v in out.past_key_values]
    again = model(IDS, past_key_values=wide)
    assert again.logits.dtype == again.past_key_values[0][0].dtype == np.float32
    assert again.past_key_values[0][1].dtype == np.float32
    np.testing.assert_array_equal(again.logits, model(IDS, past_key_values=out.past_key_values).logits)
    assert model(inputs_embeds=x.astype(np.float64)).logits.dtype == np.float32


def test_an_activation_that_widens_is_narrowed_again() -> None:
    act = tiny_model(dtype="float32", hidden_act=lambda x: np.tanh(x.astype(np.float64)))
    assert act(IDS).logits.dtype == np.float32


def test_float32_is_near_float64() -> None:
    exact, ours = tiny_model()(IDS).logits, tiny_model(dtype="float32")(IDS).logits
    # float32 rounds at 6e-8; sums of some dozen terms through two spiky layers make that some 1e-6 of the scale
    assert np.abs(ours - exact).max() < 1e-5 * np.abs(exact).max()


def test_flags_default_to_those_of_the_config() -> None:
    out = tiny_model(output_attentions=True, output_hidden_states=True)(random_ids(45, 1, 3))
    assert out.attentions is not None
    assert out.hidden_states is not None
    assert tiny_model(output_attentions=True)(random_ids(45, 1, 3), output_attentions=False).attentions is None


# -- the other classes, and further arguments ---------------------------------------------------------------------


def test_the_decoder_by_itself_gives_what_the_head_reads() -> None:
    model = tiny_model()
    taps: dict[str, Array] = {}
    out = model.model(IDS, tap=taps.__setitem__)
    assert list(taps)[:2] == ["embed_tokens", "layers.0.input_norm"]
    assert out.last_hidden_state is out[0] is taps["norm"]
    np.testing.assert_array_equal(out.last_hidden_state @ model.weights.lm_head.T, model(IDS).logits)


def test_a_plain_tuple_is_returned_where_it_is_asked_for() -> None:
    model = tiny_model()
    out = model(IDS, labels=IDS, return_dict=False, output_attentions=True)
    assert type(out) is tuple
    assert [type(item) for item in out] == [float, np.ndarray, KVCache, tuple]
    assert type(model.model(IDS, return_dict=False)) is tuple
    assert type(tiny_model(return_dict=False)(IDS)) is tuple
    assert tiny_model(return_dict=False)(IDS, return_dict=True).logits.shape == (2, 6, 37)


def test_logits_of_some_positions() -> None:
    model = tiny_model()
    every = model(IDS).logits
    assert_close(model(IDS, logits_to_keep=2).logits, every[:, -2:])
    assert_close(model(IDS, logits_to_keep=[4, 0, 4]).logits, every[:, [4, 0, 4]])
    assert model(IDS, logits_to_keep=99).logits.shape == every.shape
    with pytest.raises(ValueError, match="leave logits_to_keep out"):
        model(IDS, labels=IDS, logits_to_keep=1)
    with pytest.raises(ValueError, match="logits_to_keep has 6, and there are 6 positions"):
        model(IDS, logits_to_keep=[2, 6])
    with pytest.raises(ValueError, match="logits_to_keep must be 0"):
        model(IDS, logits_to_keep=-1)


@pytest.mark.parametrize("kind", ROPES)
def test_past_key_values_may_be_plain_pairs(kind: str) -> None:
    model, ids = tiny_model(**ROPES[kind]), random_ids(72, 2, 14)
    whole = model(ids).logits
    past = model(ids[:, :11]).past_key_values
    pairs = tuple((k.copy(), v.copy()) for k, v in past)
    out = model(ids[:, 11:13], past_key_values=pairs)
    assert_close(out.logits, whole[:, 11:13])
    assert_close(model(ids[:, 13:], past_key_values=list(out.past_key_values)).logits, whole[:, 13:])
    assert pairs[0][0].shape[2] == 11  # a sequence of pairs is not extended, a cache is
    assert past.length == 11


@pytest.mark.parametrize(
    "past",
    [
        [],
        [(np.ones((2, 2, 3, 6)),) * 2],
        [(np.ones((2, 2, 3, 6)),) * 2, (np.ones((2, 2, 3, 6)), np.ones((2, 2, 4, 6)))],
        [(np.ones((2, 2, 0, 6)),) * 2] * 2,
        [(np.ones((1, 2, 3, 6)),) * 2] * 2,
        [(np.ones((2, 2, 3, 6)),) * 3] * 2,
        [(np.ones((2, 2, 3, 6)) * 1j,) * 2] * 2,
        [(np.ones((2, 2, 3, 6)), np.ones((2, 2, 3, 6)) * 1j)] * 2,
        [(np.full((2, 2, 3, 6), None),) * 2] * 2,
        3,
    ],
)
def test_pairs_that_are_not_of_this_model(past: object) -> None:
    with pytest.raises(ValueError, match=r"past_key_values must (be|hold real numbers)"):
        tiny_model()(IDS, past_key_values=past)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_pairs_do_not_say_where_padded_tokens_stood(kind: str) -> None:
    model, mask = tiny_model(**ROPES[kind]), np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    past = model(IDS[:, :4], attention_mask=mask[:, :4]).past_key_values
    moved = {"position_ids": np.array([[2, 3], [4, 5]])}
    for how in ({"attention_mask": mask}, moved):
        with pytest.raises(ValueError, match="plain pairs do not say where padded tokens stood"):
            model(IDS[:, 4:], past_key_values=tuple(past), **how)
    assert model(IDS[:, 4:], past_key_values=past, attention_mask=mask, **moved).logits.shape == (2, 2, 37)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_of_padding_that_comes_now_pairs_need_not_say_anything(kind: str) -> None:
    model, mask = tiny_model(**ROPES[kind]), np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    past = tuple(model(IDS[:, :4]).past_key_values)
    went_on = model(IDS[:, 4:], past_key_values=past, attention_mask=mask).logits
    assert_close(went_on, model(IDS, attention_mask=mask).logits[:, 4:])


# Which length turns the keys of a call: of tokens at 5 .. 10, in a model that was trained on 8
@pytest.mark.parametrize(
    ("kind", "compat", "length"),
    [("dynamic", "hf4", 6), ("dynamic", "hf5", 11), ("longrope", "hf4", 6), ("longrope", "hf5", 11)],
)
def test_compat_decides_which_length_turns_the_keys(kind: str, compat: str, length: int) -> None:
    model, taps = tiny_model(compat=compat, **ROPES[kind]), {}
    positions = np.arange(5, 11)
    model(IDS[:1], position_ids=positions, tap=taps.__setitem__)
    k = taps["model.layers.0.self_attn.k_proj"][0, 1]  # (T, K), of one head
    turned = (k[:, :3] + 1j * k[:, 3:]) * np.exp(1j * np.outer(positions, frequencies(kind, length)))
    turned *= attention_factor(model.config)
    assert_close(taps["model.layers.0.self_attn.k_rope"][0, 1], np.concatenate((turned.real, turned.imag), axis=1))


@pytest.mark.parametrize(
    ("compat", "seen"),
    [
        (None, [0, 0, 0, 0]),
        ("hf4", [1 / 3, 0, 1 / 3, 1 / 3]),  # key 1 is forbidden twice: it is padding, and comes later
        ("hf5", [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
    ],
)
def test_compat_decides_what_a_query_without_keys_sees(compat: str | None, seen: list[float]) -> None:
    taps: dict[str, Array] = {}
    tiny_model(compat=compat)(IDS[:1, :4], attention_mask=[[0, 0, 1, 1]], tap=taps.__setitem__)
    assert_close(taps["model.layers.0.self_attn.probs"][0, :, 0], np.tile(seen, (4, 1)))


def test_products_in_slices_are_the_same_but_for_rounding() -> None:
    model, sliced = (tiny_model(pretraining_tp=parts, attention_bias=True, mlp_bias=True) for parts in (1, 4))
    assert_close(sliced(IDS).logits, model(IDS).logits)
    assert (sliced(IDS).logits != model(IDS).logits).any()
    w, x = model.weights.layers[0].down_proj, np.ones((1, 20))
    by_hand = sum(x[:, i : i + 5] @ w[:, i : i + 5].T for i in (0, 5, 10, 15))
    np.testing.assert_array_equal(linear(x, w, parts=4), by_hand)
    theirs = tiny_model(pretraining_tp=4, attention_bias=True, mlp_bias=True, compat="hf5")  # which ignores it
    np.testing.assert_array_equal(theirs(IDS).logits, model(IDS).logits)


# -- the classifier -----------------------------------------------------------------------------------------------


def classifier(compat: str | None = None, **overrides: Any) -> LlamaForSequenceClassification:
    config = tiny_config(**{"num_labels": 3, "pad_token_id": 36} | overrides)
    return LlamaForSequenceClassification(config, dtype="float64", compat=compat)


PADDED = np.array([[5, 9, 2, 36, 36], [36, 36, 8, 1, 30], [36, 4, 36, 7, 36]])


def test_a_classifier_reads_the_last_token_that_is_no_padding() -> None:
    model = classifier()
    logits = model(PADDED).logits
    assert logits.shape == (3, 3)
    hidden = model.model(PADDED).last_hidden_state
    assert_close(logits, np.stack([hidden[b, t] for b, t in enumerate((2, 4, 3))]) @ model.weights.score.T)
    old = classifier("hf4")(PADDED, attention_mask=np.ones_like(PADDED)).logits
    assert_close(old, np.stack([hidden[b, t] for b, t in enumerate((2, 4, 4))]) @ model.weights.score.T)


def test_embeddings_show_no_padding_so_the_last_position_is_read() -> None:
    model = classifier()
    x = model.get_input_embeddings()(PADDED)
    assert_close(model(inputs_embeds=x).logits, model.model(PADDED).last_hidden_state[:, -1] @ model.weights.score.T)


def test_several_rows_need_a_padding_token() -> None:
    model = classifier(pad_token_id=None)
    assert model(PADDED[:1]).logits.shape == (1, 3)
    with pytest.raises(ValueError, match=r"set config\.pad_token_id"):
        model(PADDED)
    with pytest.raises(ValueError, match=r"set config\.pad_token_id"):
        model(inputs_embeds=np.ones((2, 3, 16)))


@pytest.mark.parametrize(
    ("overrides", "labels", "problem"),
    [
        ({"num_labels": 1}, [0.5, 1.0, -2.0], "regression"),
        ({}, [2, 0, 1], "single_label_classification"),
        ({}, [[0.0, 1.0, 1.0]] * 3, "multi_label_classification"),
        ({"problem_type": "regression"}, [[0, 1, 2]] * 3, "regression"),
    ],
)
def test_the_first_labels_decide_what_the_problem_is(
    overrides: dict[str, Any], labels: list[Any], problem: str
) -> None:
    model = classifier(**overrides)
    assert model(PADDED).loss is None
    assert model.config.problem_type == overrides.get("problem_type")
    out = model(PADDED, labels=labels)
    assert model.config.problem_type == model.config.to_dict()["problem_type"] == problem
    assert out.loss == out[0] == classification_loss(out.logits, np.array(labels), problem)


@pytest.mark.parametrize(
    ("overrides", "labels", "message"),
    [
        ({}, [0, 1], r"must have the shape \(3,\), not \(2,\)"),
        ({}, [0, 1, 3], r"labels has 3, outside the classes 0\.\.2"),
        ({}, np.zeros((1, 3, 3)), r"must have the shape \(3, 3\), not \(1, 3, 3\)"),
        ({"problem_type": "regression"}, np.zeros(9), r"must have the shape \(3, 3\), not \(9,\)"),
        ({"problem_type": "guessing"}, [0, 1, 2], "problem_type must be one of regression, .*, not 'guessing'"),
    ],
)
def test_labels_that_do_not_fit_change_nothing(overrides: dict[str, Any], labels: Any, message: str) -> None:
    model = classifier(**overrides)
    past = model(PADDED).past_key_values
    mask = np.ones((3, 10), int)
    with pytest.raises(ValueError, match=message):
        model(PADDED, mask, past_key_values=past, labels=labels)
    assert past.length == 5
    assert model.config.problem_type == overrides.get("problem_type")


@pytest.mark.parametrize(
    "how",
    [
        {"attention_mask": [[1]]},
        {"position_ids": [[-1] * 5]},
        {"past_key_values": []},
        {"input_ids": PADDED + 100},
        {"input_ids": None, "inputs_embeds": np.ones((3, 5, 3))},
    ],
)
def test_what_the_problem_is_is_noted_only_when_all_went_well(how: dict[str, Any]) -> None:
    model = classifier()
    with pytest.raises(ValueError, match=r"^(\w+ must (be|have)|input_ids has the id)"):
        model(**{"input_ids": PADDED, "labels": [0, 1, 2]} | how)
    assert model.config.problem_type is None


def test_a_classifier_that_is_interrupted_has_noted_nothing() -> None:
    model = classifier()
    past = model(PADDED).past_key_values

    def stop(name: str, array: Array) -> None:
        if name == "logits":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model(PADDED, past_key_values=past, labels=[0, 1, 2], tap=stop)
    assert (model.config.problem_type, past.length) == (None, 5)


def test_labels_in_other_shapes_and_types() -> None:
    one = classifier()
    assert one(PADDED[:1], labels=2).loss == one(PADDED[:1], labels=[2]).loss
    with pytest.raises(ValueError, match=r"must have the shape \(4,\), not \(2, 2\)"):
        classifier()(PADDED[[0, 1, 2, 0]], labels=[[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="labels has rows of different lengths: pad them"):
        classifier()(PADDED, labels=[[0, 1], [1]])
    assert one(PADDED, labels=np.array([2, 0, 1], np.uint8)).loss == one(PADDED, labels=[2, 0, 1]).loss


def test_one_label_a_row_may_stand_in_a_column() -> None:
    model = classifier()
    loss = model(PADDED, labels=[2, 0, 1]).loss
    assert model(PADDED, labels=[[2], [0], [1]]).loss == loss


def test_a_classifiers_output_and_its_names() -> None:
    model, taps = classifier(), {}
    out = model(PADDED, output_attentions=True, output_hidden_states=True, tap=taps.__setitem__)
    assert out.keys() == ["logits", "past_key_values", "hidden_states", "attentions"]
    assert [*taps][-2:] == ["model.norm", "logits"]
    assert type(model(PADDED, return_dict=False)) is tuple
    assert model.num_labels == 3
