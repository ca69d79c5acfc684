"""LoRA adapters: merged weights beside the formula, and adapters that do not fit."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minillama.arrays import Array
from minillama.convert import main as convert
from minillama.llama import LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
from minillama.weights import open_checkpoint
from minillama.weights.formats import narrow_bfloat16
from minillama.weights.lora import MergedTensor
from minillama.weights.names import EMBED_TOKENS, LM_HEAD, SCORE, layer_name
from tests.bad import Capture, assert_refused, assert_runs, checkpoint
from tests.tiny import random_weights, spiky, tiny_config, write_safetensors
from tests.weights.torch_files import torch_save

CONFIG = tiny_config(vocab_size=70, attention_bias=True)  # 70 rows: more than one block of 64, and no multiple
WEIGHTS = random_weights(CONFIG, 80)
Q, DOWN = layer_name(1, "q_proj"), layer_name(0, "down_proj")
RANK, ALPHA = 3, 5
# float32 rounds at 6e-8, and so do the product of rank 3 and the sum; both here and in the formula
FLOAT32 = 5e-7

Tensors = dict[str, Array]


def module(name: str) -> str:
    return f"base_model.model.{name.removesuffix('.weight')}"


def pair(name: str, rank: int = RANK, weights: Tensors = WEIGHTS) -> Tensors:
    """An adapter of one matrix."""
    rng = np.random.default_rng(len(name) + rank)
    rows, columns = weights[name].shape
    a, b = (spiky(rng, *shape).astype(np.float32) for shape in ((rank, columns), (rows, rank)))
    if name == EMBED_TOKENS:
        return {f"{module(name)}.lora_embedding_A": b.T.copy(), f"{module(name)}.lora_embedding_B": a.T.copy()}
    return {f"{module(name)}.lora_A.weight": a, f"{module(name)}.lora_B.weight": b}


def product(name: str, adapter: Tensors) -> Array:
    a, b = (adapter[key].astype(np.float64) for key in sorted(key for key in adapter if key.startswith(module(name))))
    return (b @ a).T if name == EMBED_TOKENS else b @ a


def write_adapter(folder: Path, tensors: Tensors, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    usual = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(usual | settings))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def base(folder: Path, weights: Tensors = WEIGHTS, **overrides: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "model.safetensors", weights)
    tiny_config(**{"vocab_size": 70, "attention_bias": True} | overrides).save_pretrained(folder)
    return folder


def assert_near(ours: Array, theirs: Array) -> None:
    assert np.abs(ours - theirs).max() <= FLOAT32 * np.abs(theirs).max()


@pytest.mark.parametrize("name", [Q, DOWN, EMBED_TOKENS, LM_HEAD])
@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, ALPHA / RANK),
        ({"use_rslora": True}, ALPHA / math.sqrt(RANK)),
        ({"alpha_pattern": {"proj": 1.0, "q_proj": 2.5, "mlp.down_proj": -4, "embed_tokens": 9, "^lm_head": 2}},
         {Q: 2.5, DOWN: -4, EMBED_TOKENS: 9, LM_HEAD: 2}),
        ({"r": 7, "rank_pattern": {"self_attn": 1, "q_proj": 3, "down_proj": 3, "embed_tokens": 3, "lm_head": 3}},
         ALPHA / RANK),
        ({"lora_alpha": 0}, 0),
        ({"lora_alpha": 7.5, "fan_in_fan_out": True, "lora_dropout": 0.1}, 7.5 / RANK),
    ],
    ids=["plain", "rslora", "alpha_pattern", "rank_pattern", "alpha 0", "idle fields"],
)  # fmt: skip
def test_a_merged_matrix_is_what_the_formula_says(name: str, settings: Any, scale: Any, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", pair(name), **settings)
    tensors = open_checkpoint(base(tmp_path / "base"), lora=[adapter]).tensors
    factor = scale[name] / RANK if isinstance(scale, dict) else scale
    merged = tensors[name].stored()
    assert_near(merged, WEIGHTS[name] + factor * product(name, pair(name)))
    assert [other for other, tensor in tensors.items() if isinstance(tensor, MergedTensor)] == [name]
    rows = np.array([[WEIGHTS[name].shape[0] - 1, 0, 3], [2, 2, 7]])
    # However it is read, the bits are the same
    np.testing.assert_array_equal(tensors[name].read(np.float32), merged)
    np.testing.assert_array_equal(tensors[name].read(np.float64, rows), merged[rows])
    np.testing.assert_array_equal(tensors[name].read(np.float32, rows[0, :1]), merged[rows[0, :1]])


@pytest.mark.parametrize(("dtype", "eps"), [("BF16", 2**-8), ("F16", 2**-11), ("F64", 1e-15)])
def test_the_numbers_are_rounded_once_to_the_bases_format(dtype: str, eps: float, tmp_path: Path) -> None:
    stored = {"BF16": narrow_bfloat16, "F16": lambda w: w.astype(np.float16), "F64": lambda w: w.astype(np.float64)}
    weights = {name: stored[dtype](w) for name, w in WEIGHTS.items()}
    adapter = write_adapter(tmp_path / "adapter", pair(Q))
    tensor = open_checkpoint(base(tmp_path / "base", weights), lora=[adapter]).tensors[Q]
    assert tensor.dtype == dtype
    plain = open_checkpoint(tmp_path / "base").tensors[Q].read(np.float64)
    exact = plain + ALPHA / RANK * product(Q, pair(Q))
    # Half a unit in the last place of each number, and as much as float32 may be off in large terms that cancel
    assert (
        np.abs(tensor.read(np.float64) - exact) <= eps * np.abs(exact) + min(eps, FLOAT32) * np.abs(exact).max()
    ).all()
    assert tensor.stored().dtype == weights[Q].dtype


@pytest.mark.parametrize("name", [EMBED_TOKENS, LM_HEAD])
def test_a_tied_matrix_stays_tied(name: str, tmp_path: Path) -> None:
    weights = {other: w for other, w in WEIGHTS.items() if other != LM_HEAD}
    both = weights | {LM_HEAD: weights[EMBED_TOKENS]}
    adapter = write_adapter(
        tmp_path / "adapter", pair(name, weights=both) | {f"{module(name)}.base_layer.weight": both[name]}
    )
    model = LlamaForCausalLM.from_pretrained(base(tmp_path / "base", weights, tie_word_embeddings=True), lora=adapter)
    tensors = model.weights.tensors
    assert tensors[EMBED_TOKENS] is tensors[LM_HEAD]
    assert_near(tensors[LM_HEAD].stored(), both[name] + ALPHA / RANK * product(name, pair(name, weights=both)))


def test_what_was_trained_whole_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    bias = layer_name(1, "q_bias")
    new = {f"{module(LM_HEAD)}.weight": WEIGHTS[LM_HEAD] * 2, f"base_model.model.{bias}": WEIGHTS[bias] - 1}
    adapter = write_adapter(tmp_path / "adapter", pair(Q) | new, modules_to_save=["lm_head"], bias="lora_only")
    tensors = open_checkpoint(base(tmp_path / "base"), lora=[adapter]).tensors
    np.testing.assert_array_equal(tensors[LM_HEAD].stored(), WEIGHTS[LM_HEAD] * 2)
    np.testing.assert_array_equal(tensors[bias].stored(), WEIGHTS[bias] - 1)


def test_every_class_takes_an_adapter(tmp_path: Path) -> None:
    bare = {name.replace("base_model.model.model.", "base_model.model."): w for name, w in pair(Q).items()}
    score = np.full((2, 16), 0.25, np.float32)
    adapter = write_adapter(tmp_path / "adapter", bare | pair(LM_HEAD) | {"base_model.model.score.weight": score})
    folder = base(tmp_path / "base")
    expected = WEIGHTS[Q] + ALPHA / RANK * product(Q, pair(Q))
    for kind in (LlamaModel, LlamaForCausalLM, LlamaForSequenceClassification):
        tensors = kind.from_pretrained(folder, lora=str(adapter)).weights.tensors
        assert_near(tensors[Q].stored(), expected)
        assert (LM_HEAD in tensors, SCORE in tensors) == (kind.head == LM_HEAD, kind.head == SCORE)
    np.testing.assert_array_equal(tensors[SCORE].stored(), score)


def test_a_merged_model_is_saved_as_any_other(tmp_path: Path) -> None:
    adapters = [write_adapter(tmp_path / "a", pair(Q)), write_adapter(tmp_path / "b", pair(Q, 2) | pair(DOWN, 2), r=2)]
    model = LlamaForCausalLM.from_pretrained(base(tmp_path / "base"), lora=adapters)
    merged = WEIGHTS[Q] + ALPHA / RANK * product(Q, pair(Q)) + ALPHA / 2 * product(Q, pair(Q, 2))
    assert_near(model.weights.tensors[Q].stored(), merged)
    model.save_pretrained(tmp_path / "saved")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "saved")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)


def test_the_command_merges(tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "base")
    weights = dict(LlamaForCausalLM.from_pretrained(folder).state_dict())
    name = layer_name(1, "o_proj")
    adapter = write_adapter(tmp_path / "adapter", pair(name, weights=weights))
    LlamaForCausalLM.from_pretrained(folder, lora=adapter).save_pretrained(tmp_path / "merged")
    how = ["--tokenizer", folder, "--max-new-tokens", 20, "--weights"]
    plain, merged = assert_runs(capfd, [*how, folder]), assert_runs(capfd, [*how, tmp_path / "merged"])
    assert assert_runs(capfd, [*how, folder, "--lora", adapter]) == merged != plain


def changed(**tensors: Array | None) -> Tensors:
    adapter: dict[str, Any] = pair(Q) | {module(Q) + key.replace("__", "."): array for key, array in tensors.items()}
    return {name: array for name, array in adapter.items() if array is not None}


F = np.float32
CONFIG_SAYS: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"peft_type": "IA3"}, "peft_type is 'IA3', and only LORA is read"),
    "no kind": ({"peft_type": None}, "peft_type is None"),
    "dora": ({"use_dora": True}, "'use_dora' is True, which cannot be merged"),
    "a bias in B": ({"lora_bias": True}, "'lora_bias' is True"),
    "replicated layers": ({"layer_replication": [[0, 1]]}, "'layer_replication' is [[0, 1]]"),
    "activated": ({"alora_invocation_tokens": [1]}, "'alora_invocation_tokens' is [1]"),
    "trained tokens": ({"trainable_token_indices": [1]}, "'trainable_token_indices' is [1]"),
    "of tomorrow": ({"use_moon_phase": "full"}, "'use_moon_phase' is 'full', which cannot be merged"),
    "another base": ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which trains another base"),
    "bias some": ({"bias": "some"}, "bias must be none, all or lora_only, not 'some'"),
    "r -1": ({"r": -1}, "r must be a whole number above 0, not -1"),
    "r 1.5": ({"r": 1.5}, "r must be a whole number above 0, not 1.5"),
    "r text": ({"r": "3"}, "r must be a whole number above 0, not '3'"),
    "r true": ({"r": True}, "r must be a whole number above 0, not True"),
    "r 2^31": ({"r": 2**31}, "r must be a whole number above 0"),
    "alpha NaN": ({"lora_alpha": math.nan}, "lora_alpha must be a number"),
    "alpha of 400 digits": ({"lora_alpha": 10**400}, "lora_alpha must be a number"),
    "alpha a list": ({"lora_alpha": [1]}, "lora_alpha must be a number"),
    "patterns a list": ({"rank_pattern": [1]}, "rank_pattern must be names, each with a whole"),
    "rank 0 in a pattern": ({"rank_pattern": {"q_proj": 0}}, "rank_pattern must be names, each with a whole"),
    "a slow pattern": ({"alpha_pattern": {"(a+)+b": 1}}, "alpha_pattern must be names"),
}  # fmt: skip
FILE_HAS: dict[str, tuple[Callable[[], Tensors], str]] = {
    "nothing": (lambda: {}, "it adapts nothing"),
    "no B": (lambda: changed(__lora_B__weight=None), "has lora_A and not one A and one B"),
    "two kinds": (lambda: changed(__lora_B__weight=None, __lora_embedding_B=np.ones((16, 3), F)), "not one A and"),
    "another rank": (lambda: pair(Q, 4), "of rank 3 do not make model.layers.1.self_attn.q_proj.weight"),
    "A too narrow": (lambda: changed(__lora_A__weight=np.ones((3, 15), F)), "A (3, 15) and B (24, 3) of rank 3"),
    "a vector": (lambda: changed(__lora_A__weight=np.ones(3, F)), "A (3,) and B"),
    "a layer too many": (lambda: {name.replace(".1.", ".2."): w for name, w in pair(Q).items()},
                         "it adapts model.layers.2.self_attn.q_proj.weight, which the model has not"),
    "another model's layer": (lambda: {name.replace("q_proj", "c_attn"): w for name, w in pair(Q).items()},
                              "c_attn.weight, which the model has not"),
    "a magnitude": (lambda: changed(__lora_magnitude_vector__weight=np.ones(24, F)), "absent in the model"),
    "no prefix": (lambda: {name[len("base_model."):]: w for name, w in pair(Q).items()}, "which is of no LoRA adapter"),
    "whole numbers": (lambda: changed(__lora_A__weight=np.ones((3, 16), np.int8)), "is stored as I8"),
    "a bias of none": (lambda: pair(Q) | {"base_model.model.model.layers.0.mlp.up_proj.bias": np.ones(20, F)},
                       "up_proj.bias is (20,) there and absent in the model"),
    "another width": (lambda: pair(Q) | {f"{module(LM_HEAD)}.weight": np.ones((70, 15), F)},
                      "lm_head.weight is (70, 15) there and (70, 16) in the model"),
    "a norm": (lambda: {name.replace("self_attn.q_proj", "input_layernorm"): w for name, w in pair(Q).items()},
               "do not make model.layers.1.input_layernorm.weight (16,)"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIG_SAYS)
def test_what_the_settings_ask_for_and_is_not_done_is_refused(name: str, tmp_path: Path, capfd: Capture) -> None:
    settings, message = CONFIG_SAYS[name]
    adapter = write_adapter(tmp_path / "adapter", pair(Q), **settings)
    assert_refused(
        capfd, ["--weights", base(tmp_path / "base"), "--lora", adapter], adapter / "adapter_config.json", message
    )


@pytest.mark.parametrize("name", FILE_HAS)
def test_a_file_that_does_not_fit_is_refused(name: str, tmp_path: Path, capfd: Capture) -> None:
    tensors, message = FILE_HAS[name]
    adapter = write_adapter(tmp_path / "adapter", tensors())
    assert_refused(
        capfd, ["--weights", base(tmp_path / "base"), "--lora", adapter], adapter / "adapter_model.safetensors",
        "does not fit", message, "name the adapter of this model",
    )  # fmt: skip


LARGER = {name: np.concatenate((WEIGHTS[name], WEIGHTS[name][:3] * k)) for name, k in ((EMBED_TOKENS, 2), (LM_HEAD, 3))}
TIED = {name: w for name, w in WEIGHTS.items() if name != LM_HEAD}


def as_peft_saves(*names: str) -> Tensors:
    """Tables that were trained whole, with the two copies that peft 0.21 saves of each beside it."""
    return {
        f"{module(name)}.{copy}weight": LARGER[name] * factor
        for name in names
        for copy, factor in (("", 1), ("modules_to_save.", 1), ("original_module.", 9))
    }


@pytest.mark.parametrize("save", [lambda *names: {f"{module(n)}.weight": LARGER[n] for n in names}, as_peft_saves])
def test_an_adapter_of_a_larger_vocabulary_brings_it(save: Any, tmp_path: Path, capfd: Capture) -> None:
    adapter = write_adapter(tmp_path / "adapter", pair(Q) | save(EMBED_TOKENS, LM_HEAD))
    model = LlamaForCausalLM.from_pretrained(base(tmp_path / "base"), lora=adapter)
    assert model.config.vocab_size == 73
    for name, array in LARGER.items():
        np.testing.assert_array_equal(model.state_dict()[name], array)
    assert model(np.array([[72, 1]])).logits.shape == (1, 2, 73)
    model.save_pretrained(tmp_path / "merged")
    assert open_checkpoint(tmp_path / "merged").config.vocab_size == 73


def test_an_adapter_of_a_larger_tied_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An embedding that is adapted itself, beside a copy of its base; the head is the same."""
    larger = pair(EMBED_TOKENS, weights={EMBED_TOKENS: LARGER[EMBED_TOKENS]})
    copy = {f"{module(EMBED_TOKENS)}.base_layer.weight": LARGER[EMBED_TOKENS]}
    opened = open_checkpoint(
        base(tmp_path / "base", TIED, tie_word_embeddings=True),
        lora=[write_adapter(tmp_path / "adapter", larger | copy)],
    )
    assert (opened.config.vocab_size, opened.config.tie_word_embeddings) == (73, True)
    assert opened.tensors[EMBED_TOKENS] is opened.tensors[LM_HEAD]
    assert_near(opened.tensors[LM_HEAD].stored(), LARGER[EMBED_TOKENS] + ALPHA / RANK * product(EMBED_TOKENS, larger))
    assert caplog.messages == [
        "the adapter makes the vocabulary 73 tokens instead of 70: its tokenizer is the one to name (--tokenizer)"
    ]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", [EMBED_TOKENS, LM_HEAD])
