"""GGUF files as they are written, read by the gguf package and by our own reader."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from minillama.config import LlamaConfig
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from minillama.tokenizer.to_pieces import to_pieces
from minillama.vocabulary import UNUSED, Vocabulary
from minillama.weights import names, open_checkpoint
from minillama.weights.gguf_file import read_gguf
from minillama.weights.gguf_formats import FORMATS
from minillama.weights.gguf_model import PARTS, gguf_name
from minillama.weights.gguf_vocabulary import gguf_vocabulary
from minillama.weights.gguf_writing import write_gguf
from minillama.weights.names import interleaved_to_halves
from minillama.weights.quantized import QuantizedTensor
from minillama.weights.safetensors import ArrayTensor
from minillama.weights.streaming import ConvertedTensor
from tests.ggufs import SETTINGS, gguf_bytes, info, model_tensors, random_matrix
from tests.tiny import ODD, ROPES, odd_model, spiky


def test_every_tensor_has_a_name_in_gguf() -> None:
    assert set(PARTS) == set(names.LAYER)
    found = {name: gguf_name(name) for name in names.expected_shapes(LlamaConfig(**ODD, attention_bias=True))}
    assert len(set(found.values())) == len(found)
    assert found["model.layers.1.self_attn.o_proj.weight"] == "blk.1.attn_output.weight"


@pytest.mark.parametrize(("format", "tolerance"), [("F32", 0), ("F16", 2**-11), ("BF16", 2**-8)])
def test_gguf_holds_the_same_numbers(format: str, tolerance: float, tmp_path: Path) -> None:
    model = odd_model(tmp_path / "model", attention_bias=True)
    write_gguf(open_checkpoint(tmp_path / "model"), format, tmp_path / "model.gguf")
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert len(read) == len(model.weights.tensors)
    for name, tensor in model.weights.tensors.items():
        stored = read[gguf_name(name)]
        numbers = gguf.quants.dequantize(stored.data, stored.tensor_type).reshape(tensor.shape)
        assert stored.tensor_type.name == (format if len(tensor.shape) == 2 else "F32")
        for projection, heads in (("q_proj", 4), ("k_proj", 2)):
            if projection in name:  # llama.cpp turns neighbours, not halves
                numbers = interleaved_to_halves(numbers, heads)
        least = 2**-25 if format == "F16" else 0  # half a step of the smallest float16s
        np.testing.assert_allclose(numbers, tensor.read(np.float32), rtol=tolerance, atol=least)


def test_gguf_tells_the_sizes(tmp_path: Path) -> None:
    odd_model(tmp_path / "model", **ROPES["llama3"], tie_word_embeddings=True)
    file = tmp_path / "model.gguf"
    write_gguf(open_checkpoint(tmp_path / "model"), "Q4_0", file)
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    expected = {"vocab_size": 97, "embedding_length": 64, "feed_forward_length": 96, "block_count": 2,
                "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 24,
                "rope.dimension_count": 24, "rope.freq_base": 10000.0, "context_length": 128}  # fmt: skip
    assert {name: fields[f"llama.{name}"] for name in expected} == expected
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert "output.weight" not in tensors  # tied
    assert tensors["rope_freqs.weight"].shape.tolist() == [12]
    assert tensors["blk.0.attn_k.weight"].shape.tolist() == [64, 48]  # the other way round than in NumPy
    assert tensors["blk.0.attn_k.weight"].n_bytes == 48 * 2 * 18


@pytest.mark.parametrize(
    ("settings", "format", "words"),
    [
        (ROPES["dynamic"], "F32", "rope_type 'dynamic' is not written for llama.cpp"),
        (ROPES["longrope"] | {"head_dim": 6}, "F32", "rope_type 'longrope' is not written for llama.cpp"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}},
            "F32",
            "yarn with mscale is not written",
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_slow": 0.5}},
            "F32",
            "yarn with beta_slow is not written for llama.cpp, which would compute otherwise",
        ),
        ({}, "Q6_K", "written in F32, F16, BF16, Q8_0, Q4_0, not in 'Q6_K'"),
        ({"hidden_act": "gelu"}, "F32", "has no hidden_act 'gelu'"),
        ({"intermediate_size": 100}, "Q8_0", "groups of 32, and intermediate_size is 100: use bf16"),
    ],
)
def test_what_gguf_cannot_say(settings: dict[str, Any], format: str, words: str, tmp_path: Path) -> None:
    odd_model(tmp_path / "model", **settings)
    with pytest.raises(ValueError, match=words):
        write_gguf(open_checkpoint(tmp_path / "model"), format, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*gguf*"))


# -- there and back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rope", ["default", "linear", "llama3", "yarn"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_config_there_and_back(rope: str, tied: bool, tmp_path: Path) -> None:
    settings = ROPES[rope] | {"tie_word_embeddings": tied, "attention_bias": tied, "rope_theta": 5e5,
                              "eos_token_id": [5, 3, 7], "pad_token_id": 0, "mlp_bias": not tied}  # fmt: skip
    if rope == "llama3":  # trained on so few that no two pairs say where the scaling begins
        settings["rope_scaling"] = settings["rope_scaling"] | {"original_max_position_embeddings": 8192}
    model = odd_model(tmp_path / "model", **settings | {"max_position_embeddings": 128})
    write_gguf(open_checkpoint(tmp_path / "model"), "F32", tmp_path / "model.gguf")
    again = open_checkpoint(tmp_path / "model.gguf")
    ours, theirs = model.config.to_dict(), again.config.to_dict()
    assert {key for key in ours if ours[key] != theirs.get(key)} <= {"torch_dtype", "architectures", "rope_scaling"}
    assert again.config.rope_scaling == model.config.rope_scaling
    for name, tensor in model.weights.tensors.items():
        np.testing.assert_array_equal(again.tensors[name].read(np.float32), tensor.read(np.float32))


WIDE: dict[str, Any] = {"llama.embedding_length": 256, "llama.feed_forward_length": 256,
                        "llama.attention.key_length": 64, "llama.attention.value_length": 64,
                        "llama.rope.dimension_count": 64}  # fmt: skip
# A file as its maker mixes formats, by the ends of the names; other matrices are in the last
MIXTURES = {
    "Q4_0": {"token_embd.weight": "Q6_K", "": "Q4_0"},
    "Q4_K": {"ffn_down.weight": "Q6_K", "attn_v.weight": "Q8_0", "attn_k.weight": "Q5_0", "token_embd.weight": "Q6_K",
             "": "Q4_K"},
    "Q5_K": {"attn_k.weight": "Q5_K", "attn_q.weight": "Q6_K", "attn_v.weight": "Q5_1", "": "Q5_K"},
    "Q4_1": {"attn_q.weight": "Q4_1", "token_embd.weight": "F16", "": "Q4_1"},
    "F16": {"token_embd.weight": "Q8_0", "attn_output.weight": "F32", "": "F16"},
}  # fmt: skip


def mixed_file(file: Path, mixture: dict[str, str]) -> Path:
    rng = np.random.default_rng(5)
    tensors = []
    for tensor in model_tensors():
        shape = tuple({64: 256, 96: 256, 48: 128}.get(side, side) for side in tensor.shape)
        if len(shape) == 1:
            tensors.append(info(tensor.name, rng.normal(1, 0.2, shape).astype(np.float32)))
        else:
            kind = next(kind for end, kind in mixture.items() if tensor.name.endswith(end))
            tensors.append(info(tensor.name, random_matrix(rng, shape, kind), kind))
    file.write_bytes(gguf_bytes(SETTINGS | WIDE, tensors))
    return file


@pytest.mark.parametrize("main", MIXTURES)
def test_each_matrix_keeps_its_own_format(main: str, tmp_path: Path) -> None:
    """From GGUF to GGUF the bytes of every tensor are the same."""
    file = mixed_file(tmp_path / "a.gguf", MIXTURES[main])
    write_gguf(open_checkpoint(file), None, tmp_path / "b.gguf")
    before, after = (gguf.GGUFReader(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    made = {tensor.name: tensor for tensor in after.tensors}
    assert made.keys() == {tensor.name for tensor in before.tensors}
    for old in before.tensors:
        assert made[old.name].tensor_type == old.tensor_type
        np.testing.assert_array_equal(made[old.name].data, old.data, err_msg=old.name)
    called = {"Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}.get(main, main)
    assert after.get_field("general.file_type").contents() == gguf.LlamaFileType[f"MOSTLY_{called}"]
    assert after.get_field("general.quantization_version").contents() == gguf.GGML_QUANT_VERSION


def test_plain_numbers_of_several_formats_keep_theirs(tmp_path: Path) -> None:
    """F64, which llama.cpp does not multiply by, becomes F32."""
    model = odd_model(tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model")
    kinds = {"q_proj": "F16", "up_proj": "BF16", "down_proj": "F64", "lm_head": "F64"}
    for name, tensor in model.weights.tensors.items():
        for part, kind in kinds.items():
            if part in name:
                checkpoint.tensors[name] = ConvertedTensor(tensor, kind)
    write_gguf(checkpoint, None, tmp_path / "model.gguf")
    again = open_checkpoint(tmp_path / "model.gguf")
    for name, tensor in checkpoint.tensors.items():
        assert again.tensors[name].dtype == {"F64": "F32"}.get(tensor.dtype, tensor.dtype)
        np.testing.assert_array_equal(again.tensors[name].read(np.float32), tensor.read(np.float32), err_msg=name)


def test_a_head_of_more_bits_keeps_them(tmp_path: Path) -> None:
    """Also where Q4_0 is asked for, which the matrices are in; not where a file of other formats is made Q4_0."""
    for main, embedding in (("Q4_0", "Q6_K"), ("Q4_1", "Q4_0")):
        file = mixed_file(tmp_path / f"{main}.gguf", MIXTURES[main])
        write_gguf(open_checkpoint(file), "Q4_0", tmp_path / "b.gguf")
        kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "b.gguf").tensors}
        assert kinds.pop("token_embd.weight") == embedding
        assert set(kinds.values()) == {"Q4_0", "F32"}


@pytest.mark.parametrize("form", ["q8_0", "q4_0"])
def test_quantized_weights_keep_their_numbers(form: str, tmp_path: Path) -> None:
    """From our own tiles to ggml's blocks, and from blocks to blocks, each beside what the numbers stand for."""
    rng = np.random.default_rng(3)
    config = LlamaConfig(**ODD)
    odd_model(tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model")
    for name, tensor in checkpoint.tensors.items():
        if len(tensor.shape) == 2 and name != names.EMBED_TOKENS:
            checkpoint.tensors[name] = random_tiles(rng, form, tensor.shape)  # type: ignore[arg-type]
    write_gguf(checkpoint, form.upper(), tmp_path / "a.gguf")
    again = open_checkpoint(tmp_path / "a.gguf")
    for name, tensor in checkpoint.tensors.items():
        if isinstance(tensor, QuantizedTensor):
            found = again.tensors[name]
            assert isinstance(found, QuantizedTensor)
            rows = config.vocab_size if name == names.LM_HEAD else tensor.shape[0]
            np.testing.assert_array_equal(found.read(np.float32), tensor.read(np.float32)[:rows])
            if rows % 16 == 0:  # else what fills up tiles is of no matter
                np.testing.assert_array_equal(found.numbers, tensor.numbers)
                np.testing.assert_array_equal(found.scales, tensor.scales)
    write_gguf(again, form.upper(), tmp_path / "b.gguf", name="model")
    write_gguf(again, form.upper(), tmp_path / "c.gguf", name="model")
    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "c.gguf").read_bytes()
    one, other = read_gguf(tmp_path / "a.gguf"), read_gguf(tmp_path / "b.gguf")
    matrices = [name for name, tensor in one.tensors.items() if tensor.kind == form.upper()]
    assert len(matrices) == 2 * 7 + 2
    a, b = (tmp_path / "a.gguf").read_bytes(), (tmp_path / "b.gguf").read_bytes()
    for name in matrices:
        size = int(np.prod(one.tensors[name].shape)) // 32 * (34 if form == "q8_0" else 18)
        start, begin = one.tensors[name].offset, other.tensors[name].offset
        assert a[start : start + size] == b[begin : begin + size]


