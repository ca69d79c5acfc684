"""GGUF files beside llama.cpp: what is written here runs there, and what its own quantizer writes is read here.

Runs where llama-cpp-python is installed (the peers extra); with MINILLAMA_PEERS=1 it is an error if that is missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from minillama.config import LlamaConfig
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer.from_pieces import from_pieces
from minillama.tokenizer.to_pieces import to_pieces
from minillama.weights import names, open_checkpoint
from minillama.weights.gguf_file import read_gguf
from minillama.weights.gguf_model import gguf_name, heads_of
from minillama.weights.gguf_tensors import TiledTensor
from minillama.weights.gguf_writing import write_gguf
from minillama.weights.names import halves_to_interleaved
from minillama.weights.quantized import QuantizedTensor
from tests.peers.beside import llama_cpp, their_logits, theirs
from tests.tiny import ROPES, random_weights
from tests.tokenizer.test_from_pieces import byte_level
from tests.tokenizer.texts import SPIKY

SAMPLE = Path(__file__).parents[2] / "data" / "sample.txt"
# llama.cpp's numbers of file types
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
F32 = 0


def quantized(file: Path, kind: str, *, pure: bool = False) -> Path:
    """The file as llama.cpp's own quantizer makes it. pure: all matrices alike."""
    out = file.with_name(f"{file.stem}-{kind}{'-pure' if pure else ''}.gguf")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.nthread, settings.ftype, settings.pure = 1, FILE_TYPES.get(kind, F32), pure
    settings.allow_requantize = True
    assert llama_cpp.llama_model_quantize(str(file).encode(), str(out).encode(), settings) == 0
    return out


@pytest.fixture(scope="module")
def tale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tale model in float16."""
    file = tmp_path_factory.mktemp("tale") / "tale.gguf"
    write_gguf(open_checkpoint(tale_model()), "F16", file, to_pieces(load_tokenizer(tale_model())))
    return file


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose rows are multiples of 256, as K formats need them; heads of their own width, and a head."""
    folder = tmp_path_factory.mktemp("wide")
    config = LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, rope_theta=5e5, rms_norm_eps=1e-5,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 64},
    )  # fmt: skip
    # Plain normal weights: spiky ones, and layers that answer more than they are told, pass rounding errors on enlarged
    rng = np.random.default_rng(7)
    weights = {
        name: (rng.standard_normal(shape) * 0.5 / 16 if len(shape) == 2 else rng.normal(1, 0.1, shape)).astype("f4")
        for name, shape in names.expected_shapes(config).items()
    }
    LlamaForCausalLM(config, weights).save_pretrained(folder / "model")
    write_gguf(open_checkpoint(folder / "model"), "F32", folder / "wide.gguf")
    return folder / "wide.gguf"


def test_a_hundred_greedy_ids_in_float16(tale: Path) -> None:
    prompt = load_tokenizer(tale).encode("Once upon a time")
    found = []
    for token in theirs(tale).generate(prompt, temp=0):
        found.append(token)
        if len(found) == 100:
            break
    model = LlamaForCausalLM.from_pretrained(tale, engine="numpy")
    ids = model.generate(np.array([prompt]), max_new_tokens=100, do_sample=False, eos_token_id=-1)
    assert ids[0, len(prompt) :].tolist() == found


def test_the_same_ids_for_a_text(tale: Path) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    model, tokenizer = theirs(tale), load_tokenizer(tale)
    assert model.tokenize(text.encode()) == tokenizer.encode(text)
    for short in (*SPIKY, "a <s> b</s>c"):
        if "\0" not in short:  # where a text of C ends
            for special in (True, False):
                ids = tokenizer.encode(short, split_special_tokens=not special)
                assert model.tokenize(short.encode(), special=special) == ids, short


def test_the_same_ids_for_a_vocabulary_of_bytes(tmp_path: Path) -> None:
    given = byte_level()
    config = LlamaConfig(vocab_size=len(given.pieces), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                         num_attention_heads=2)  # fmt: skip
    LlamaForCausalLM(config, random_weights(config)).save_pretrained(tmp_path / "model")
    tokenizer = from_pieces(given)
    write_gguf(open_checkpoint(tmp_path / "model"), "F32", tmp_path / "bytes.gguf", to_pieces(tokenizer))
    model, again = theirs(tmp_path / "bytes.gguf"), load_tokenizer(tmp_path / "bytes.gguf")
    for text in (*SPIKY, "hello hello12345<note> hell<|eot_id|>", SAMPLE.read_text(encoding="utf-8")):
        if "\0" not in text:
            assert model.tokenize(text.encode(), special=True) == again.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_their_quantizer_s_numbers_are_read_to_the_integer(kind: str, tale: Path) -> None:
    """Beside the bytes of the file, un-permuted here by whole rows in another way."""
    file = quantized(tale, kind, pure=True)
    opened, gguf, data = open_checkpoint(file), read_gguf(file), file.read_bytes()
    compared = 0
    for name, tensor in opened.tensors.items():
        if not isinstance(tensor, TiledTensor):
            continue
        described = gguf.tensors["token_embd.weight" if name == names.LM_HEAD else gguf_name(name)]
        assert described.kind == kind
        rows, size = tensor.shape[0], 34 if kind == "Q8_0" else 18
        blocks = np.frombuffer(data, np.uint8, rows * tensor.shape[1] // 32 * size, described.offset)
        blocks = blocks.reshape(rows, -1, size)
        scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16)
        whole = blocks[:, :, 2:].view(np.int8)
        if kind == "Q4_0":
            whole = (np.concatenate((blocks[:, :, 2:] & 15, blocks[:, :, 2:] >> 4), axis=2)).astype(np.int8) - 8
        expected = (scales.astype(np.float32) * whole).reshape(tensor.shape)
        # as tiles, and as rows: what the two engines take
        for ours in (QuantizedTensor(tensor.form, tensor.shape, tensor.numbers, tensor.scales), tensor):
            found = ours.read(np.float32)
            heads = heads_of(name, opened.config)
            np.testing.assert_array_equal(found if heads is None else halves_to_interleaved(found, heads), expected)
        compared += 1
    assert compared == 6 * 7 + 2


