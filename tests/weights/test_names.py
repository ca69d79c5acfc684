import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.model.rope import Rotary, rotate
from minillama.weights.names import (
    EMBED_TOKENS,
    LM_HEAD,
    expected_shapes,
    halves_to_interleaved,
    interleaved_to_halves,
    match_tensors,
)
from minillama.weights.safetensors import ArrayTensor, Tensor
from tests.tiny import SEEDS, assert_close, random_weights, spiky, tiny_config


def tensors_of(config: LlamaConfig) -> dict[str, Tensor]:
    return {name: ArrayTensor(array) for name, array in random_weights(config).items()}


# -- names --------------------------------------------------------------------------------------------------------


def test_the_names_and_shapes_of_a_whole_model() -> None:
    shapes = expected_shapes(tiny_config(num_hidden_layers=1, attention_bias=True, mlp_bias=True))
    assert shapes == {
        "model.embed_tokens.weight": (37, 16),
        "model.layers.0.input_layernorm.weight": (16,),
        "model.layers.0.self_attn.q_proj.weight": (24, 16),
        "model.layers.0.self_attn.k_proj.weight": (12, 16),
        "model.layers.0.self_attn.v_proj.weight": (12, 16),
        "model.layers.0.self_attn.o_proj.weight": (16, 24),
        "model.layers.0.self_attn.q_proj.bias": (24,),
        "model.layers.0.self_attn.k_proj.bias": (12,),
        "model.layers.0.self_attn.v_proj.bias": (12,),
        "model.layers.0.self_attn.o_proj.bias": (16,),
        "model.layers.0.post_attention_layernorm.weight": (16,),
        "model.layers.0.mlp.gate_proj.weight": (20, 16),
        "model.layers.0.mlp.up_proj.weight": (20, 16),
        "model.layers.0.mlp.down_proj.weight": (16, 20),
        "model.layers.0.mlp.gate_proj.bias": (20,),
        "model.layers.0.mlp.up_proj.bias": (20,),
        "model.layers.0.mlp.down_proj.bias": (16,),
        "model.norm.weight": (16,),
        "lm_head.weight": (37, 16),
    }
    assert not any("bias" in name for name in expected_shapes(tiny_config()))


def test_a_sound_set_is_matched_by_name() -> None:
    config = tiny_config()
    tensors = tensors_of(config)
    assert match_tensors(config, dict(reversed(tensors.items())), {}, "here") == tensors


@pytest.mark.parametrize("stored", [EMBED_TOKENS, LM_HEAD])
def test_tied_weights_under_either_name(stored: str) -> None:
    config = tiny_config(tie_word_embeddings=True)
    tensors = tensors_of(config)
    table = tensors.pop(EMBED_TOKENS)
    matched = match_tensors(config, tensors | {stored: table}, {}, "here")
    assert matched[EMBED_TOKENS] is matched[LM_HEAD] is table


def test_of_two_equal_tied_tensors_the_embedding_counts() -> None:
    tensors = tensors_of(tiny_config())
    tensors[LM_HEAD] = ArrayTensor(tensors[EMBED_TOKENS].array.copy())
    matched = match_tensors(tiny_config(tie_word_embeddings=True), tensors, {}, "here")
    assert matched[LM_HEAD] is tensors[EMBED_TOKENS]


def test_two_tied_tensors_that_differ_are_both_used_and_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    tensors = tensors_of(tiny_config())
    matched = match_tensors(tiny_config(tie_word_embeddings=True), tensors, {}, "here")
    assert matched[LM_HEAD] is tensors[LM_HEAD]
    assert matched[EMBED_TOKENS] is tensors[EMBED_TOKENS]
    (line,) = caplog.messages
    assert line.startswith("here: its config ties the head to the embedding")


def test_a_tensor_that_metadata_gives_another_name() -> None:
    config = tiny_config()
    tensors = tensors_of(config)
    shared = tensors.pop(LM_HEAD)
    tensors[EMBED_TOKENS] = shared
    matched = match_tensors(config, tensors, {LM_HEAD: EMBED_TOKENS, "format": "pt"}, "here")
    assert matched[LM_HEAD] is shared
    with pytest.raises(ValueError, match=r"1 missing: lm_head\.weight"):
        match_tensors(config, tensors, {"format": "pt"}, "here")


def test_a_tensor_that_is_there_is_no_alias() -> None:
    config = tiny_config()
    tensors = tensors_of(config)
    assert match_tensors(config, tensors, {LM_HEAD: EMBED_TOKENS}, "here") == tensors


def test_a_decoder_saved_without_its_head() -> None:
    config = tiny_config(tie_word_embeddings=True)
    tensors = tensors_of(config)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    assert match_tensors(config, bare, {}, "here") == tensors | {LM_HEAD: tensors[EMBED_TOKENS]}


