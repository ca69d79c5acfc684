"""What is fuzzed: a function for each format that opens bytes as that format and reads all that is in them.

Whatever the bytes are, it may only work, or raise a ValueError, an OSError or a MemoryError that names the file.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig, read_json_object
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.tokenizer.llama2c_bin import open_tokenizer_bin
from minillama.weights import open_checkpoint
from minillama.weights.gguf_model import open_gguf
from minillama.weights.llama2c import open_llama2c
from minillama.weights.meta_config import config_from_params
from minillama.weights.names import expected_shapes, layer_name
from minillama.weights.safetensors import ArrayTensor, Tensor, open_safetensors
from minillama.weights.torch_file import open_torch_file
from tests.tiny import random_weights, tiny_config, write_safetensors
from tests.weights.llama2c_files import exported, tokenizer_bin
from tests.weights.torch_files import torch_save

CONFIG = tiny_config(vocab_size=9, hidden_size=8, intermediate_size=6, num_attention_heads=2, head_dim=4,
                     num_key_value_heads=1, num_hidden_layers=1, max_position_embeddings=4)  # fmt: skip
WEIGHTS = random_weights(CONFIG)
Q = layer_name(0, "q_proj")


class Target(NamedTuple):
    """run: opens a file. name: of that file. seeds: sound files. beside: writes what else lies in its folder. shape:
    how the bytes are changed best, see mutations."""

    run: Callable[[Path], object]
    name: str
    seeds: Callable[[Path], list[bytes]]
    beside: Callable[[Path], object] = lambda folder: None
    shape: str = "bytes"


class OutOfBoundsError(Exception):
    """What no input may bring about."""


def execute(target: Target, data: bytes, folder: Path) -> Exception | None:
    """Open `data`; the refusal, if it is refused as it may be. OutOfBoundsError, or what was raised, else."""
    file = folder / target.name
    file.write_bytes(data)
    try:
        target.run(file)
    except (ValueError, OSError, MemoryError) as error:
        if str(folder) not in str(error) or len(str(error)) > 3000 or "\n" in str(error):
            raise OutOfBoundsError(f"a refusal that names no file, or is no sentence: {error!r}") from error
        return error
    return None


def read_all(tensors: Mapping[str, Tensor]) -> None:
    for tensor in tensors.values():
        tensor.read(np.float32)
        if len(tensor.shape) == 2 and tensor.shape[0]:
            tensor.read(np.float64, np.array([0, tensor.shape[0] - 1]))


def written(file: Path, write: Callable[..., object], *arguments: Any) -> bytes:
    """What write(file, ...) writes."""
    write(file, *arguments)
    return file.read_bytes()


# -- the targets, each with its sound files -----------------------------------------------------------------------


def safetensors_seeds(folder: Path) -> list[bytes]:
    mixed: dict[str, Array] = {"a": np.ones((2, 3), "<f2"), "b": np.ones(3, "<u2"), "": np.ones((), "<f8")}
    cases = ((WEIGHTS, {"format": "pt"}), (mixed, None), ({}, {}))
    return [written(folder / "x", write_safetensors, *case) for case in cases]


def run_safetensors(file: Path) -> None:
    read_all(open_safetensors(file)[0])


def two_shards(folder: Path) -> None:
    names = list(WEIGHTS)
    for number, part in enumerate((names[:3], names[3:]), 1):
        write_safetensors(folder / f"model-{number:05}-of-00002.safetensors", {name: WEIGHTS[name] for name in part})
    CONFIG.save_pretrained(folder)


def index_seeds(folder: Path) -> list[bytes]:
    shards = {name: f"model-{1 + (number > 2):05}-of-00002.safetensors" for number, name in enumerate(WEIGHTS)}
    return [json.dumps({"metadata": {"total_size": 1}, "weight_map": shards}).encode(), b'{"weight_map": {}}']


def run_checkpoint(file: Path) -> None:
    read_all(open_checkpoint(file).tensors)


def config_seeds(folder: Path) -> list[bytes]:
    ropes: list[dict[str, Any]] = [
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0, 1.0], "long_factor": [2.0, 2.0],
                          "original_max_position_embeddings": 2}},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 2}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "attention_factor": 1.0}},
    ]  # fmt: skip
    return [json.dumps(CONFIG.to_dict() | rope).encode() for rope in ropes]


def run_config(file: Path) -> None:
    # A model of any size costs nothing, but what counts layers one by one is asked only for a few
    config = LlamaConfig.from_pretrained(file)
    named(file, lambda: json.dumps(config.to_dict()))
    if config.num_hidden_layers < 100:
        named(file, lambda: expected_shapes(config))


def named(file: Path, call: Callable[[], object]) -> None:
    """For functions whose callers name the file."""
    try:
        call()
    except (ValueError, OSError, MemoryError) as error:
        raise ValueError(f"{file}: {error}") from error


def torch_seeds(folder: Path) -> list[bytes]:
    half = {"a": np.ones((2, 3), "<f2"), "b": np.ones(3, "<u2")}
    plain = written(folder / "x", lambda file: torch_save(WEIGHTS, file))
    return [
        plain,
        written(folder / "x", lambda file: torch_save(half, file, "model", step=3, lr=0.5, names=["a", None])),
    ]


def run_torch(file: Path) -> None:
    read_all(open_torch_file(file))


def params_seeds(folder: Path) -> list[bytes]:
    seven: dict[str, Any] = {
        "dim": 8,
        "multiple_of": 2,
        "n_heads": 2,
        "n_layers": 1,
        "norm_eps": 1e-5,
        "vocab_size": -1,
    }
    return [
        json.dumps(seven).encode(),
        json.dumps(
            seven | {"n_kv_heads": 1, "ffn_dim_multiplier": 1.3, "rope_theta": 5e5, "use_scaled_rope": True}
        ).encode(),
    ]


ARRAYS = {name: ArrayTensor(array) for name, array in WEIGHTS.items()}


def run_params(file: Path) -> None:
    config_from_params(file, read_json_object(file, "settings of a model"), ARRAYS)


def gguf_seeds(folder: Path) -> list[bytes]:
    return [written(folder / f"{kind}.gguf", write_gguf, kind) for kind in ("F32", "Q8_0")]


def write_gguf(file: Path, kind: str) -> None:
    """A small model as the gguf package writes it, its matrices in one of ggml's formats."""
    writer = gguf.GGUFWriter(file, "llama")
    for key, value in {"context_length": 4, "embedding_length": 32, "feed_forward_length": 32, "block_count": 1,
                       "attention.head_count": 2, "attention.head_count_kv": 1, "vocab_size": 9}.items():  # fmt: skip
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_string("tokenizer.ggml.model", "llama")
    writer.add_array("tokenizer.ggml.tokens", ["<unk>", "<s>", "</s>", *"abcdef"])
    writer.add_array("tokenizer.ggml.scores", [0.0] * 9)
    writer.add_array("tokenizer.ggml.token_type", [2, 3, 3, *[1] * 6])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    sides = {"token_embd": (9, 32), "output": (9, 32), "output_norm": (32,), "blk.0.attn_norm": (32,),
             "blk.0.ffn_norm": (32,), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32),
             "blk.0.attn_output": (32, 32), "blk.0.ffn_gate": (32, 32), "blk.0.ffn_up": (32, 32),
             "blk.0.ffn_down": (32, 32)}  # fmt: skip
    form = gguf.GGMLQuantizationType[kind]
    for name, shape in sides.items():
        array = np.ones(shape, np.float32)
        if len(shape) == 2:
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(array, form), raw_dtype=form)
        else:
            writer.add_tensor(f"{name}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run_gguf(file: Path) -> None:
    read_all(open_gguf(file).tensors)
    tokenizer = load_tokenizer(file)
    tokenizer.decode(tokenizer.encode("ab a <s> é"))


def llama2c_seeds(folder: Path) -> list[bytes]:
    return [exported(CONFIG, WEIGHTS, version, 2) for version in (0, 1, 2)]


def run_llama2c(file: Path) -> None:
    read_all(open_llama2c(file).tensors)


def quantized_files(folder: Path) -> None:
    LlamaForCausalLM(CONFIG, WEIGHTS, engine="numba", dtype="q4_0").save_pretrained(folder)


def quantized_seeds(folder: Path) -> list[bytes]:
    return [written(folder / "model.safetensors", lambda file: quantized_files(folder))]


def tokenizer_seeds(folder: Path) -> list[bytes]:
    rest = ["<unk>", "\n<s>\n", "\n</s>\n"], [" ", "a", "b", " a", "ab"]
    late, early = ([f"<0x{byte:02X}>" for byte in range(256)], [chr(byte) for byte in range(256)])
    return [
        tokenizer_bin([piece.encode() for piece in [*rest[0], *middle, *rest[1]]], [0.0] * 259 + [-1.0, -2, -3, -4, -5])
        for middle in (late, early)
    ]


def run_tokenizer_bin(file: Path) -> None:
    tokenizer = open_tokenizer_bin(file)
    tokenizer.decode(tokenizer.encode("ab a <s> é"))


LORA: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "bias": "none", "target_modules": ["q_proj"],
                        "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"^model": 2.5}, "use_rslora": True,
                        "use_dora": False, "modules_to_save": None, "init_lora_weights": True}  # fmt: skip
