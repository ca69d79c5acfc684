import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.config import LlamaConfig
from minillama.llama import LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
from tests.tiny import ROPES, tiny_config

DEFAULTS = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu",
    "max_position_embeddings": 2048, "initializer_range": 0.02, "rms_norm_eps": 1e-6, "use_cache": True,
    "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "pretraining_tp": 1, "tie_word_embeddings": False,
    "rope_theta": 1e4, "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
    "head_dim": 128,
}  # fmt: skip


def test_the_defaults_are_those_of_llama_7b() -> None:
    assert LlamaConfig().to_dict() == DEFAULTS


def test_sizes_that_follow_from_others() -> None:
    config = LlamaConfig(hidden_size=48, num_attention_heads=4)
    assert (config.num_key_value_heads, config.head_dim) == (4, 12)
    config = LlamaConfig(hidden_size=50, num_attention_heads=4, num_key_value_heads=2, head_dim=6)
    assert (config.num_key_value_heads, config.head_dim) == (2, 6)


@pytest.mark.parametrize("kind", ROPES)
def test_written_and_read_it_is_the_same(kind: str, tmp_path: Path) -> None:
    config = tiny_config(**ROPES[kind], eos_token_id=[2, 5], num_labels=3, id2label={"0": "a"}, new_field=[1, None])
    config.save_pretrained(tmp_path / "new folder")
    for path in (tmp_path / "new folder", tmp_path / "new folder" / "config.json"):
        assert LlamaConfig.from_pretrained(path) == config
    assert LlamaConfig.from_dict(config.to_dict()) == config != tiny_config()
    assert [file.name for file in (tmp_path / "new folder").iterdir()] == ["config.json"]


def test_unknown_keys_are_kept_and_written_back() -> None:
    config = LlamaConfig(problem_type="regression", architectures=["LlamaForCausalLM"])
    assert config.problem_type == "regression"
    written = json.loads(config.to_json_string())
    assert (written["problem_type"], written["architectures"]) == ("regression", ["LlamaForCausalLM"])
    with pytest.raises(AttributeError, match="no field 'problem'"):
        config.problem  # noqa: B018


def test_keys_that_have_the_names_of_arguments_are_kept_too(tmp_path: Path) -> None:
    keys = {"self": 1, "cls": 2, "kwargs": 3, "values": 4, "extra": 5}
    config = LlamaConfig.from_dict(keys)
    config.save_pretrained(tmp_path)
    assert LlamaConfig.from_pretrained(tmp_path) == config
    assert json.loads(config.to_json_string()).items() >= keys.items()


def test_unknown_keys_can_be_deleted_and_fields_cannot() -> None:
    config = LlamaConfig(theme="forest")
    config.colour = "green"
    del config.theme, config.colour
    assert config == LlamaConfig()
    for name in ("problem_type", "vocab_size", "num_labels", "extra"):
        with pytest.raises(AttributeError, match=f"{name} is a field of every LlamaConfig and cannot be deleted"):
            delattr(config, name)
    with pytest.raises(AttributeError, match="theme"):
        del config.theme
    assert config == LlamaConfig()


@pytest.mark.parametrize("depth", [150, 600])
def test_a_value_that_is_nested_too_deeply(depth: int, tmp_path: Path) -> None:
    text = '{"deep": ' + "[" * depth + "]" * depth + "}"
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: the config has a value that is nested more than 100 deep"):
        LlamaConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        LlamaConfig(**json.loads(text))
    LlamaConfig(deep=json.loads("[" * 90 + "]" * 90)).save_pretrained(tmp_path)
    assert LlamaConfig.from_pretrained(tmp_path).deep


def test_theta_and_scaling_in_one() -> None:
    config = LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5})
    assert (config.rope_theta, config.rope_type) == (5e5, "linear")
    assert config.rope_scaling["factor"] == 2.0
    config = LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 7.0})
    assert (config.rope_theta, config.rope_type, config.rope_scaling) == (7.0, "default", None)


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_both_spellings_of_the_scaling_type(key: str) -> None:
    config = LlamaConfig(rope_scaling={key: "dynamic", "factor": 3.0})
    assert (config.rope_type, config.context_length) == ("dynamic", 3 * 2048)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_both_spellings_of_the_dtype(key: str) -> None:
    config = LlamaConfig(**{key: "bfloat16"})
    assert config.torch_dtype == "bfloat16"
    assert config.to_dict()["torch_dtype"] == "bfloat16"


