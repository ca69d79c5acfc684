import numpy as np
from hypothesis import find, given
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.model.rope import Rotary
from minillama.testing.strategies import configs, masks, ragged_batches, rotary_settings, spiky_arrays, weights_of
from minillama.weights import names

SIZES = st.integers(1, 4)


@given(spiky_arrays(3, 4))
def test_arrays_are_asymmetric(x: Array) -> None:
    assert x.shape == (3, 4)
    assert len(np.unique(np.abs(x))) == x.size


@given(st.data(), SIZES, SIZES, SIZES)
def test_every_query_sees_a_key(data: st.DataObject, B: int, T: int, S: int) -> None:
    mask = data.draw(masks(B, T, S))
    assert mask.shape == (B, 1, T, S)
    assert mask.dtype == bool
    assert mask.any(axis=-1).all()


def test_blind_queries_and_hidden_keys_are_drawn() -> None:
    find(masks(1, 2, 3, blind=True), lambda mask: (~mask.any(axis=-1)).any() and mask.any())
    find(masks(2, 2, 3), lambda mask: bool((~mask).any() and (mask[0] != mask[1]).any()))


@given(ragged_batches(7))
def test_rows_are_padded_on_one_side_and_the_longest_fills(batch: tuple[Array, Array]) -> None:
    ids, mask = batch
    assert ids.shape == mask.shape
    assert ids.max() < 7
    assert mask.sum(axis=1).max() == mask.shape[1]
    assert mask.any(axis=1).all()
    steps = np.diff(mask, axis=1)
    assert (steps <= 0).all() or (steps >= 0).all()


def test_both_sides_are_padded() -> None:
    find(ragged_batches(7), lambda batch: bool(batch[1][0, 0] == 0))
    find(ragged_batches(7), lambda batch: bool(batch[1][0, -1] == 0))


@given(rotary_settings(8, ("default", "linear", "llama3", "yarn")))
def test_rotary_settings_make_a_config(settings: dict[str, object]) -> None:
    head = LlamaConfig(
        hidden_size=8, num_attention_heads=1, rope_theta=settings["theta"], rope_scaling=settings["scaling"]
    )  # type: ignore[arg-type]
    plain = LlamaConfig(hidden_size=8, num_attention_heads=1, rope_theta=settings["theta"])  # type: ignore[arg-type]
    position = np.array([[1]])
    changed = Rotary(head).inv_freq(position, 1) != Rotary(plain).inv_freq(position, 1)
    assert changed.any() == (settings["scaling"] is not None)  # each scaling shows in some pair


@given(configs(features=("grouped", "head_dim", "biases", "llama3")), st.integers(0, 9))
def test_configs_have_the_features_that_are_asked_for(config: LlamaConfig, seed: int) -> None:
    assert config.num_attention_heads > config.num_key_value_heads
    assert config.hidden_size != config.num_attention_heads * config.head_dim
    assert config.attention_bias
    assert config.rope_type == "llama3"
    weights = weights_of(config, seed)
    assert {name: w.shape for name, w in weights.items()} == names.expected_shapes(config)
    assert all(w.dtype == np.float32 and w.any() for w in weights.values())


@given(configs(multiple=32, vocab_size=40))
def test_widths_are_multiples_and_fields_can_be_given(config: LlamaConfig) -> None:
    assert config.hidden_size % 32 == config.intermediate_size % 32 == config.head_dim % 32 == 0
    assert config.vocab_size == 40


@given(configs(features=("tied",)))
def test_a_tied_head_is_left_out(config: LlamaConfig) -> None:
    assert names.LM_HEAD not in weights_of(config, 0)


def test_they_shrink_to_the_smallest_model() -> None:
    smallest = find(configs(), lambda config: True)
    assert (smallest.hidden_size, smallest.num_hidden_layers, smallest.vocab_size) == (4, 1, 5)
