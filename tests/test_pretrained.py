"""The classes' weights: drawn, opened, looked at, resized, saved."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from minillama import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel, tale_model
from minillama.arrays import Array
from minillama.convert import main as convert_main
from minillama.weights.names import EMBED_TOKENS, LM_HEAD, SCORE
from tests.tiny import SIZES, random_ids, random_weights, tiny_config, tiny_model, write_safetensors

CLASSES = (LlamaModel, LlamaForCausalLM, LlamaForSequenceClassification)
classes = pytest.mark.parametrize("kind", CLASSES)
IDS = random_ids(90, 1, 7)


def last(out: Any) -> Any:
    """What a model is for: hidden states, or logits."""
    return out[0]


# -- new models ---------------------------------------------------------------------------------------------------


def test_the_example_of_the_page_costs_next_to_nothing() -> None:
    tracemalloc.start()
    model = LlamaModel(LlamaConfig())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6  # of the 27 GB that its weights would take
    assert model.num_parameters() == 6_607_343_616  # Llama 7B's 6,738,415,616 without a head of 32000 x 4096
    assert model.config.hidden_size == 4096
    assert model.state_dict()["layers.31.mlp.down_proj.weight"].shape == (4096, 11008)


@classes
def test_a_new_model_follows_from_its_seed(kind: type[LlamaModel]) -> None:
    config = tiny_config(num_labels=3)
    first, again, other = kind(config, seed=5), kind(config, seed=5), kind(config, seed=6)
    np.testing.assert_array_equal(last(first(IDS)), last(again(IDS)))
    assert np.abs(last(first(IDS)) - last(other(IDS))).max() > 1e-3


def test_a_seed_may_be_a_number_of_numpy() -> None:
    table = LlamaModel(tiny_config(), seed=np.int64(5)).get_input_embeddings().weight
    np.testing.assert_array_equal(table, LlamaModel(tiny_config(), seed=5).get_input_embeddings().weight)


@pytest.mark.parametrize("wrong", [[], 3, "model.safetensors", {1: np.ones(16)}])
def test_weights_map_names_to_arrays(wrong: Any) -> None:
    with pytest.raises(ValueError, match="weights must map names of tensors to arrays, not be a "):
        LlamaModel(tiny_config(), wrong)
    with pytest.raises(ValueError, match=r"norm\.weight has rows of different lengths"):
        LlamaModel(tiny_config(), {"norm.weight": [[1.0], [1.0, 2.0]]})


def test_a_model_can_be_pickled() -> None:
    model = LlamaForCausalLM(tiny_config(hidden_act=np.tanh), random_weights(tiny_config()))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)


def test_the_classes_share_a_decoder_of_one_seed() -> None:
    hidden = [
        model(IDS, output_hidden_states=True).hidden_states[-1]
        for model in (kind(tiny_config(), seed=5) for kind in CLASSES)
    ]
    np.testing.assert_array_equal(hidden[0], hidden[1])
    np.testing.assert_array_equal(hidden[0], hidden[2])


# -- what there is ------------------------------------------------------------------------------------------------


def test_the_names_and_arrays_of_a_state_dict() -> None:
    arrays = random_weights(tiny_config())
    model = LlamaForCausalLM(tiny_config(), arrays)
    state = model.state_dict()
    assert state.keys() == arrays.keys()
    for name, array in dict(state).items():
        np.testing.assert_array_equal(array, arrays[name])
    assert "norm.weight" in LlamaModel(tiny_config()).state_dict()
    assert SCORE in LlamaForSequenceClassification(tiny_config()).state_dict()
    assert repr(state).startswith("<21 tensors: model.embed_tokens.weight, ")


def test_bfloat16_is_widened_in_a_state_dict_and_float16_is_not(tmp_path: Path) -> None:
    arrays = random_weights(tiny_config())
    bits = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in arrays.items()}
    bits["model.norm.weight"] = arrays["model.norm.weight"].astype(np.float16)
    tiny_config().save_pretrained(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", bits)
    state = LlamaForCausalLM.from_pretrained(tmp_path).state_dict()
    assert state["model.norm.weight"].dtype == np.float16
    table = state[EMBED_TOKENS]
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table.view(np.uint32) >> 16, bits[EMBED_TOKENS])


def test_parameters_are_counted_once() -> None:
    V, D, L = 37, 16, 2
    layer = 2 * D + 2 * 24 * D + 2 * 12 * D + 3 * 20 * D  # norms; q and o; k and v; the gated network
    assert LlamaModel(tiny_config()).num_parameters() == V * D + L * layer + D
    assert LlamaForCausalLM(tiny_config()).num_parameters() == 2 * V * D + L * layer + D
    tied = LlamaForCausalLM(tiny_config(tie_word_embeddings=True))
    assert tied.num_parameters() == V * D + L * layer + D
    assert tied.num_parameters(exclude_embeddings=True) == L * layer + D
    assert tied.model.num_parameters() == tied.num_parameters()
    classifier = LlamaForSequenceClassification(tiny_config(num_labels=5))
    assert classifier.num_parameters(only_trainable=True) == V * D + L * layer + D + 5 * D
    assert classifier.model.num_parameters() == V * D + L * layer + D
    assert LlamaForCausalLM(tiny_config()).num_parameters(exclude_embeddings=True) == V * D + L * layer + D


def test_embeddings_are_tables_that_can_be_asked() -> None:
    arrays = random_weights(tiny_config())
    model = LlamaForCausalLM(tiny_config(), arrays)
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    np.testing.assert_array_equal(table.weight, arrays[EMBED_TOKENS])
    np.testing.assert_array_equal(table(IDS), arrays[EMBED_TOKENS][IDS])
    np.testing.assert_array_equal(head.weight, arrays[LM_HEAD])
    np.testing.assert_array_equal(model(inputs_embeds=table(IDS)).logits, model(IDS).logits)
    hidden = model.model(IDS).last_hidden_state
    np.testing.assert_array_equal(head(hidden), model(IDS).logits)
    assert LlamaModel(tiny_config()).get_output_embeddings() is None
    assert table([]).shape == (0, 16)
    assert table(5).shape == (16,)
    for wrong, message in (
        ([-1], "input_ids has the id -1, outside the vocabulary"),
        ([37], "input_ids has the id 37, outside the vocabulary"),
        ([1.5], "input_ids must be an array of integers, not float64"),
        ([True, False], "input_ids must be an array of integers, not bool"),
        ([[1], [2, 3]], "input_ids has rows of different lengths"),
    ):
        with pytest.raises(ValueError, match=message):
            table(wrong)


def test_a_model_knows_its_config_and_has_no_other_mode() -> None:
    config = tiny_config()
    model = LlamaForCausalLM(config, dtype=np.float64)
    assert model.config is model.model.config is config
    assert model.eval() is model
    assert model.dtype == np.float64


# -- changes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_larger_vocabulary_keeps_the_rows_there_were(tied: bool) -> None:
    model = LlamaForCausalLM(tiny_config(tie_word_embeddings=tied), seed=3)
    before, table = model(IDS).logits, model.get_input_embeddings().weight
    new = model.resize_token_embeddings(40)
    assert (new.weight.shape, model.config.vocab_size) == ((40, 16), 40)
    np.testing.assert_array_equal(new.weight[:37], table)
    assert new.weight[37:].std() == pytest.approx(0.02, rel=0.5)  # of 48 numbers: 10% off is typical
    after = model(IDS).logits
    np.testing.assert_allclose(after[..., :37], before, rtol=0, atol=1e-7)  # BLAS may add another width otherwise
    assert model(np.array([[39]])).logits.shape == (1, 1, 40)
    assert model.new_engine().vocab_size == 40
    assert np.array_equal(model.get_output_embeddings().weight, new.weight) == tied


def test_a_smaller_vocabulary_and_a_rounded_one() -> None:
    model = LlamaForSequenceClassification(tiny_config())
    assert model.resize_token_embeddings(20).weight.shape == (20, 16)
    with pytest.raises(ValueError, match=r"the id 20, outside the vocabulary 0\.\.19"):
        model(np.array([[20]]))
    assert model.resize_token_embeddings(pad_to_multiple_of=16).weight.shape == (32, 16)
    assert model.resize_token_embeddings().weight.shape == (32, 16)
    for wrong in ({"new_num_tokens": 0}, {"new_num_tokens": 2.5}, {"new_num_tokens": True}, {"pad_to_multiple_of": 0}):
        with pytest.raises(ValueError, match="must be a whole number of at least 1, not "):
            model.resize_token_embeddings(**wrong)
    assert model.config.vocab_size == 32


def test_new_rows_are_new_and_follow_from_the_seed() -> None:
    def resized(seed: int, rows: int = 80) -> Array:
        return LlamaForCausalLM(tiny_config(), seed=seed).resize_token_embeddings(rows).weight

    table = resized(3)
    assert len({row.tobytes() for row in table}) == 80  # none repeats another
    np.testing.assert_array_equal(table, resized(3))
    assert (table[37:] != resized(4)[37:]).all()
    twice = LlamaForCausalLM(tiny_config(), seed=3)
    twice.resize_token_embeddings(40)
    assert len({row.tobytes() for row in twice.resize_token_embeddings(43).weight}) == 43


def test_heads_cannot_be_pruned() -> None:
    with pytest.raises(ValueError, match="every layer has as many as the config says"):
        LlamaModel(tiny_config()).prune_heads({0: [1]})


# -- files --------------------------------------------------------------------------------------------------------


@classes
@pytest.mark.parametrize("size", ["5GB", 2000])
def test_there_and_back_again(kind: type[LlamaModel], size: int | str, tmp_path: Path) -> None:
    model = kind(tiny_config(num_labels=3, pad_token_id=2), seed=8)
    model.save_pretrained(tmp_path, max_shard_size=size)
    again = kind.from_pretrained(tmp_path)
    np.testing.assert_array_equal(last(again(IDS)), last(model(IDS)))
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["architectures"], saved["torch_dtype"]) == ([kind.__name__], "float32")
    assert (tmp_path / "model.safetensors.index.json").exists() == (size == 2000)


def test_the_tale_model_keeps_its_bytes(tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tale_model())
    model.save_pretrained(tmp_path, max_shard_size="4MB")
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    for name, tensor in model.weights.tensors.items():
        assert again.weights.tensors[name].dtype == tensor.dtype == "BF16"
        np.testing.assert_array_equal(again.weights.tensors[name].stored(), tensor.stored())
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_tied_head_is_written_once_and_one_that_differs_too(tmp_path: Path) -> None:
    tied = LlamaForCausalLM(tiny_config(tie_word_embeddings=True), seed=1)
    tied.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert again.weights.tensors[LM_HEAD] is again.weights.tensors[EMBED_TOKENS]
    np.testing.assert_array_equal(again(IDS).logits, tied(IDS).logits)
    size = (tmp_path / "model.safetensors").stat().st_size
    LlamaForCausalLM(tiny_config(), seed=1).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size > size + 37 * 16 * 4 - 200  # a name more in the header


def test_of_tied_weights_that_differ_both_are_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = random_weights(tiny_config())
    model = LlamaForCausalLM(tiny_config(tie_word_embeddings=True), arrays)
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert "stores two that differ: both are used" in caplog.text
    np.testing.assert_array_equal(again.get_output_embeddings().weight, arrays[LM_HEAD])
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)


def test_saving_over_another_checkpoint_leaves_nothing_of_it(tmp_path: Path) -> None:
    LlamaModel(tiny_config(), seed=1).save_pretrained(tmp_path, max_shard_size=2000)
    model = LlamaModel(tiny_config(), seed=2)
    model.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    np.testing.assert_array_equal(last(LlamaModel.from_pretrained(tmp_path)(IDS)), last(model(IDS)))


def test_a_model_is_saved_over_the_files_it_is_read_from(tmp_path: Path) -> None:
    LlamaForCausalLM(tiny_config(), seed=4).save_pretrained(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path)
    model.resize_token_embeddings(41)
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert again.config.vocab_size == 41
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)


def test_what_cannot_be_saved_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    model = LlamaModel(tiny_config(hidden_act=np.tanh))
    with pytest.raises(ValueError, match=r"hidden_act is a function and config\.json can hold only a name"):
        model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="safe_serialization=False would write pickled files"):
        model.save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.iterdir()) == []


# -- one class from another's checkpoint ---------------------------------------------------------------------------


def test_a_decoder_is_read_from_a_checkpoint_with_a_head(tmp_path: Path) -> None:
    causal = LlamaForCausalLM(tiny_config(), seed=3)
    causal.save_pretrained(tmp_path)
    model = LlamaModel.from_pretrained(tmp_path)
    np.testing.assert_array_equal(model(IDS).last_hidden_state, causal.model(IDS).last_hidden_state)
    assert LM_HEAD not in model.state_dict()


def test_a_classifier_on_a_trained_decoder_has_a_head_yet_to_be_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LlamaForCausalLM(tiny_config(), seed=3).save_pretrained(tmp_path)
    model = LlamaForSequenceClassification.from_pretrained(tmp_path, num_labels=4, seed=2)
    assert "has no score.weight: the head is drawn at random and has yet to be trained" in caplog.text
    assert model(IDS).logits.shape == (1, 4)
    again = LlamaForSequenceClassification.from_pretrained(tmp_path, num_labels=4, seed=2)
    np.testing.assert_array_equal(model(IDS).logits, again(IDS).logits)
    other = LlamaForSequenceClassification.from_pretrained(tmp_path, num_labels=4, seed=3)
    assert (model.weights.score != other.weights.score).all()


def test_a_causal_model_is_not_read_from_a_checkpoint_without_its_head(tmp_path: Path) -> None:
    LlamaForSequenceClassification(tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"1 missing: lm_head\.weight"):
        LlamaForCausalLM.from_pretrained(tmp_path)


def test_a_config_may_be_given_and_its_fields_set_otherwise(tmp_path: Path) -> None:
    LlamaModel(tiny_config()).save_pretrained(tmp_path)
    given = LlamaModel.from_pretrained(tmp_path, config=LlamaConfig(**SIZES | {"rope_theta": 77.0}))
    assert given.config.rope_theta == 77
    assert LlamaModel.from_pretrained(tmp_path, use_cache=False)(IDS).past_key_values is None
    with pytest.raises(TypeError, match="takes no 'use_cash', nor is it a field of LlamaConfig"):
        LlamaModel.from_pretrained(tmp_path, use_cash=False)
    assert LlamaModel.from_pretrained(tmp_path, torch_dtype="float64").dtype == np.float64

    asked: dict[str, Any] = {"device_map": "auto", "low_cpu_mem_usage": True, "attn_implementation": "eager"}
    assert LlamaModel.from_pretrained(tmp_path, **asked).config == LlamaConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="device_map must be auto or cpu, the only place there is, not 'cuda'"):
        LlamaModel.from_pretrained(tmp_path, device_map="cuda")

    class OfTorch:
        def __str__(self) -> str:
            return "torch.float64"

    assert LlamaModel.from_pretrained(tmp_path, torch_dtype=OfTorch()).dtype == np.float64
    theirs = SimpleNamespace(to_dict=LlamaConfig.from_pretrained(tmp_path).to_dict)  # another library's config
    assert LlamaModel.from_pretrained(tmp_path, config=theirs).config == LlamaConfig.from_pretrained(tmp_path)
    assert LlamaModel.from_pretrained(tmp_path, dtype=None).dtype == np.float32
    with pytest.raises(ValueError, match="engine must be one of"):
        LlamaModel.from_pretrained("there is no such folder", engine="abacus")  # told before the disk is asked
    with pytest.raises(ValueError, match=r"engine 'numpy' computes in f32 or f64: use engine 'numba' for f16"):
        LlamaModel.from_pretrained(tmp_path, engine="numpy", dtype=np.float16)


def test_settings_of_generation_are_read_kept_and_saved(tmp_path: Path) -> None:
    assert LlamaForCausalLM.from_pretrained(tale_model()).generation_config.repetition_penalty == 1.2
    model = LlamaForCausalLM(tiny_config(eos_token_id=[4, 5], pad_token_id=0), seed=1)
    assert model.generation_config.eos_token_id == [4, 5]
    model.generation_config.update(max_new_tokens=3, num_beams=2)
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert again.generation_config == model.generation_config
    np.testing.assert_array_equal(again.generate(IDS), model.generate(IDS, max_new_tokens=3, num_beams=2))


def test_a_model_within_a_model_is_the_last() -> None:
    model = LlamaForCausalLM(tiny_config(), seed=1)
    assert isinstance(model.model, LlamaModel)
    assert not hasattr(model.model, "model")
    assert model.model.decoder is model.decoder


@pytest.mark.parametrize("convert", [False, True])
def test_a_config_that_ties_two_tables_is_not_written_again(convert: bool, tmp_path: Path) -> None:
    """Nor one that does not tie what is one table: transformers would drop the head, or find none."""
    config = tiny_config()
    arrays = random_weights(config)
    for tied, metadata in ((True, {}), (False, {LM_HEAD: EMBED_TOKENS})):
        stored = {name: array for name, array in arrays.items() if tied or name != LM_HEAD}
        (tmp_path / "in").mkdir(exist_ok=True)
        write_safetensors(tmp_path / "in" / "model.safetensors", stored, metadata)
        tiny_config(tie_word_embeddings=tied).save_pretrained(tmp_path / "in")
        if convert:
            assert convert_main([str(tmp_path / "in"), str(tmp_path / "out"), "--force"]) == 0
        else:
            LlamaForCausalLM.from_pretrained(tmp_path / "in").save_pretrained(tmp_path / "out")
        written = json.loads((tmp_path / "out" / "config.json").read_text())
        assert written["tie_word_embeddings"] is not tied
        assert (LM_HEAD in load_file(tmp_path / "out" / "model.safetensors")) == tied


def test_a_tied_head_that_is_packed_stays_tied(tmp_path: Path) -> None:
    model = LlamaForCausalLM(tiny_config(tie_word_embeddings=True), engine="numba", dtype="bf16z")
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is True


def test_what_a_config_says_of_the_numbers_is_written_anew(tmp_path: Path) -> None:
    """Here it comes from a quantized folder, and the weights are floats."""
    stale = tiny_config(quantization_config={"quant_method": "minillama", "version": 1, "format": "q8_0"})
    stale.torch_dtype, stale.architectures = "bfloat16", ["LlamaModel"]
    LlamaForCausalLM(stale, random_weights(stale)).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in written
    assert (written["torch_dtype"], written["architectures"]) == ("float32", ["LlamaForCausalLM"])


@pytest.mark.parametrize(
    ("field", "value"), [("vocab_size", 40), ("num_hidden_layers", 3), ("attention_bias", True), ("head_dim", 8)]
)
def test_sizes_that_were_set_later_are_not_written(field: str, value: Any, tmp_path: Path) -> None:
    model = tiny_model()
    setattr(model.config, field, value)
    with pytest.raises(ValueError, match="set the config's fields back to what the weights are"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
