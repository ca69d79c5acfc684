"""A checkpoint written as a GGUF file that llama.cpp runs, a few rows at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.files import write_files
from minillama.messages import shown
from minillama.vocabulary import Vocabulary
from minillama.weights import names
from minillama.weights.checkpoint import Checkpoint
from minillama.weights.gguf_formats import main_of, matrix_formats, stored_size
from minillama.weights.gguf_metadata import add_settings, add_vocabulary, filled_up, special_ids
from minillama.weights.gguf_model import ROPE_FREQS, gguf_name, heads_of
from minillama.weights.gguf_rope import llama3_factors
from minillama.weights.gguf_tensors import BlockTensor
from minillama.weights.names import halves_to_interleaved
from minillama.weights.quantized import QuantizedTensor
from minillama.weights.safetensors import Tensor
from minillama.weights.saving import Progress, unwatched
from minillama.weights.tiles import blocks_of

LARGEST = {"Q8_0": 127 * 65504.0, "Q4_0": 8 * 65504.0}  # with the largest float16 as scale
CHUNK = 1 << 23  # numbers that are converted at a time


def write_gguf(
    checkpoint: Checkpoint,
    format: str | None,
    out: Path,
    vocabulary: Vocabulary | None = None,
    name: str | None = None,
    progress: Progress = unwatched,
    end_ids: Sequence[int] = (),
) -> None:
    """Write all matrices in `format` (F32, F16, BF16, Q8_0, Q4_0), norms and biases in F32, whole or not at all.

    Without a format each matrix keeps its own, in blocks of any kind; float64 becomes F32, and bf16z BF16. Matrices
    that are in their format already keep their numbers and scales; others are quantized as ggml does.
    vocabulary: what text is made ids by; without one llama.cpp takes ids only. name: of the model (the folder's).
    progress is told the bytes that have been written. end_ids: what ends an answer, if it is not what the config says.
    ValueError for what the format cannot say, or without the gguf package; OSError that names the file.
    """
    try:
        import gguf
    except ImportError:
        raise ValueError("writing GGUF needs the gguf package: run `pip install gguf`") from None

    check(checkpoint.config)
    formats = matrix_formats(checkpoint.tensors, format)
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells the names of files that are not there yet
    vocabulary = None if vocabulary is None else filled_up(vocabulary, checkpoint.config.vocab_size)
    title = checkpoint.folder.resolve().name if name is None else name
    ends = tuple(end_ids) or checkpoint.config.eos_token_ids
    special_ids(checkpoint.config, vocabulary, ends)  # refused before anything is written
    write_files({out: partial(_write, gguf, checkpoint, formats, vocabulary, ends, title, progress)})


def check(config: LlamaConfig) -> None:
    """ValueError for what a GGUF file of llama.cpp's `llama` architecture cannot say."""
    if config.rope_type not in ("default", "linear", "llama3", "yarn") and rope_factors(config) is None:
        raise ValueError(
            f"rope_type {shown(config.rope_type)} is not written for llama.cpp, which would compute otherwise"
        )
    if config.hidden_act not in ("silu", "swish"):
        raise ValueError(
            f"llama.cpp's Llama has no hidden_act {shown(config.hidden_act)}: it cannot be written as GGUF"
        )
    if config.rope_type == "yarn":
        scaling = config.rope_scaling or {}
        further = [key for key in ("attention_factor", "mscale", "mscale_all_dim") if scaling.get(key) is not None]
        usual = {"beta_fast": 32, "beta_slow": 1}  # which llama.cpp takes for a LLaMA, whatever a file says
        further += [key for key in usual if (scaling.get(key) or usual[key]) != usual[key]]
        if further or not scaling.get("truncate", True):
            raise ValueError(
                f"yarn with {(further or ['truncate'])[0]} is not written for llama.cpp, which would compute otherwise"
            )


def _write(
    gguf: Any,
    checkpoint: Checkpoint,
    formats: Mapping[str, str],
    vocabulary: Vocabulary | None,
    ends: Sequence[int],
    title: str,
    progress: Progress,
    stream: BinaryIO,
) -> None:
    config, tensors = checkpoint.config, unique_tensors(checkpoint)
    writer = gguf.GGUFWriter(Path(stream.name), "llama")  # by name: it has no way to be given an open file
    try:
        quantized = any(form.startswith("Q") for form in formats.values())
        add_settings(gguf, writer, config, main_of(tensors, formats), title, quantized)
        add_vocabulary(writer, config, vocabulary, ends)
        factors = rope_factors(config)
        if factors is not None:
            writer.add_tensor_info(ROPE_FREQS, factors.shape, factors.dtype, factors.nbytes)
        for name, tensor in tensors.items():
            kind = gguf.GGMLQuantizationType[formats.get(name, "F32")]
            shape = gguf.quants.quant_shape_to_byte_shape(tensor.shape, kind)
            writer.add_tensor_info(gguf_name(name), shape, np.dtype(np.uint8), math.prod(shape), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        data = writer.fout[0]
        if factors is not None:
            writer.write_tensor_data(factors)
        for name, tensor in tensors.items():
            writer.write_padding(data, data.tell())
            for part in converted(gguf, config, name, tensor, formats.get(name, "F32")):
                data.write(np.ascontiguousarray(part).data)
                progress(part.nbytes)
            writer.write_padding(data, data.tell())
    finally:
        writer.close()


def unique_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every tensor of the file; llama.cpp takes the embeddings where there is no head."""
    tensors: dict[str, Tensor] = dict(checkpoint.tensors)
    if tensors[names.LM_HEAD] is tensors[names.EMBED_TOKENS]:
        del tensors[names.LM_HEAD]
    return tensors


def written_size(checkpoint: Checkpoint, formats: Mapping[str, str]) -> int:
    """The bytes of all tensors in GGUF's formats of the matrices, by name."""
    tensors = unique_tensors(checkpoint)
    return sum(stored_size(tensor.shape, formats.get(name, "F32")) for name, tensor in tensors.items())


def converted(gguf: Any, config: LlamaConfig, name: str, tensor: Tensor, format: str) -> Iterator[Array]:
    """A tensor as it is written, a few rows at a time; the rows of q and k in Meta's rotary order, which llama.cpp
    turns. ValueError for numbers that the format has not."""
    order = np.arange(tensor.shape[0])
    if (heads := heads_of(name, config)) is not None:
        order = halves_to_interleaved(order, heads)
    if len(tensor.shape) == 1:
        yield tensor.read(np.float32)[order]
        return
    parts = np.array_split(order, math.ceil(math.prod(tensor.shape) / CHUNK))
    if isinstance(tensor, QuantizedTensor) and tensor.dtype == format:
        numbers, scales = tensor.numbers, tensor.scales
        for rows in parts:
            yield blocks_of(tensor.form, numbers, scales, tensor.shape[1], rows)
        return
    if isinstance(tensor, BlockTensor) and tensor.packed == format:
        yield from (tensor.blocks(rows) for rows in parts)
        return
    kind = gguf.GGMLQuantizationType[format]
    for rows in parts:
        x = tensor.read(np.float32, rows)
        if format in LARGEST and not (np.abs(x) <= LARGEST[format]).all():
            raise ValueError(f"{name} holds a number that is not finite, or too large for {format}")
        with np.errstate(over="ignore"):
            narrowed = gguf.quants.quantize(x, kind)
        if format == "F16" and (np.isinf(narrowed) & np.isfinite(x)).any():
            raise ValueError(f"{name} holds a number too large for float16: use bf16 or f32")
        yield narrowed


def rope_factors(config: LlamaConfig) -> Any:
    """What llama.cpp divides each pair's frequency by, (K/2,) float32; None where that is not how it is scaled."""
    scaling = config.rope_scaling or {}
    if config.rope_type == "llama3":
        inv_freq = config.rope_theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
        stated = {**scaling, "original_max_position_embeddings": config.original_max_position_embeddings}
        return llama3_factors(inv_freq, stated).astype(np.float32)
    plain = config.rope_type == "longrope" and scaling["short_factor"] == scaling["long_factor"]
    if plain and scaling.get("attention_factor") == 1:  # as gguf_rope.py makes it of factors that have no name
        return np.asarray(scaling["short_factor"], np.float32)
    return None
