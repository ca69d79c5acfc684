"""The same weights for llama.cpp: a checkpoint written as a GGUF file, a few rows at a time."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.model.rope_scaling import inverse_frequencies
from minillama.weights import names
from minillama.weights.checkpoint import Checkpoint, find_weights, open_checkpoint
from minillama.weights.names import halves_to_interleaved
from minillama.weights.safetensors import Tensor

# minillama's names of number formats -> those of GGUF
FORMATS = {
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "q8_0": "Q8_0",
    "q4_0": "Q4_0",
}
TENSORS = {names.EMBED_TOKENS: "token_embd.weight", names.NORM: "output_norm.weight", names.LM_HEAD: "output.weight"}
PARTS = {
    "input_norm": "attn_norm.weight",
    "post_attention_norm": "ffn_norm.weight",
    **{f"{x}_proj": f"attn_{'output' if x == 'o' else x}.weight" for x in "qkvo"},
    **{f"{x}_bias": f"attn_{'output' if x == 'o' else x}.bias" for x in "qkvo"},
    **{f"{x}_proj": f"ffn_{x}.weight" for x in ("gate", "up", "down")},
    **{f"{x}_bias": f"ffn_{x}.bias" for x in ("gate", "up", "down")},
}
CHUNK = 1 << 23  # numbers that are converted at a time


def gguf_file(path: str | os.PathLike[str], format: str, work: Path) -> Path:
    """The GGUF file in `work` of the checkpoint at `path` in a format of FORMATS; it is written if it is not there."""
    weights = find_weights(path).resolve()
    stat = weights.stat()
    name = weights.parent.name if weights.name.startswith("model") else weights.name.split(".")[0]
    version = zlib.crc32(f"{weights} {stat.st_size} {stat.st_mtime_ns}".encode())  # of another file or time: no reuse
    file = work / f"{name}-{version:08x}-{FORMATS[format].lower()}.gguf"
    if not file.exists():
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        try:
            write_gguf(open_checkpoint(path), FORMATS[format], part)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
    return file


def write_gguf(checkpoint: Checkpoint, format: str, file: Path) -> None:
    """Write all matrices in `format` (F32, F16, BF16, Q8_0, Q4_0), norms and biases in F32."""
    import gguf

    config, tensors = checkpoint.config, unique_tensors(checkpoint)
    check(config, format)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(checkpoint.folder.name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")  # ids go in and scores come out
    if "Q" in format:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    factors = rope_factors(config)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType[format if len(tensor.shape) == 2 else "F32"]
        shape = gguf.quants.quant_shape_to_byte_shape(tensor.shape, kind)
        writer.add_tensor_info(gguf_name(name), shape, np.dtype(np.uint8), math.prod(shape), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = writer.fout[0]
    if factors is not None:
        writer.write_tensor_data(factors)
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType[format if len(tensor.shape) == 2 else "F32"]
        writer.write_padding(out, out.tell())
        for rows in converted_rows(config, name, tensor):
            out.write(np.ascontiguousarray(gguf.quants.quantize(rows, kind)).data)
        writer.write_padding(out, out.tell())
    writer.close()


def check(config: LlamaConfig, format: str) -> None:
    """ValueError for what a GGUF file of llama.cpp's `llama` architecture cannot say."""
    if config.rope_type not in ("default", "linear", "llama3"):
        raise ValueError(f"rope_type {config.rope_type!r} is not written for llama.cpp: leave out --peer llama.cpp")
    if config.hidden_act not in ("silu", "swish"):
        raise ValueError(f"llama.cpp's Llama has no hidden_act {config.hidden_act!r}: leave out --peer llama.cpp")
    for what, size in (("hidden_size", config.hidden_size), ("intermediate_size", config.intermediate_size)):
        if format.startswith("Q") and size % 32:
            raise ValueError(f"{format} is for rows of whole groups of 32, and {what} is {size}: use bf16")


def unique_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every tensor of the file; llama.cpp takes the embeddings where there is no head."""
    tensors: dict[str, Tensor] = dict(checkpoint.tensors)
    if tensors[names.LM_HEAD] is tensors[names.EMBED_TOKENS]:
        del tensors[names.LM_HEAD]
    return tensors


def gguf_name(name: str) -> str:
    """GGUF's name of a tensor of the decoder or the head."""
    if name in TENSORS:
        return TENSORS[name]
    layer, part = name.removeprefix("model.layers.").split(".", 1)
    attribute = next(attribute for attribute, known in names.LAYER.items() if known == part)
    return f"blk.{layer}.{PARTS[attribute]}"


def converted_rows(config: LlamaConfig, name: str, tensor: Tensor) -> Iterator[Array]:
    """A tensor in float32, a few rows at a time; the rows of q and k in Meta's rotary order, which llama.cpp turns."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    order = np.arange(tensor.shape[0])
    for projection, count in heads.items():
        if f".{projection}." in name:
            order = halves_to_interleaved(order, count)
    if len(tensor.shape) == 1:
        yield tensor.read(np.float32)[order]
        return
    for rows in np.array_split(order, math.ceil(math.prod(tensor.shape) / CHUNK)):
        yield tensor.read(np.float32, rows)


def rope_factors(config: LlamaConfig) -> Any:
    """What llama.cpp divides each pair's frequency by, (K/2,) float32; None where nothing is scaled."""
    if config.rope_type == "default":
        return None
    plain = LlamaConfig(head_dim=config.head_dim, rope_theta=config.rope_theta)
    length = np.asarray(1)
    return (inverse_frequencies(plain, length) / inverse_frequencies(config, length)).astype(np.float32)
