"""What comes with minillama is there, and is what a LLaMA's folder is."""

import numpy as np

import minillama
from minillama import LlamaConfig, LlamaForCausalLM, load_tokenizer, tale_model
from minillama.model.heads import causal_lm_loss
from minillama.shipped import sample_text


def test_the_tale_model_is_a_whole_checkpoint() -> None:
    names = {file.name for file in tale_model().iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "tokenizer.model", "tokenizer.json",
        "tokenizer_config.json", "generation_config.json",
    }  # fmt: skip
    config = LlamaConfig.from_pretrained(tale_model())
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.vocab_size == len(load_tokenizer(tale_model()))


def test_the_sample_is_a_few_tales() -> None:
    text = sample_text().read_text(encoding="utf-8")
    assert 20_000 < len(text.encode()) < 40_000
    assert text.count("<|story|>") > 3


def test_the_tale_model_has_learned_to_read_tales() -> None:
    model, tokenizer = LlamaForCausalLM.from_pretrained(tale_model()), load_tokenizer(tale_model())
    tale = sample_text().read_text(encoding="utf-8").split("<|story|>")[1].strip()[:1000]
    ids = np.array([tokenizer.encode(tale)])
    bits_per_byte = causal_lm_loss(model(ids).logits, ids) / np.log(2) * ids.size / len(tale.encode())
    # Guessing blindly among 4096 tokens, of 3.5 bytes each, takes log2(4096) / 3.5 = 3.4
    assert bits_per_byte < 2


def test_the_public_names_are_at_hand() -> None:
    assert set(minillama.__all__) <= set(dir(minillama))
    assert all(getattr(minillama, name).__name__ == name for name in minillama.__all__)
