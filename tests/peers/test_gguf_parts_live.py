"""Split models and LoRA adapters in GGUF beside llama.cpp and the gguf package, which write and read them too."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from minillama.weights import open_checkpoint
from minillama.weights.gguf_file import read_gguf
from tests.ggufs import SETTINGS, gguf_bytes, info, model_tensors
from tests.peers.beside import llama_cpp, their_logits

IDS = np.random.default_rng(6).integers(0, 40, 30).tolist()
# float32: sums of a hundred terms in another order, two layers in a row
FLOAT32 = 1e-5


def far(ours: Array, theirs: Array) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def our_logits(file: Path, **how: object) -> Array:
    return LlamaForCausalLM.from_pretrained(file, engine="numpy", **how)(np.array([IDS])).logits[0]  # type: ignore[arg-type]


def whole(folder: Path) -> Path:
    said = SETTINGS | {"tokenizer.ggml.model": "no_vocab", "llama.vocab_size": 40}
    (folder / "whole.gguf").write_bytes(gguf_bytes(said, model_tensors()))
    return folder / "whole.gguf"


@pytest.mark.parametrize("small_first", [False, True])
def test_parts_that_the_gguf_package_writes(small_first: bool, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=8, small_first_shard=small_first)
    for key, value in SETTINGS.items():
        if key != "general.architecture":
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    writer.add_uint32("llama.vocab_size", 40)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    for tensor in model_tensors():
        writer.add_tensor(tensor.name, np.frombuffer(tensor.data, np.float32).reshape(tensor.shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    files = sorted(tmp_path.glob("m-*.gguf"))
    assert len(files) == 3 + small_first
    assert far(our_logits(files[0]), their_logits(files[0], IDS)) < FLOAT32
    (tmp_path / "one").mkdir()
    np.testing.assert_array_equal(our_logits(tmp_path), our_logits(whole(tmp_path / "one")))


@pytest.mark.parametrize("alpha", [5.0, 0.0])
def test_adapters_give_their_logits(alpha: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    tensors = []
    for name, described in read_gguf(whole(tmp_path)).tensors.items():
        if len(described.shape) == 2 and name.startswith("blk."):
            rows, columns = described.shape
            sides = (3, columns), (rows, 3)
            tensors += [info(f"{name}.lora_{side}", (rng.standard_normal(shape) * 0.1).astype(np.float32))
                        for side, shape in zip("ab", sides, strict=True)]  # fmt: skip
    says = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
    adapter = tmp_path / "lora.gguf"
    adapter.write_bytes(gguf_bytes(says | {"adapter.lora.alpha": alpha}, tensors))
    model = llama_cpp.Llama(
        str(tmp_path / "whole.gguf"), lora_path=str(adapter), n_ctx=512, n_threads=1, verbose=False, logits_all=True,
        type_k=0, type_v=0,
    )  # fmt: skip
    model.eval(IDS)
    theirs = np.array(model.scores[: len(IDS)])
    assert far(theirs, their_logits(tmp_path / "whole.gguf", IDS)) > 0.01
    assert far(our_logits(tmp_path / "whole.gguf", lora=adapter), theirs) < FLOAT32


def test_an_embedding_s_adapter_has_the_shapes_that_they_ask_for(tmp_path: Path) -> None:
    """Of a model with a head of its own: the two sides of an embedding's change places."""
    rng = np.random.default_rng(5)
    head = info("output.weight", rng.standard_normal((40, 64)).astype(np.float32))
    said = SETTINGS | {"tokenizer.ggml.model": "no_vocab", "llama.vocab_size": 40}
    base, adapter = tmp_path / "base.gguf", tmp_path / "lora.gguf"
    base.write_bytes(gguf_bytes(said, [*model_tensors(), head]))
    says = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
    sides = [info(f"token_embd.weight.lora_{side}", rng.standard_normal(shape).astype(np.float32) * np.float32(0.1))
             for side, shape in (("a", (40, 3)), ("b", (64, 3)))]  # fmt: skip
    adapter.write_bytes(gguf_bytes(says | {"adapter.lora.alpha": 6.0}, sides))
    model = llama_cpp.Llama(str(base), lora_path=str(adapter), n_ctx=512, n_threads=1, verbose=False, logits_all=True,
                            type_k=0, type_v=0)  # fmt: skip
    model.eval(IDS)
    assert far(our_logits(base, lora=adapter), np.array(model.scores[: len(IDS)])) < FLOAT32
    assert not open_checkpoint(base, lora=[adapter]).config.tie_word_embeddings
