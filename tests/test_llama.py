import math

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from minillama.model.ops import softmax
from tests.tiny import ROPES, assert_close, random_ids, random_weights, tiny_config, tiny_model

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
    with pytest.raises(ValueError, match=r"labels has 37, outside the vocabulary 0\.\.36"):
        tiny_model()(IDS, labels=np.full_like(IDS, 37))


# -- inputs -------------------------------------------------------------------------------------------------------


def test_embeddings_may_be_given_instead_of_ids() -> None:
    model = tiny_model()
    x = model.weights.embed_tokens[IDS]
    np.testing.assert_array_equal(model(inputs_embeds=x).logits, model(IDS).logits)
    assert (model(inputs_embeds=x[:, ::-1]).logits != model(IDS).logits).any()


def test_lists_will_do() -> None:
    np.testing.assert_array_equal(tiny_model()(IDS.tolist()).logits, tiny_model()(IDS).logits)


def test_positions_count_on_by_default_padding_included() -> None:
    model = tiny_model()
    out = model(IDS, position_ids=np.arange(6)[None])
    np.testing.assert_array_equal(out.logits, model(IDS).logits)
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


@pytest.mark.parametrize("wrong", [{"engine": "abacus"}, {"dtype": "float16"}, {"compat": "hf3"}])
def test_choices_are_named(wrong: dict[str, str]) -> None:
    (name,) = wrong
    config = tiny_config()
    with pytest.raises(ValueError, match=f"{name} must be one of"):
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


def test_float32_is_near_float64() -> None:
    exact, ours = tiny_model()(IDS).logits, tiny_model(dtype="float32")(IDS).logits
    # float32 rounds at 6e-8; sums of some dozen terms through two spiky layers make that some 1e-6 of the scale
    assert np.abs(ours - exact).max() < 1e-5 * np.abs(exact).max()


def test_flags_default_to_those_of_the_config() -> None:
    out = tiny_model(output_attentions=True, output_hidden_states=True)(random_ids(45, 1, 3))
    assert out.attentions is not None
    assert out.hidden_states is not None
    assert tiny_model(output_attentions=True)(random_ids(45, 1, 3), output_attentions=False).attentions is None