@pytest.mark.parametrize("how", ["whole", "adapted"])
def test_a_larger_vocabulary_that_lacks_a_table(
    how: str, name: str, tied: bool, tmp_path: Path, capfd: Capture
) -> None:
    """A tied table that was trained whole does not bring the head, which kept its own numbers."""
    tables = {f"{module(name)}.weight": LARGER[name]} if how == "whole" else pair(name, weights=LARGER)
    adapter = write_adapter(tmp_path / "adapter", pair(Q) | tables)
    folder = base(tmp_path / "base", TIED if tied else WEIGHTS, tie_word_embeddings=tied)
    assert_refused(
        capfd, ["--weights", folder, "--lora", adapter], adapter / "adapter_model.safetensors",
        "trained with a vocabulary of 73 tokens, and the model has 70", "resize the model (resize_token_embeddings",
    )  # fmt: skip


@pytest.mark.parametrize("differ", [True, False])
def test_whole_tables_of_a_tied_model(differ: bool, tmp_path: Path) -> None:
    """Two that differ are not tied any more, and what is written says so; two that are equal still are."""
    head = WEIGHTS[LM_HEAD] if differ else WEIGHTS[EMBED_TOKENS]
    tables = {f"{module(EMBED_TOKENS)}.weight": WEIGHTS[EMBED_TOKENS], f"{module(LM_HEAD)}.weight": head}
    adapter = write_adapter(tmp_path / "adapter", pair(Q) | tables, modules_to_save=["embed_tokens", "lm_head"])
    folder = base(tmp_path / "base", TIED, tie_word_embeddings=True)
    assert convert([str(folder), str(tmp_path / "converted"), "--lora", str(adapter)]) == 0
    LlamaForCausalLM.from_pretrained(folder, lora=adapter).save_pretrained(tmp_path / "saved")
    for written in ("converted", "saved"):
        config = json.loads((tmp_path / written / "config.json").read_text())
        stored = load_file(tmp_path / written / "model.safetensors")
        assert (config["tie_word_embeddings"], LM_HEAD in stored) == (not differ, differ)
        np.testing.assert_array_equal(open_checkpoint(tmp_path / written).tensors[LM_HEAD].stored(), head)
    assert convert(["--check", str(tmp_path / "converted")]) == 0


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_may_be_named_by_its_files(file: str, tmp_path: Path) -> None:
    folder, adapter = base(tmp_path / "base"), write_adapter(tmp_path / "adapter", pair(Q))
    expected = open_checkpoint(folder, lora=[adapter]).tensors[Q].stored()
    np.testing.assert_array_equal(open_checkpoint(folder, lora=[adapter / file]).tensors[Q].stored(), expected)