def test_of_two_spellings_the_newer_counts_unless_it_says_nothing() -> None:
    assert LlamaConfig(dtype="float16", torch_dtype="float32").torch_dtype == "float16"
    assert LlamaConfig(dtype="bfloat16", torch_dtype=None).torch_dtype == "bfloat16"
    assert LlamaConfig(dtype=None, torch_dtype="bfloat16").torch_dtype == "bfloat16"
    inside = {"rope_type": "linear", "factor": 2.0, "rope_theta": 9.0}
    for name in ("rope_scaling", "rope_parameters"):
        config = LlamaConfig(rope_theta=7.0, **{name: inside})
        assert (config.rope_theta, config.rope_scaling) == (9.0, {"rope_type": "linear", "factor": 2.0})
        assert LlamaConfig.from_dict({name: inside}, rope_theta=8.0).rope_theta == 8
    assert LlamaConfig(rope_theta=7.0, rope_parameters={"rope_type": "default"}).rope_theta == 7


@pytest.mark.parametrize("make", [LlamaConfig, lambda **values: LlamaConfig.from_dict(values)])
def test_of_two_scalings_the_older_spelling_counts(make: Any) -> None:
    """As in transformers 5.24, which says so in tests/oracle/test_rope_live.py."""
    newer = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0}
    older = {"rope_type": "linear", "factor": 4.0}
    for both in ({"rope_parameters": newer, "rope_scaling": older}, {"rope_scaling": older, "rope_parameters": newer}):
        config = make(**both)
        assert (config.rope_scaling, config.rope_theta) == (older, 5.0)
    assert make(rope_parameters=newer, rope_scaling=older | {"rope_theta": 7.0}).rope_theta == 7.0
    for nothing in (None, {}):
        assert make(rope_parameters=newer, rope_scaling=nothing).rope_scaling == {"rope_type": "linear", "factor": 2.0}
    assert make(rope_parameters={"rope_type": "default", "rope_theta": 5.0}, rope_scaling=older).rope_scaling == older


def test_the_newer_spellings_are_read_and_set(tmp_path: Path) -> None:
    config = LlamaConfig()
    assert (config.rope_parameters, config.dtype) == ({"rope_type": "default", "rope_theta": 1e4}, None)
    written = {*config.to_dict()}
    linear = {"rope_type": "linear", "factor": 2.0}
    config.rope_parameters, config.dtype = {**linear, "rope_theta": 5e5}, "float16"
    assert (config.rope_theta, config.rope_scaling, config.torch_dtype) == (5e5, linear, "float16")
    assert (config.rope_parameters, config.dtype) == ({**linear, "rope_theta": 5e5}, "float16")
    assert {*config.to_dict()} == written | {"torch_dtype"}
    config.save_pretrained(tmp_path)
    assert LlamaConfig.from_pretrained(tmp_path) == config
    config.rope_scaling = {"type": "linear", "factor": 3.0, "rope_theta": 6.0}
    assert config.rope_parameters == {"rope_type": "linear", "factor": 3.0, "rope_theta": 6.0}
    config.rope_parameters = None
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 6.0}
    with pytest.raises(ValueError, match="rope_scaling must be a dictionary or null, not 'x'"):
        config.rope_scaling = "x"
    assert config.rope_type == "default"


@pytest.mark.parametrize("dtype", ["float64", np.dtype("float64"), np.float64, float])
def test_a_dtype_is_stored_by_its_name(dtype: object) -> None:
    config = LlamaConfig(torch_dtype=dtype)
    assert json.loads(config.to_json_string())["torch_dtype"] == "float64"
    config.torch_dtype = np.float16
    assert config.to_dict()["torch_dtype"] == "float16"


@pytest.mark.parametrize(("eos", "ids"), [(None, ()), (2, (2,)), ([128001, 128009], (128001, 128009))])
def test_ends_of_text(eos: int | list[int] | None, ids: tuple[int, ...]) -> None:
    config = LlamaConfig(eos_token_id=eos)
    assert config.eos_token_ids == ids
    assert config.to_dict()["eos_token_id"] == eos


def test_the_trained_length_before_scaling() -> None:
    assert tiny_config(**ROPES["llama3"]).original_max_position_embeddings == 16
    assert tiny_config(**ROPES["llama3"]).context_length == 32
    assert tiny_config(**ROPES["linear"]).context_length == 4 * 32
    beside = tiny_config(**ROPES["default"], original_max_position_embeddings=12)
    assert beside.original_max_position_embeddings == 12