def random_tiles(rng: np.random.Generator, form: str, shape: tuple[int, int]) -> QuantizedTensor:
    tiles, groups = -(-shape[0] // 16), shape[1] // 32
    numbers = rng.integers(0 if form == "q4_0" else 1, 256, tiles * groups * (512 if form == "q8_0" else 256), np.uint8)
    return QuantizedTensor(form, shape, numbers, spiky(rng, tiles * groups * 16).astype(np.float16))


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    odd_model(tmp_path / "my-model")
    for format, number in (("F32", 0), ("F16", 1), ("BF16", 32), ("Q8_0", 7), ("Q4_0", 2)):
        file = tmp_path / "model.gguf"
        write_gguf(open_checkpoint(tmp_path / "my-model"), format, file)
        said = read_gguf(file).metadata
        assert (said["general.architecture"], said["general.type"], said["general.name"]) == (
            "llama",
            "model",
            "my-model",
        )
        assert said["general.file_type"] == number
        assert said.get("general.quantization_version") == (2 if format.startswith("Q") else None)
        assert said["tokenizer.ggml.model"] == "no_vocab"
        assert gguf_vocabulary(file) is None
    assert set(FORMATS.values()) == {"F32", "F16", "BF16", "Q8_0", "Q4_0"}


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model"])
def test_the_vocabulary_there_and_back(file: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tale_model() / file)
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    checkpoint = open_checkpoint(tale_model())
    vocabulary = to_pieces(tokenizer)
    with pytest.raises(ValueError, match="has 4097 pieces and the model only 4096"):
        write_gguf(checkpoint, "Q8_0", tmp_path / "tale.gguf", vocabulary)
    odd_model(tmp_path / "model", vocab_size=4100)
    write_gguf(open_checkpoint(tmp_path / "model"), "F16", tmp_path / "tale.gguf", vocabulary)
    found = gguf_vocabulary(tmp_path / "tale.gguf")
    assert found is not None
    assert found.pieces[:4097] == vocabulary.pieces
    assert (found.pieces[4097:], found.types[4097:]) == (["[PAD4097]", "[PAD4098]", "[PAD4099]"], [UNUSED] * 3)
    again = load_tokenizer(tmp_path / "tale.gguf")
    text = (Path(__file__).parents[2] / "data" / "sample.txt").read_text(encoding="utf-8")[:4000] + "<pad> é\U0001f999"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert again.chat_template == "{{ messages }}"
    assert open_checkpoint(tmp_path / "tale.gguf").config.pad_token_id == 4096


def test_several_templates_and_flags(tmp_path: Path) -> None:
    odd_model(tmp_path / "model", vocab_size=264)
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "a"]
    stated = Vocabulary(
        "llama", pieces, [0.0] * 258, [2, *[6] * 256, 1], bos=1, eos=2, unk=0, add_bos=False, add_eos=True,
        space_prefix=False, chat_template={"default": "{{ 1 }}", "tool_use": "{{ 2 }}"},
    )  # fmt: skip
    write_gguf(open_checkpoint(tmp_path / "model"), "F16", tmp_path / "model.gguf", stated)
    found = gguf_vocabulary(tmp_path / "model.gguf")
    assert found is not None
    said = {
        name: getattr(found, name) for name in ("add_bos", "add_eos", "space_prefix", "chat_template", "unk", "pad")
    }
    assert said == {"add_bos": False, "add_eos": True, "space_prefix": False, "unk": 0, "pad": None,
                    "chat_template": {"default": "{{ 1 }}", "tool_use": "{{ 2 }}"}}  # fmt: skip