def test_an_adapter_beside_the_weights_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Transformers, with peft installed, merges one that lies there without being asked."""
    folder = write_adapter(base(tmp_path / "base"), pair(Q))
    np.testing.assert_array_equal(open_checkpoint(folder).tensors[Q].stored(), WEIGHTS[Q])
    assert f"{folder / 'adapter_config.json'} lies beside the weights and is not merged" in caplog.text
    caplog.clear()
    open_checkpoint(folder, lora=[folder])
    assert not caplog.text


def test_an_adapter_of_older_versions_of_peft(tmp_path: Path) -> None:
    """They write a pickle of torch."""
    adapter = write_adapter(tmp_path / "adapter", pair(Q))
    merged = open_checkpoint(base(tmp_path / "base"), lora=[adapter]).tensors[Q].read(np.float64)
    (adapter / "adapter_model.safetensors").unlink()
    torch_save(pair(Q), adapter / "adapter_model.bin")
    np.testing.assert_array_equal(
        open_checkpoint(tmp_path / "base", lora=[adapter]).tensors[Q].read(np.float64), merged
    )
    assert (merged != WEIGHTS[Q]).any()


def test_what_is_no_adapter_is_refused(tmp_path: Path, capfd: Capture) -> None:
    folder = base(tmp_path / "base")
    start = ["--weights", folder, "--lora"]
    assert_refused(capfd, [*start, tmp_path / "absent"], tmp_path / "absent", "does not exist")
    assert_refused(capfd, [*start, folder], "adapter_config.json does not exist: name the folder of a LoRA adapter")
    file = folder / "config.json"
    assert_refused(capfd, [*start, file], f"{file} is not a LoRA adapter: name the folder")
    adapter = write_adapter(tmp_path / "adapter", pair(Q))
    assert_refused(capfd, [*start, tmp_path], f"name one of the adapters in it, such as {adapter}")
    (adapter / "adapter_model.safetensors").unlink()
    assert_refused(capfd, [*start, adapter], "has no adapter_model.safetensors: name the folder that the adapter was")
    (adapter / "adapter_config.json").write_text("[1]")
    assert_refused(capfd, [*start, adapter], "adapter_config.json")


@pytest.mark.parametrize("form", ["q8_0", "bf16z"])
def test_a_packed_base_is_refused_by_its_format(form: str, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "base")
    LlamaForCausalLM.from_pretrained(folder, engine="numba", dtype=form).save_pretrained(tmp_path / "packed")
    weights = dict(LlamaForCausalLM.from_pretrained(folder).state_dict())
    adapter = write_adapter(tmp_path / "adapter", pair(Q, weights=weights))
    start = ["--weights", tmp_path / "packed", "--lora"]
    assert_refused(capfd, [*start, adapter], f"{Q} is in {form}, and an adapter is added to floats", "it was made of")