@pytest.mark.parametrize("kind", FILE_TYPES)
def test_blocks_are_read_as_llama_cpp_reads_them(kind: str, wide: Path) -> None:
    """Its quantizer also goes back to float32: to the last bit what our reader makes of the same blocks."""
    file = quantized(wide, kind)
    ours, floats = open_checkpoint(file), open_checkpoint(quantized(file, "F32"))
    for name, tensor in floats.tensors.items():
        np.testing.assert_array_equal(ours.tensors[name].read(np.float32), tensor.read(np.float32))
    kinds = {tensor.kind for tensor in read_gguf(file).tensors.values()}
    assert kind.removesuffix("_M") in kinds
    assert len(kinds) == 3 or not kind.endswith("_M")  # with the norms: these are mixed files


@pytest.mark.parametrize("kind", FILE_TYPES)
def test_their_files_give_their_logits(kind: str, wide: Path) -> None:
    """llama.cpp rounds what it multiplies by quantized weights to 8 bits: in groups of 32 by about half of 1/127 of the
    largest, or of 256 for K formats. For normal numbers that is a root mean square error of 0.5 % to 0.7 % a product;
    three layers and the head in a row stay below 3 %. Of float16 the steps are 2^-11, and 0.3 % leaves room."""
    file = quantized(wide, kind)
    ids = np.random.default_rng(1).integers(0, 512, 60).tolist()
    logits = their_logits(file, ids)
    ours = LlamaForCausalLM.from_pretrained(file, engine="numpy")(np.array([ids])).logits[0]
    error = np.sqrt(np.mean((ours - logits) ** 2) / np.mean(logits**2))
    assert error < (0.003 if kind == "F16" else 0.03)


@pytest.mark.parametrize("rope", ["default", "linear", "llama3", "yarn"])
def test_our_files_give_our_logits(rope: str, tmp_path: Path) -> None:
    """In float32: sums of a hundred terms in another order, some layers in a row."""
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=24, rms_norm_eps=1e-5, attention_bias=True,
        **ROPES[rope] | {"max_position_embeddings": 128},
    )  # fmt: skip
    LlamaForCausalLM(config, random_weights(config)).save_pretrained(tmp_path / "model")
    write_gguf(open_checkpoint(tmp_path / "model"), "F32", tmp_path / "model.gguf")
    ids = np.random.default_rng(1).integers(0, 97, 40).tolist()
    logits = their_logits(tmp_path / "model.gguf", ids)
    ours = LlamaForCausalLM.from_pretrained(tmp_path / "model.gguf", engine="numpy")(np.array([ids])).logits[0]
    assert np.abs(ours - logits).max() < 1e-4 * np.abs(logits).max()


def test_biases_that_a_file_lacks_are_zero(wide: Path, tmp_path: Path) -> None:
    """Beside llama.cpp in float32; the tolerance as above."""
    reader, writer = GGUFReader(wide), GGUFWriter(tmp_path / "biases.gguf", "llama")
    for key, value in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub = value.types[1] if value.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(key, value.contents(), value.types[0], sub)
    rng = np.random.default_rng(7)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
        if tensor.name in ("blk.0.attn_v.weight", "blk.1.attn_q.weight"):
            bias = rng.normal(size=int(tensor.shape[1])).astype(np.float32)
            writer.add_tensor(tensor.name.replace("weight", "bias"), bias)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ids = np.random.default_rng(1).integers(0, 512, 40).tolist()
    logits = their_logits(tmp_path / "biases.gguf", ids)
    ours = LlamaForCausalLM.from_pretrained(tmp_path / "biases.gguf", engine="numpy")(np.array([ids])).logits[0]
    without = LlamaForCausalLM.from_pretrained(wide, engine="numpy")(np.array([ids])).logits[0]
    assert np.abs(without - logits).max() > 0.01 * np.abs(logits).max()
    assert np.abs(ours - logits).max() < 1e-4 * np.abs(logits).max()


@pytest.mark.parametrize("format", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_llama_cpp_reads_our_blocks_as_we_do(format: str, wide: Path) -> None:
    file = wide.with_name(f"ours-{format}.gguf")
    write_gguf(open_checkpoint(wide), format, file)
    ours, floats = open_checkpoint(file), open_checkpoint(quantized(file, "F32"))
    for name, tensor in floats.tensors.items():
        np.testing.assert_array_equal(ours.tensors[name].read(np.float32), tensor.read(np.float32))
