"""Models of published shapes with random weights: speed depends on the sizes alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import psutil

from minillama.config import LlamaConfig
from minillama.files import write_files
from minillama.weights import names
from minillama.weights.drawn import draw_tensors
from minillama.weights.safetensors import Tensor
from minillama.weights.saving import weight_files
from minillama.weights.streaming import ConvertedTensor


def config_of(
    D: int, F: int, layers: int, heads: int, kv_heads: int, V: int = 32000, context: int = 8192
) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=D,
        intermediate_size=F,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=V,
        max_position_embeddings=context,
    )


SHAPES = {
    "tiny": config_of(64, 96, 2, 4, 2, V=160, context=256),
    "1.1B": config_of(2048, 5632, 22, 32, 4),
    "3B": config_of(3200, 8640, 26, 32, 32),
    "7B": config_of(4096, 11008, 32, 32, 32),
    "13B": config_of(5120, 13824, 40, 40, 40),
}


def random_checkpoint(shape: str, work: Path) -> Path:
    """The folder in `work` with a bfloat16 checkpoint of that shape: the one that is there, or it is written now, a
    tensor at a time. Matrices are normal with standard deviation 0.02, norms 1; the numbers are always the same."""
    config, folder = SHAPES[shape], work / shape
    place, text = folder / "config.json", config_text(config)
    if place.exists() and place.read_text(encoding="utf-8") == text and (folder / "model.safetensors").exists():
        return folder
    write_random(config, folder)
    return folder


def write_random(config: LlamaConfig, folder: Path) -> None:
    """Write a bfloat16 checkpoint with random weights."""
    drawn = draw_tensors(config, 0, names.LM_HEAD)
    folder.mkdir(parents=True, exist_ok=True)
    size, free = 2 * sum(math.prod(tensor.shape) for tensor in drawn.values()), psutil.disk_usage(str(folder)).free
    if size > free:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free and the weights take {size / 1e9:.1f}: name another --work"
        )
    tensors: dict[str, Tensor] = {name: ConvertedTensor(tensor, "BF16") for name, tensor in drawn.items()}
    # The config last: it says that the weights before it are complete
    write_files(weight_files(folder, tensors, size))  # in one file
    write_files({folder / "config.json": config_text(config).encode()})


def config_text(config: LlamaConfig) -> str:
    """Of its config.json."""
    settings = config.to_dict() | {"torch_dtype": "bfloat16", "architectures": ["LlamaForCausalLM"]}
    return json.dumps(settings, indent=2) + "\n"


def matrix_parameters(config: LlamaConfig) -> tuple[int, int]:
    """How many numbers the matrices of all layers have, and the head: what one token is multiplied by."""
    shapes = names.expected_shapes(config)
    head = int(np.prod(shapes[names.LM_HEAD]))
    looked_up = {names.EMBED_TOKENS, names.LM_HEAD}
    return sum(int(np.prod(s)) for name, s in shapes.items() if len(s) == 2 and name not in looked_up), head