def test_an_activation_without_a_name_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="hidden_act is a function"):
        LlamaConfig(hidden_act=abs).to_json_string()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size 30 is not a multiple of num_attention_heads 4"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"rms_norm_eps": 0}, "rms_norm_eps must be a number above 0"),
        ({"rope_theta": -1.0}, "rope_theta must be a number above 0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers must be a whole number"),
        ({"rope_scaling": {"type": "linear"}}, "needs 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": 1.0}}, "factor must be a number above 1"),
        ({"rope_scaling": {"type": "spiral", "factor": 2.0}}, "unknown type 'spiral'"),
    ],
)
def test_what_makes_no_model_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LlamaConfig(**wrong)


def test_null_flags_are_the_defaults_and_scaling_needs_a_type() -> None:
    config = LlamaConfig.from_dict({"attention_bias": None, "use_cache": None, "mlp_bias": None})
    assert (config.attention_bias, config.use_cache, config.mlp_bias) == (False, True, False)
    config = LlamaConfig(return_dict=None, output_hidden_states=None, output_attentions=None)
    assert config == LlamaConfig()
    config.use_cache = None
    assert config.use_cache is True
    linear = LlamaConfig(rope_scaling={"rope_type": None, "type": "linear", "factor": 2.0})
    assert linear.rope_type == "linear"
    assert LlamaConfig(rope_parameters={"rope_theta": 5e5}).rope_type == "default"
    with pytest.raises(ValueError, match="rope_scaling has no rope_type"):
        LlamaConfig(rope_scaling={"factor": 2.0})


def test_fields_of_every_hugging_face_config_have_their_defaults() -> None:
    config = LlamaConfig()
    assert (config.num_labels, config.problem_type, config.return_dict) == (2, None, True)
    assert "num_labels" not in config.to_dict()


def test_labels_are_as_many_as_the_number_says() -> None:
    config = LlamaConfig(num_labels=3)
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    named = LlamaConfig(id2label={"0": "sad", "1": "merry", "2": "neither", "3": "both"}, num_labels=9)
    assert (named.num_labels, named.id2label[2]) == (4, "neither")  # the names are right, and JSON's keys numbers again
    assert LlamaConfig.from_dict(json.loads(named.to_json_string())) == named
    assert LlamaConfig.from_dict(named.to_dict(), num_labels=1).id2label == {0: "LABEL_0"}
    named.num_labels = 2
    assert named.label2id == {"LABEL_0": 0, "LABEL_1": 1}
    with pytest.raises(ValueError, match="num_labels must be a whole number of at least 1, not 0"):
        LlamaConfig(num_labels=0)


def test_new_weights_may_all_be_zero() -> None:
    assert (LlamaForCausalLM(tiny_config(initializer_range=0)).get_input_embeddings().weight == 0).all()