def test_numbers_that_a_format_has_not(tmp_path: Path) -> None:
    odd_model(tmp_path / "model")
    for number, format, words in ((1e6, "F16", "too large for float16"), (1e7, "Q8_0", "too large for Q8_0"),
                                  (np.nan, "Q4_0", "not finite"), (np.inf, "Q8_0", "not finite")):  # fmt: skip
        checkpoint = open_checkpoint(tmp_path / "model")
        weights = checkpoint.tensors[names.layer_name(1, "up_proj")].read(np.float32).copy()
        weights[3, 5] = number
        checkpoint.tensors[names.layer_name(1, "up_proj")] = ArrayTensor(weights)
        (tmp_path / "model.gguf").write_text("what was there before")
        with pytest.raises(ValueError, match=f"layers.1.mlp.up_proj.weight holds .*{words}"):
            write_gguf(checkpoint, format, tmp_path / "model.gguf")
        assert (tmp_path / "model.gguf").read_text() == "what was there before"
        assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "model.gguf"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    odd_model(tmp_path / "model")
    (tmp_path / "taken.gguf").mkdir()
    with pytest.raises(OSError, match=r"taken\.gguf cannot be written"):
        write_gguf(open_checkpoint(tmp_path / "model"), "F32", tmp_path / "taken.gguf")


def test_without_the_gguf_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd_model(tmp_path / "model")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "gguf":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"needs the gguf package: run `pip install gguf`"):
        write_gguf(open_checkpoint(tmp_path / "model"), "F32", tmp_path / "model.gguf")


def test_what_is_read_can_be_saved_as_safetensors(tmp_path: Path) -> None:
    odd_model(tmp_path / "model")
    for format in FORMATS.values():
        write_gguf(open_checkpoint(tmp_path / "model"), format, tmp_path / "model.gguf")
        model = LlamaForCausalLM.from_pretrained(tmp_path / "model.gguf")
        model.save_pretrained(tmp_path / "saved")
        stated = json.loads((tmp_path / "saved" / "config.json").read_text()).get("quantization_config", {})
        assert stated.get("format") == (format.lower() if format.startswith("Q") else None)
        again = LlamaForCausalLM.from_pretrained(tmp_path / "saved")
        for name, tensor in model.weights.tensors.items():
            assert again.weights.tensors[name].dtype == tensor.dtype
            np.testing.assert_array_equal(again.weights.tensors[name].read(np.float32), tensor.read(np.float32))
