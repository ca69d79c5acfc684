"""minillama against transformers, live: directories that transformers saved, and forwards side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minillama
from minillama.generation import Continuation, Sampling, generate
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizerFast

torch = pytest.importorskip("torch", reason="needs the oracle extra")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra")
# The libraries' own deprecation notes are not ours to fail on
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

TOKENS = 200
# Of the logits' scale: float32 rounds at 6e-8, and sums of some hundred terms through a few layers add up to this
FLOAT32 = 1e-5

SMALL: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "8 heads over 4": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "head_dim 24": {"head_dim": 24},
    "llama3 rope": {"rope_parameters": LLAMA3},
    "yarn rope": {"rope_parameters": LLAMA3 | {"rope_type": "yarn"}},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
}


def save(folder: Path, settings: dict[str, Any], dtype: Any = None, **how: Any) -> None:
    """A random model as transformers saves it, weights spread enough that logits differ clearly."""
    torch.manual_seed(len(str(settings)))
    config = transformers.LlamaConfig(**SMALL | settings, initializer_range=0.15)
    model = transformers.LlamaForCausalLM(config).to(dtype or torch.float32)
    model.save_pretrained(folder, **how)


def theirs(folder: Path) -> Any:
    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def assert_same(folder: Path, judge: Any = None, compat: str | None = None) -> None:
    """The same logits for a prompt, and the same greedy continuation of 200 tokens."""
    judge = theirs(folder) if judge is None else judge
    ours = LlamaForCausalLM.from_pretrained(folder, compat=compat)
    prompt = [1, *range(7, 60, 5)]
    with torch.no_grad():
        expected = judge(torch.tensor([prompt])).logits.numpy()
        chosen = judge.generate(
            torch.tensor([prompt]),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            repetition_penalty=1.0,
        )[0, len(prompt) :].tolist()
    logits = ours([prompt]).logits
    assert np.abs(logits - expected).max() < FLOAT32 * np.abs(expected).max()
    results: list[Continuation] = []
    for _ in generate(ours.new_engine(), [prompt], Sampling(), max_new_tokens=TOKENS, results=results):
        pass
    assert results[0].ids == chosen


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_directory(variant: str, tmp_path: Path) -> None:
    save(tmp_path, VARIANTS[variant])
    assert_same(tmp_path)


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.1, 1.2, 1.5],
    "long_factor": [1.0, 2.0, 3.0, 5.0],
    "original_max_position_embeddings": 100,
}
PAST_THE_TRAINED_LENGTH = {
    "dynamic": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        "max_position_embeddings": 100,
    },
    "longrope": {"rope_parameters": LONGROPE},
}


@pytest.mark.parametrize("rope", PAST_THE_TRAINED_LENGTH)
def test_scalings_that_depend_on_the_length(rope: str, tmp_path: Path) -> None:
    save(tmp_path, PAST_THE_TRAINED_LENGTH[rope])
    assert_same(tmp_path, compat="hf5")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_number_formats(dtype: str, tmp_path: Path) -> None:
    save(tmp_path, {}, getattr(torch, dtype))
    assert_same(tmp_path)


def test_shards(tmp_path: Path) -> None:
    save(tmp_path, {}, max_shard_size="300KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same(tmp_path)


def test_only_the_head_of_a_tied_model_is_stored(tmp_path: Path) -> None:
    save(tmp_path, {"tie_word_embeddings": True})
    judge = theirs(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same(tmp_path, judge)


def test_a_tied_decoder_saved_without_its_head(tmp_path: Path) -> None:
    save(tmp_path, {"tie_word_embeddings": True})
    judge = theirs(tmp_path)
    judge.model.save_pretrained(tmp_path)
    assert "embed_tokens.weight" in load_file(tmp_path / "model.safetensors")
    assert_same(tmp_path, judge)


def test_the_spelling_of_older_configs(tmp_path: Path) -> None:
    save(tmp_path, {"rope_parameters": LLAMA3})
    judge = theirs(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["rope_scaling"] = settings.pop("rope_parameters")
    settings["rope_theta"] = settings["rope_scaling"].pop("rope_theta")
    settings["torch_dtype"] = settings.pop("dtype")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert_same(tmp_path, judge)


def test_the_tale_model() -> None:
    assert_same(tale_model())


def test_a_tokenizer_that_transformers_saved(tmp_path: Path) -> None:
    judge = transformers.AutoTokenizer.from_pretrained(tale_model())
    judge.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").unlink(missing_ok=True)
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, LlamaTokenizerFast)
    for text in ("Once upon a time", " two  spaces", "naïve 123\n\nnew\tline", "", "<s>x</s>", "日本 🦊"):
        assert ours.encode(text) == judge(text).input_ids
        assert ours.decode(ours.encode(text)) == judge.decode(judge(text).input_ids)


@pytest.mark.parametrize("size", ["5GB", "100KB"])
@pytest.mark.parametrize("name", ["LlamaModel", "LlamaForCausalLM", "LlamaForSequenceClassification"])
def test_transformers_reads_what_is_saved_here(name: str, size: str, tmp_path: Path) -> None:
    config = minillama.LlamaConfig(**SMALL | VARIANTS["llama3 rope"], initializer_range=0.15, num_labels=3)
    ours = getattr(minillama, name)(config)
    ours.save_pretrained(tmp_path, max_shard_size=size)
    judge, told = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), told  # nothing missing, nothing unexpected
    assert judge.config.num_labels == 3
    ids = np.random.default_rng(8).integers(0, SMALL["vocab_size"], (1, 15))
    with torch.no_grad():
        expected = judge.eval()(torch.from_numpy(ids))[0].numpy()
    assert np.abs(ours(ids)[0] - expected).max() < FLOAT32 * np.abs(expected).max()


def test_transformers_reads_bfloat16_and_a_tied_head_saved_here(tmp_path: Path) -> None:
    ours = LlamaForCausalLM.from_pretrained(tale_model())
    ours.save_pretrained(tmp_path, max_shard_size="4MB")
    judge, told = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), told
    assert judge.dtype == torch.bfloat16
    for tensor_name, tensor in judge.state_dict().items():
        np.testing.assert_array_equal(tensor.float().numpy(), ours.state_dict()[tensor_name])


def test_left_padded_batches_and_their_masks(tmp_path: Path) -> None:
    save(tmp_path, {})
    judge, ours = theirs(tmp_path), LlamaForCausalLM.from_pretrained(tmp_path)
    rng = np.random.default_rng(5)
    ids = rng.integers(3, 4096, size=(3, 17))
    mask = (np.arange(17) >= np.array([[0], [5], [11]])).astype(int)
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    labels = np.where(mask == 1, ids, -100)
    with torch.no_grad():
        expected = judge(*map(torch.from_numpy, (ids, mask, positions)), labels=torch.from_numpy(labels))
    got = ours(ids, mask, positions, labels=labels)
    seen = mask == 1  # a query that sees no key gives zeros here, an average over forbidden keys there
    scale = np.abs(expected.logits.numpy()).max()
    assert np.abs(got.logits - expected.logits.numpy())[seen].max() < FLOAT32 * scale
    # transformers counts targets that follow a padded position too: with left padding that is the first real token
    first = np.argmax(seen, axis=1)
    labels[np.arange(3), first] = -100
    with torch.no_grad():
        expected = judge(*map(torch.from_numpy, (ids, mask, positions)), labels=torch.from_numpy(labels))
    got = ours(ids, mask, positions, labels=labels)
    assert got.loss == pytest.approx(expected.loss.item(), rel=FLOAT32)


def test_the_goldens_can_be_made_again() -> None:
    script = Path(__file__).parents[1] / "golden" / "make.py"
    run = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