def test_overrides_of_a_saved_config(tmp_path: Path) -> None:
    LlamaConfig(hidden_size=64, theme="forest").save_pretrained(tmp_path)
    config = LlamaConfig.from_pretrained(tmp_path, rms_norm_eps=1e-3, num_labels=5)
    assert (config.hidden_size, config.theme, config.rms_norm_eps, config.num_labels) == (64, "forest", 1e-3, 5)
    with pytest.raises(ValueError, match=r"config\.json: rms_norm_eps must be a number above 0"):
        LlamaConfig.from_pretrained(tmp_path, rms_norm_eps=0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden_size", "x", "hidden_size must be a whole number"),
        ("num_key_value_heads", 3, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ("pretraining_tp", 0, "pretraining_tp must be at least 1"),
        ("rope_scaling", {"rope_type": "linear"}, "rope_scaling of type linear needs 'factor'"),
        ("rope_scaling", {"type": "lineer", "factor": 4.0}, "rope_scaling has the unknown type 'lineer'"),
        ("num_hidden_layers", "x", "num_hidden_layers must be a whole number"),
    ],
)
def test_what_is_set_later_is_checked_when_a_model_is_made(
    name: str, value: object, message: str, tmp_path: Path
) -> None:
    LlamaForCausalLM(tiny_config()).save_pretrained(tmp_path)
    config = tiny_config()
    setattr(config, name, value)
    for wrong in (
        lambda: LlamaModel(config),
        lambda: LlamaForCausalLM(config, {}),
        lambda: LlamaForSequenceClassification.from_pretrained(tmp_path, config=config),
        lambda: config.context_length,
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_labels_that_are_emptied_are_no_labels() -> None:
    config = tiny_config()
    config.id2label.clear()
    with pytest.raises(ValueError, match="id2label must name at least one label"):
        LlamaForSequenceClassification(config)


def test_slices_must_divide_what_they_slice() -> None:
    assert LlamaConfig(pretraining_tp=2).pretraining_tp == 2
    with pytest.raises(ValueError, match="pretraining_tp 3 does not divide both"):
        LlamaConfig(pretraining_tp=3)


# What may be set on a config after it is made: known fields, a field from a file, a key that means nothing here
CHANGES: dict[str, object] = {
    "hidden_act": "gelu", "problem_type": "regression", "id2label": {0: "sad", 1: "merry"}, "torch_dtype": "float16",
    "output_attentions": True, "return_dict": False, "num_labels": 5, "theme": "sea", "rms_norm_eps": 0.5,
    "label2id": {"sad": 0, "merry": 1}, "rope_scaling": {"rope_type": "linear", "factor": 2.0},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("stated", [False, True])
def test_what_is_set_later_is_read_written_and_compared(name: str, stated: bool, tmp_path: Path) -> None:
    values = {"theme": "forest"} | (
        {"problem_type": None, "id2label": {"0": "a"}, "return_dict": True} if stated else {}
    )
    config, before = LlamaConfig(**values), LlamaConfig(**values)
    setattr(config, name, CHANGES[name])
    assert getattr(config, name) == CHANGES[name]
    assert config != before
    config.save_pretrained(tmp_path)
    again = LlamaConfig.from_pretrained(tmp_path)
    assert again == config
    assert getattr(again, name) == CHANGES[name]
    assert again.num_labels == len(again.id2label)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_copies_are_equal_and_share_nothing(how: Callable[[LlamaConfig], LlamaConfig]) -> None:
    config = LlamaConfig(theme="forest", eos_token_id=[1, 2])
    twin = how(config)
    assert twin == config
    twin.theme, twin.hidden_act, twin.id2label[0] = "sea", "gelu", "changed"
    twin.eos_token_id.append(3)
    assert config == LlamaConfig(theme="forest", eos_token_id=[1, 2])


def test_what_a_config_is_made_of_stays_the_callers() -> None:
    values = {"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "dtype": "float16", "of": {"a": [{"b": [1]}]}}
    before = copy.deepcopy(values)
    for config in (LlamaConfig(**values), LlamaConfig.from_dict(values)):
        config.of["a"][0]["b"].append(2)
        config.of["c"] = config.rope_scaling["factor"] = 3
        config.rope_parameters["factor"] = 4.0  # a copy
        assert config.rope_scaling["factor"] == 3
        assert values == before


def test_no_two_configs_share_what_can_be_changed() -> None:
    LlamaConfig().id2label[0] = "changed"
    assert LlamaConfig().id2label == {0: "LABEL_0", 1: "LABEL_1"}
    scaling = {"rope_type": "linear", "factor": 2.0}
    config = LlamaConfig(rope_scaling=scaling, theme={"of": ["a"]})
    twin = LlamaConfig.from_dict(config.to_dict())
    scaling["factor"] = 3.0
    config.to_dict()["theme"]["of"].append("b")
    twin.rope_scaling["factor"] = 4.0
    twin.theme["of"].append("c")
    assert (config.rope_scaling["factor"], config.theme) == (2.0, {"of": ["a"]})


def test_saying_the_default_changes_nothing() -> None:
    defaults = {
        "num_labels": 2,
        "return_dict": True,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "problem_type": None,
    }
    assert LlamaConfig(**defaults) == LlamaConfig(id2label=None, output_attentions=None) == LlamaConfig()


def test_overrides_come_before_either_spelling() -> None:
    newer = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}, "dtype": "float16"}
    config = LlamaConfig.from_dict(newer, rope_theta=7.0, torch_dtype="bfloat16")
    assert (config.rope_theta, config.rope_type, config.torch_dtype) == (7.0, "linear", "bfloat16")
    assert LlamaConfig.from_dict(newer, rope_scaling=None).rope_type == "default"
    assert LlamaConfig.from_dict({"torch_dtype": "float16"}, dtype="bfloat16").torch_dtype == "bfloat16"
    assert LlamaConfig.from_dict({"rope_theta": 9.0}, rope_parameters={"rope_theta": 8.0}).rope_theta == 8.0


def test_names_of_labels_that_are_given_are_kept() -> None:
    stored = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    given = LlamaConfig.from_dict(stored, num_labels=2, label2id={"x": 0, "y": 1})
    assert (given.id2label, given.label2id) == ({0: "LABEL_0", 1: "LABEL_1"}, {"x": 0, "y": 1})
    renamed = LlamaConfig.from_dict(stored, id2label={0: "p", 1: "q"})
    assert (renamed.num_labels, renamed.label2id) == (2, {"p": 0, "q": 1})
    assert LlamaConfig.from_dict(stored, num_labels=2).label2id == {"LABEL_0": 0, "LABEL_1": 1}


def test_labels_are_changed_only_by_another_number(tmp_path: Path) -> None:
    names = {0: "a", 1: "b", 2: "c"}
    config = LlamaConfig(id2label=names)
    config.num_labels = 3
    assert config.id2label == names
    config.save_pretrained(tmp_path)
    for same in ({"num_labels": 3}, {"num_labels": None}, {"id2label": None}, {"label2id": None}):
        again = LlamaConfig.from_pretrained(tmp_path, **same)
        assert (again.id2label, again.label2id) == (names, {"a": 0, "b": 1, "c": 2})
    with pytest.raises(ValueError, match=r"config\.json: label2id must map names to numbers"):
        LlamaConfig.from_pretrained(tmp_path, label2id="ab")
    config.id2label = {"0": "x", "1": "y"}  # numbers as in JSON
    assert (config.num_labels, config.id2label, config.label2id) == (2, {0: "x", 1: "y"}, {"x": 0, "y": 1})
    with pytest.raises(ValueError, match="id2label must map numbers to names, not be None"):
        config.id2label = None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"id2label": {}}, "id2label must name at least one label"),
        ({"id2label": {"one": "a"}}, "id2label must map numbers to names"),
        ({"id2label": {None: "a"}}, "id2label must map numbers to names"),
        ({"id2label": {float("inf"): "a"}}, "id2label must map numbers to names"),
        ({"id2label": {0: ["a"]}}, "id2label must map numbers to names"),
        ({"id2label": {0: None}}, "id2label must map numbers to names"),
        ({"label2id": {None: 0}}, "label2id must map names to numbers"),
        ({"torch_dtype": 16}, "torch_dtype must be the name of a number format, such as 'float16', not 16"),
        ({"id2label": "ab"}, "id2label must map numbers to names"),
        ({"label2id": "ab"}, "label2id must map names to numbers"),
        ({"initializer_range": None}, "initializer_range must be a number of 0 or above"),
        ({"initializer_range": -1.0}, "initializer_range must be a number of 0 or above"),
        ({"pretraining_tp": 4, "intermediate_size": 11010}, "pretraining_tp 4 does not divide both"),
    ],
)
def test_more_that_makes_no_model(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LlamaConfig(**wrong)


def test_a_value_that_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="the config has a value that JSON cannot hold"):
        LlamaConfig(theme={1, 2}).to_json_string()