PAIR = {f"base_model.model.{Q.removesuffix('.weight')}.lora_{side}.weight": np.ones(shape, "<f4")
        for side, shape in (("A", (2, 8)), ("B", (8, 2)))}  # fmt: skip


def adapter(folder: Path) -> None:
    write_safetensors(folder / "model.safetensors", WEIGHTS)
    CONFIG.save_pretrained(folder)
    write_safetensors(folder / "adapter_model.safetensors", PAIR)
    (folder / "adapter_config.json").write_text(json.dumps(LORA))


def lora_seeds(folder: Path) -> list[bytes]:
    whole = {"base_model.model.lm_head.weight": WEIGHTS["lm_head.weight"]}
    table = {f"base_model.model.model.embed_tokens.lora_embedding_{side}": np.ones(shape, "<f4")
             for side, shape in (("A", (2, 9)), ("B", (8, 2)))}  # fmt: skip
    return [written(folder / "x", write_safetensors, part) for part in (PAIR, PAIR | table | whole)]


def run_lora(file: Path) -> None:
    read_all(open_checkpoint(file.parent / "model.safetensors", lora=[file.parent]).tensors)


TARGETS: dict[str, Target] = {
    "safetensors": Target(run_safetensors, "x.safetensors", safetensors_seeds, shape="header"),
    "index": Target(run_checkpoint, "model.safetensors.index.json", index_seeds, two_shards, "json"),
    "config": Target(run_config, "config.json", config_seeds, shape="json"),
    "torch": Target(run_torch, "x.pth", torch_seeds, shape="zip"),
    "params": Target(run_params, "params.json", params_seeds, shape="json"),
    "gguf": Target(run_gguf, "x.gguf", gguf_seeds),
    "llama2c": Target(run_llama2c, "x.bin", llama2c_seeds),
    "tokenizer.bin": Target(run_tokenizer_bin, "tokenizer.bin", tokenizer_seeds),
    "quantized": Target(run_checkpoint, "model.safetensors", quantized_seeds, quantized_files, "header"),
    "lora config": Target(run_lora, "adapter_config.json", lambda folder: [json.dumps(LORA).encode()], adapter, "json"),
    "lora": Target(run_lora, "adapter_model.safetensors", lora_seeds, adapter, "header"),
}


@cache
def seeds_of(name: str) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return TARGETS[name].seeds(Path(folder))
