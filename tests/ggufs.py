"""GGUF files written out by hand, so that anything can be wrong with them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minillama.arrays import Array
from minillama.weights.gguf_blocks import BLOCKS

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10
KINDS = {block.name: number for number, block in BLOCKS.items()}
_FORMS = {U8: "<B", U32: "<I", I32: "<i", F32: "<f", BOOL: "?", U64: "<Q"}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def typed(value: Any) -> bytes:
    """A value with its type in front, as metadata have it; bytes are taken as they are."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return struct.pack("<I", STRING) + text(value)
    if isinstance(value, list):
        kind = {str: STRING, float: F32, int: I32}[type(value[0])] if value else I32
        items = b"".join(typed(item)[4:] if kind == STRING else struct.pack(_FORMS[kind], item) for item in value)
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + items
    kind = {bool: BOOL, int: U32, float: F32}[type(value)]
    return struct.pack("<I", kind) + struct.pack(_FORMS[kind], value)


class Info(NamedTuple):
    """A tensor as it is described, and its data."""

    name: str
    shape: Sequence[int]  # as NumPy has it
    kind: int
    data: bytes
    offset: int | None = None  # where it follows the one before


def info(name: str, array: Array, kind: str = "F32") -> Info:
    """A tensor of plain numbers, or of blocks, (rows, bytes of a row)."""
    if kind in ("F32", "F16", "BF16"):
        return Info(name, array.shape, KINDS[kind], array.tobytes())
    block = BLOCKS[KINDS[kind]]
    return Info(name, (len(array), array.shape[1] // block.nbytes * block.size), KINDS[kind], array.tobytes())


def gguf_bytes(
    metadata: Mapping[str, Any] | Sequence[tuple[Any, Any]],
    tensors: Sequence[Info],
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    pairs: int | None = None,
    count: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A whole file. pairs, count: how many there are said to be."""
    entries = list(metadata.items()) if isinstance(metadata, Mapping) else list(metadata)
    head = magic + struct.pack("<IQQ", version, len(tensors) if count is None else count,
                               len(entries) if pairs is None else pairs)  # fmt: skip
    head += b"".join(text(key) + typed(value) for key, value in entries)
    data = b""
    for tensor in tensors:
        data += bytes(-len(data) % alignment)
        offset = len(data) if tensor.offset is None else tensor.offset
        head += text(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape[::-1])
        head += struct.pack("<IQ", tensor.kind, offset)
        data += tensor.data
    return head + bytes(-len(head) % alignment) + data


SETTINGS: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 32,
    "llama.embedding_length": 64,
    "llama.block_count": 2,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.key_length": 24,
    "llama.attention.value_length": 24,
    "llama.rope.dimension_count": 24,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
VOCAB = 40
SHAPES = {
    "attn_q.weight": (96, 64), "attn_k.weight": (48, 64), "attn_v.weight": (48, 64), "attn_output.weight": (64, 96),
    "ffn_gate.weight": (96, 64), "ffn_up.weight": (96, 64), "ffn_down.weight": (64, 96),
    "attn_norm.weight": (64,), "ffn_norm.weight": (64,),
}  # fmt: skip


def model_tensors(seed: int = 0, kind: str = "F32", vocab: int = VOCAB) -> list[Info]:
    """The tensors of a tiny tied model, matrices in a format: plain numbers, or blocks of random bytes whose scales are
    small numbers."""
    rng = np.random.default_rng(seed)
    shapes = {"token_embd.weight": (vocab, 64), "output_norm.weight": (64,)}
    shapes |= {f"blk.{layer}.{name}": shape for layer in range(2) for name, shape in SHAPES.items()}
    return [
        info(name, random_matrix(rng, shape, kind), kind) if len(shape) == 2
        else info(name, rng.normal(1, 0.2, shape).astype(np.float32))
        for name, shape in shapes.items()
    ]  # fmt: skip


def random_matrix(rng: np.random.Generator, shape: tuple[int, int], kind: str) -> Array:
    """Floats, or blocks whose float16 scales are about what makes weights of a tenth."""
    if kind in ("F32", "F16"):
        return (rng.standard_normal(shape) * 0.1).astype({"F32": np.float32, "F16": np.float16}[kind])
    block = BLOCKS[KINDS[kind]]
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // block.size, block.nbytes), np.uint8)
    peak = {"Q8_0": 127, "Q4_0": 8, "Q4_1": 15, "Q5_0": 16, "Q5_1": 31, "Q4_K": 1000, "Q5_K": 2000, "Q6_K": 4000}[kind]
    scales = rng.uniform(0.1, 0.3, (len(blocks), 2)).astype(np.float16) / np.float16(peak)
    place = {"Q6_K": 208}.get(kind, 0)
    blocks[:, place : place + 2] = scales[:, :1].view(np.uint8)
    if kind in ("Q4_1", "Q5_1", "Q4_K", "Q5_K"):  # a minimum, too
        blocks[:, 2:4] = (-scales[:, 1:] if kind.endswith("1") else scales[:, 1:]).view(np.uint8)
    return blocks.reshape(shape[0], -1)