def test_numbers_of_numpy_are_numbers() -> None:
    sizes = {"vocab_size": np.int64(40), "hidden_size": np.array(16), "intermediate_size": np.uint16(20)}
    heads = {"num_attention_heads": np.int32(4), "num_key_value_heads": np.int8(2), "num_hidden_layers": np.array(3)}
    others = {
        "rms_norm_eps": np.float64(1e-5), "rope_theta": np.array(5e5), "use_cache": np.bool_(False),
        "eos_token_id": np.array([2, 5]), "pad_token_id": np.array(0), "num_labels": np.int64(3),
        "attention_dropout": np.float16(0.5), "other": {"of": [np.int64(1)]},
        "rope_scaling": {"rope_type": "linear", "factor": np.float32(2.5)},
    }  # fmt: skip
    config = LlamaConfig(**sizes, **heads, **others)
    assert config.head_dim == 4
    written = json.loads(config.to_json_string())
    for name, value in {
        "vocab_size": 40, "hidden_size": 16, "num_key_value_heads": 2, "num_hidden_layers": 3, "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "use_cache": False, "eos_token_id": [2, 5], "pad_token_id": 0, "attention_dropout": 0.5,
        "other": {"of": [1]}, "rope_scaling": {"rope_type": "linear", "factor": 2.5},
    }.items():  # fmt: skip
        assert (written[name], type(getattr(config, name))) == (value, type(value))
    assert config.num_labels == 3
    config.max_position_embeddings = np.array(64)
    config.rope_parameters = {"rope_type": "dynamic", "factor": np.array(2.0), "rope_theta": np.int64(10)}
    assert (config.max_position_embeddings, config.rope_theta) == (64, 10)
    assert LlamaConfig.from_dict({**config.to_dict(), "vocab_size": np.int64(41)}).vocab_size == 41


@pytest.mark.parametrize(
    ("name", "value"),
    [("vocab_size", np.float64(3.0)), ("hidden_size", np.array([16])), ("rms_norm_eps", np.array(True)),
     ("num_hidden_layers", np.bool_(True)), ("eos_token_id", np.array([1.5])), ("rope_theta", np.array("x"))],
)  # fmt: skip
def test_other_values_of_numpy_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be "):
        LlamaConfig(**{name: value})