def test_frequencies_that_follow_from_the_config_are_ignored() -> None:
    config = tiny_config()
    tensors = tensors_of(config)
    extra = ArrayTensor(np.ones(3, np.float32))
    derived = {"rope.freqs": extra, "model.layers.1.self_attn.rotary_emb.inv_freq": extra}
    assert match_tensors(config, tensors | derived, {}, "here") == tensors


def test_one_error_names_all_that_is_wrong() -> None:
    config = tiny_config()
    tensors = tensors_of(config)
    del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors["visual.weight"] = tensors[LM_HEAD]
    tensors["model.layers.0.self_attn.k_proj.weight"] = ArrayTensor(np.ones((24, 16), np.float32))
    with pytest.raises(ValueError, match=r"^here: ") as caught:
        match_tensors(config, tensors, {}, "here")
    missing, unexpected, misshaped = str(caught.value).split("; ")[1:4]
    assert missing == "2 missing: model.layers.1.mlp.up_proj.weight, model.norm.weight"
    assert unexpected == "2 unexpected: model.layers.2.mlp.up_proj.weight, visual.weight"
    assert "1 of another shape" in misshaped
    assert "model.layers.0.self_attn.k_proj.weight (24, 16) instead of (12, 16)" in misshaped


def test_what_is_missing_is_not_listed_without_end() -> None:
    tensors = tensors_of(tiny_config(num_hidden_layers=20))
    with pytest.raises(ValueError, match="and 24 more; use the config") as caught:
        match_tensors(tiny_config(num_hidden_layers=26), tensors, {}, "here")
    assert str(caught.value).startswith(
        "here: the tensors are not those of its config; 54 missing: model.layers.20.input"
    )
    assert len(str(caught.value)) < 2000


# -- rotary layouts -----------------------------------------------------------------------------------------------


def test_neighbours_become_the_two_halves() -> None:
    rows = np.arange(12)[:, None] * np.ones((1, 2))  # two heads of six rows
    order = interleaved_to_halves(rows, 2)[:, 0].tolist()
    assert order == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    assert interleaved_to_halves(np.arange(6.0), 1).tolist() == [0, 2, 4, 1, 3, 5]  # a bias


@given(SEEDS, st.integers(1, 4), st.integers(1, 5), st.sampled_from([(), (3,)]))
def test_to_the_other_layout_and_back(seed: int, heads: int, pairs: int, columns: tuple[int, ...]) -> None:
    weight = spiky(np.random.default_rng(seed), heads * pairs * 2, *columns)
    np.testing.assert_array_equal(halves_to_interleaved(interleaved_to_halves(weight, heads), heads), weight)
    np.testing.assert_array_equal(interleaved_to_halves(halves_to_interleaved(weight, heads), heads), weight)


def rotate_neighbours(x: Array, theta: Array) -> Array:
    """As Meta's own code does it: components 2j and 2j + 1 are one complex number. x: (heads, T, K)."""
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * theta)
    return np.stack((turned.real, turned.imag), axis=-1).reshape(x.shape)


@given(SEEDS)
def test_both_layouts_give_the_same_scores(seed: int) -> None:
    rng, T, H, G, K, D = np.random.default_rng(seed), 5, 4, 2, 6, 8
    x, wq, wk = spiky(rng, T, D), spiky(rng, H * K, D), spiky(rng, G * K, D)

    def heads(weight: Array, count: int) -> Array:
        return (x @ weight.T).reshape(T, count, K).swapaxes(0, 1)  # (count, T, K)

    positions, rotary = np.arange(T)[None], Rotary(tiny_config(head_dim=K))
    inv_freq = rotary.inv_freq(positions, T)
    theta = positions[0][:, None] * inv_freq
    q, k = rotate_neighbours(heads(wq, H), theta), rotate_neighbours(heads(wk, G), theta)
    cos_sin = rotary.angles(positions, inv_freq, np.float64)
    q_halves = rotate(heads(interleaved_to_halves(wq, H), H)[None], *cos_sin)[0]
    k_halves = rotate(heads(interleaved_to_halves(wk, G), G)[None], *cos_sin)[0]
    for h in range(H):
        assert_close(q_halves[h] @ k_halves[h // 2].T, q[h] @ k[h // 2].T)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("self_attn.qkv_proj.weight", "its q, k and v are one matrix, which is not read: get the model with three$"),
        ("self_attn.W_pack.weight", "its q, k and v are one matrix"),
        ("mlp.gate_up_proj.weight", "its gate and up are one matrix, which is not read: get the model with two$"),
        ("block_sparse_moe.experts.0.w1.weight", "it is a mixture of experts, which minillama has not$"),
        ("self_attn.q_norm.weight", "try this$"),
    ],
)
def test_what_no_config_makes_a_llama(name: str, words: str) -> None:
    config = tiny_config()
    tensors = tensors_of(config)
    tensors[f"model.layers.1.{name}"] = tensors.pop("model.layers.1.self_attn.q_proj.weight")
    with pytest.raises(ValueError, match=words):
        match_tensors(config, tensors, {}, "here", advice="try this")
