"""Whole checkpoints that are sound, in every form they come in."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from minillama.weights import open_checkpoint
from minillama.weights.formats import narrow_bfloat16, widen
from minillama.weights.names import EMBED_TOKENS, LM_HEAD
from tests.tiny import assert_close, random_ids, random_weights, tiny_config, write_safetensors

CONFIG = tiny_config()
WEIGHTS = random_weights(CONFIG, 60)


def logits_of(path: Path, **how: object) -> Array:
    return LlamaForCausalLM.from_pretrained(path, dtype="float64", **how)(random_ids(61, 1, 5)).logits


def expected_logits(weights: dict[str, Array] = WEIGHTS, **overrides: object) -> Array:
    return LlamaForCausalLM(tiny_config(**overrides), weights, dtype="float64")(random_ids(61, 1, 5)).logits


def write_sharded(folder: Path, shards: int = 3) -> Path:
    """Tensors dealt out like cards, so that no shard has a whole layer."""
    weight_map = {}
    for n in range(shards):
        file = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(WEIGHTS.items())[n::shards])
        write_safetensors(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    total = sum(array.nbytes for array in WEIGHTS.values())
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    return index


def test_a_folder_with_one_file(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors", {"format": "pt"})  # as the format's own package writes it
    CONFIG.save_pretrained(tmp_path)
    assert_close(logits_of(tmp_path), expected_logits())
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config == CONFIG


def test_a_folder_with_one_file_of_another_name(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "7B.safetensors", WEIGHTS)
    CONFIG.save_pretrained(tmp_path)
    assert_close(logits_of(tmp_path), expected_logits())


@pytest.mark.parametrize("by", ["folder", "index"])
def test_several_files_with_an_index(tmp_path: Path, by: str, caplog: pytest.LogCaptureFixture) -> None:
    index = write_sharded(tmp_path)
    CONFIG.save_pretrained(tmp_path)
    assert_close(logits_of(index if by == "index" else tmp_path), expected_logits())
    assert not caplog.records


def test_one_of_several_files_stands_for_all(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    CONFIG.save_pretrained(tmp_path)
    assert_close(logits_of(sorted(tmp_path.glob("model-*.safetensors"))[1]), expected_logits())


def test_a_bare_decoder_is_guessed_too(tmp_path: Path) -> None:
    config = tiny_config(head_dim=128, tie_word_embeddings=True)
    weights = random_weights(config, 64)
    bare = {name.removeprefix("model."): array for name, array in weights.items() if name != LM_HEAD}
    write_safetensors(tmp_path / "model.safetensors", bare)
    guessed = open_checkpoint(tmp_path / "model.safetensors").config
    assert (guessed.hidden_size, guessed.num_hidden_layers) == (config.hidden_size, config.num_hidden_layers)
    assert guessed.eos_token_ids == ()  # which tokens end a text, only a tokenizer can tell


def test_a_file_by_its_name_takes_the_config_beside_it(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", WEIGHTS)
    write_safetensors(tmp_path / "b.safetensors", random_weights(CONFIG, 62))
    CONFIG.save_pretrained(tmp_path)
    assert_close(logits_of(tmp_path / "a.safetensors"), expected_logits())


@pytest.mark.parametrize("beside", [True, False])
def test_another_config_may_be_given(tmp_path: Path, beside: bool) -> None:
    write_safetensors(tmp_path / "model.safetensors", WEIGHTS)
    if beside:
        CONFIG.save_pretrained(tmp_path)
    tiny_config(rope_theta=100.0).save_pretrained(tmp_path / "other")
    logits = logits_of(tmp_path, config=tmp_path / "other" / "config.json")
    assert_close(logits, expected_logits(rope_theta=100.0))
    assert np.abs(logits - expected_logits()).max() > 0.1  # logits reach a few units


def test_without_a_config_one_is_guessed_and_every_assumption_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = random_weights(tiny_config(head_dim=128), 63)
    file = tmp_path / "model.safetensors"
    write_safetensors(file, weights)
    with caplog.at_level(logging.WARNING, "minillama"):
        assert_close(logits_of(file), expected_logits(weights, head_dim=128))
    for assumed in ("head_dim", "rope_theta", "rms_norm_eps", "max_position_embeddings"):
        (line,) = [line for line in caplog.messages if f"{assumed} is taken as" in line]
        assert str(file) in line
        assert "--config" in line


def test_guessed_from_a_stored_inv_freq(tmp_path: Path) -> None:
    stored = 500.0 ** -(np.arange(0, 6, 2, dtype=np.float32) / 6)
    extra = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": stored for i in range(2)}
    write_safetensors(tmp_path / "model.safetensors", WEIGHTS | extra)
    assert_close(logits_of(tmp_path), expected_logits(rope_theta=500.0))


@pytest.mark.parametrize("stored", [EMBED_TOKENS, LM_HEAD])
def test_tied_weights_under_either_name(tmp_path: Path, stored: str) -> None:
    config = tiny_config(tie_word_embeddings=True)
    weights = random_weights(config, 64)
    expected = expected_logits(weights, tie_word_embeddings=True)
    write_safetensors(tmp_path / "model.safetensors", {stored: weights.pop(EMBED_TOKENS)} | weights)
    config.save_pretrained(tmp_path)
    assert_close(logits_of(tmp_path), expected)


def test_a_shared_tensor_that_only_metadata_names(tmp_path: Path) -> None:
    shared = {name: array for name, array in WEIGHTS.items() if name != LM_HEAD}
    write_safetensors(tmp_path / "model.safetensors", shared, {"format": "pt", LM_HEAD: EMBED_TOKENS})
    CONFIG.save_pretrained(tmp_path)
    assert_close(logits_of(tmp_path), expected_logits(shared | {LM_HEAD: WEIGHTS[EMBED_TOKENS]}))


def test_one_error_names_the_file_and_all_that_is_wrong(tmp_path: Path) -> None:
    weights = WEIGHTS | {"model.extra": WEIGHTS["model.norm.weight"], LM_HEAD: WEIGHTS[LM_HEAD][:30].copy()}
    del weights["model.norm.weight"]
    write_safetensors(tmp_path / "model.safetensors", weights)
    CONFIG.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model\.safetensors: ") as caught:
        open_checkpoint(tmp_path)
    for complaint in ("1 missing: model.norm.weight", "1 unexpected: model.extra", f"{LM_HEAD} (30, 16) instead of"):
        assert complaint in str(caught.value)


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "float64"])
def test_numbers_are_the_same_in_every_format(tmp_path: Path, stored: str) -> None:
    rounded = {name: widen(narrow_bfloat16(array), "BF16", np.float32) for name, array in WEIGHTS.items()}
    if stored == "float16":  # cannot hold all that bfloat16 can: its smallest steps are 2^-24
        rounded = {name: np.where(abs(array) < 2**-10, np.float32(0), array) for name, array in rounded.items()}
    written = {name: narrow_bfloat16(a) if stored == "bfloat16" else a.astype(stored) for name, a in rounded.items()}
    write_safetensors(tmp_path / "model.safetensors", written)
    CONFIG.save_pretrained(tmp_path)
    for name, tensor in open_checkpoint(tmp_path).tensors.items():
        for dtype in ("float32", "float64"):
            read = tensor.read(dtype)
            assert read.dtype == dtype
            assert read.flags.aligned  # though in the file it is not: BLAS wants it so
            np.testing.assert_array_equal(read, rounded[name])
    assert_close(logits_of(tmp_path), expected_logits(rounded))
