"""llama2.c's `.bin` files: a header of seven numbers, then the tensors one after another, with no names.

Version 0, without a magic number, is what run.c runs; version 1 has the same float32 tensors in another order behind
a header of 256 bytes; version 2 has the matrices in 8 bits, for runq.c. docs/formats.md has each to the byte. Source:
export.py, run.c and runq.c of https://github.com/karpathy/llama2.c, whose rotary layout is Meta's.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.weights import names
from minillama.weights.interleaved import InterleavedTensor
from minillama.weights.magic import PICKLES, ZIP, impostor
from minillama.weights.mapped import MappedFile
from minillama.weights.names import EMBED_TOKENS, LM_HEAD, NORM
from minillama.weights.safetensors import StoredTensor, Tensor
from minillama.weights.source import Source

MAGIC = b"24ka"  # the number 0x616b3432, "ak42", its lowest byte first
HEADER = 256  # bytes, from version 1 on
RMS_NORM_EPS, ROPE_THETA = 1e-5, 1e4  # the file does not say: they are in run.c's code
MAX_LAYERS = 1000  # each takes more memory than the smallest take in a file
PLAUSIBLE = 1 << 20  # of the numbers of a header: above it, these bytes are something else

_FREQS = "freq_cis"  # the rotary angles' cosines and sines, (seq_len, K/2) each, which run.c skips too
_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "down_proj", "up_proj")
# What follows what. An attribute of a layer stands for all layers' tensors of that kind
_ORDER_0 = (
    EMBED_TOKENS, "input_norm", *_ATTENTION, "post_attention_norm", *_MLP, NORM, _FREQS, LM_HEAD,
)  # fmt: skip
_ORDER = ("input_norm", "post_attention_norm", NORM, EMBED_TOKENS, *_ATTENTION, *_MLP, LM_HEAD)


class GroupedTensor:
    """A matrix in 8 bits: numbers -127 .. 127, and a float32 scale for each `group` of them, row after row."""

    dtype = "F32"  # what it is read as

    def __init__(self, file: MappedFile, shape: tuple[int, int], group: int, offset: int):
        self.file, self.shape, self.group, self.offset = file, shape, group, offset

    @property
    def scales(self) -> Array:
        size = math.prod(self.shape)
        return self.file.array("<f4", (size // self.group,), self.offset + size)

    def stored(self, rows: Array | None = None) -> Array:
        return self.read(np.float32, rows)

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        numbers = self.file.array("i1", self.shape, self.offset)
        if rows is None:
            floats = numbers.reshape(-1, self.group) * self.scales[:, None]
            return floats.reshape(self.shape).astype(dtype, copy=False)
        # A group may run over the end of a row
        groups = (rows[..., None].astype(np.int64) * self.shape[1] + np.arange(self.shape[1])) // self.group
        return (numbers[rows] * self.scales[groups]).astype(dtype, copy=False)


class Header(NamedTuple):
    """What the file says of itself. start: where the tensors begin. group: of version 2, numbers that share a scale."""

    version: int
    config: LlamaConfig
    start: int
    group: int = 0


class Part(NamedTuple):
    """`number` tensors of one kind: that of all layers, or one of its own name."""

    kind: str
    shape: tuple[int, ...]
    number: int
    nbytes: int  # of one of them


def is_llama2c(path: Path, certainly: bool = False) -> bool:
    """Whether a .bin file is llama2.c's, by its first bytes: torch's, which are called so too, are zips or pickles.

    certainly: a file of neither kind counts only if its header has the magic number or seven plausible sizes.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
        return not certainly
    try:
        with open(path, "rb") as file:
            head = file.read(28)
    except OSError:  # opening it says why
        return not certainly
    return _is_plausible(head) or not (certainly or head.startswith((ZIP, *PICKLES)))


def _is_plausible(head: bytes) -> bool:
    """Whether a header is one, and not text or a pickle: 80 02 begins both a pickle and a version 0 of dim 640."""
    sizes = struct.unpack_from("<7i", head) if len(head) >= 28 else (0,)
    return head.startswith(MAGIC) or all(0 < abs(size) < PLAUSIBLE for size in sizes)


def open_llama2c(path: Path) -> Source:
    """The tensors of a .bin file of version 0, 1 or 2 (whose matrices are dequantized as they are read), mapped.

    The config is from the header, with run.c's own rms_norm_eps and rope_theta. ValueError or OSError that names the
    file if it is not sound: every size is checked, and together they must be the file's.
    """
    file = MappedFile(path)
    try:
        header = _read_header(file)
        parts = _parts(header)
        end = header.start + sum(part.number * part.nbytes for part in parts)
        if end != file.size:
            raise ValueError(f"its header asks for {end} bytes and it has {file.size}")
        if header.config.num_hidden_layers > MAX_LAYERS:
            raise ValueError(f"it has {header.config.num_hidden_layers} layers, more than the {MAX_LAYERS} allowed")
        tensors = dict(_tensors(file, header, parts))
        embedding = tensors[EMBED_TOKENS]
        if isinstance(embedding, GroupedTensor) and not (embedding.scales >= 0).all():
            raise ValueError(
                "its scales are not behind each matrix, where runq.c reads them (early exports: at the end)"
            )
    except ValueError as error:
        raise ValueError(f"{path} is not a sound llama2.c file: {error}; export it again") from None
    return Source(tensors, config=header.config, advice="get the file again")


def _read_header(file: MappedFile) -> Header:
    head = bytes(file.array("u1", (min(file.size, HEADER),), 0))
    if not _is_plausible(head) and (what := impostor(head)):
        raise ValueError(f"it is {what}")
    if not head.startswith(MAGIC):
        if len(head) < 28:
            raise ValueError(f"it has {len(head)} bytes, too few for a header")
        sizes = struct.unpack_from("<7i", head)
        return Header(
            0, _config(sizes, tied=sizes[5] > 0), 28
        )  # a negative vocab_size: the head is a matrix of its own
    if len(head) < HEADER:
        raise ValueError(f"it has {len(head)} bytes, too few for a header of {HEADER}")
    version, *numbers, tied, group = struct.unpack_from("<8iBi", head, 4)
    if version not in (1, 2):
        raise ValueError(f"it is of version {version}, and 0, 1 and 2 are known")
    if tied not in (0, 1) or numbers[5] < 0:
        raise ValueError(f"its shared_classifier is {tied} and its vocab_size {numbers[5]}")
    if version == 2 and group < 1:
        raise ValueError(f"its group size is {group}")
    return Header(version, _config(numbers, bool(tied)), HEADER, group if version == 2 else 0)


def _config(sizes: Sequence[int], tied: bool) -> LlamaConfig:
    dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len = sizes
    return LlamaConfig(
        hidden_size=dim,
        intermediate_size=hidden_dim,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
        vocab_size=abs(vocab_size),
        max_position_embeddings=seq_len,
        rms_norm_eps=RMS_NORM_EPS,
        rope_theta=ROPE_THETA,
        tie_word_embeddings=tied,
    )


def _parts(header: Header) -> list[Part]:
    """What the file has, in order, in Python's integers, of which none overflows."""
    config = header.config
    one_layer = LlamaConfig.from_dict(config.to_dict() | {"num_hidden_layers": 1})
    shapes = names.expected_shapes(one_layer) | {_FREQS: (config.max_position_embeddings, config.head_dim)}
    parts = []
    for kind in _ORDER_0 if header.version == 0 else _ORDER:
        if kind == LM_HEAD and config.tie_word_embeddings:
            continue
        of_layer = kind in names.LAYER
        shape = shapes[names.layer_name(0, kind) if of_layer else kind]
        size = nbytes = math.prod(shape)
        if header.group and len(shape) == 2:
            if size % header.group:
                raise ValueError(f"{kind} {shape} cannot be cut in groups of {header.group}")
            nbytes += size // header.group * 4
        else:
            nbytes *= 4
        parts.append(Part(kind, shape, config.num_hidden_layers if of_layer else 1, nbytes))
    return parts


def _tensors(file: MappedFile, header: Header, parts: list[Part]) -> Iterator[tuple[str, Tensor]]:
    config, offset = header.config, header.start
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for kind, shape, number, nbytes in parts:
        for layer in range(number):
            tensor: Tensor
            if header.group and len(shape) == 2:
                tensor = GroupedTensor(file, (shape[0], shape[1]), header.group, offset)
            else:
                tensor = StoredTensor(file, "F32", shape, offset)
            offset += nbytes
            if kind != _FREQS:
                name = names.layer_name(layer, kind) if kind in names.LAYER else kind
                yield name, InterleavedTensor(tensor, heads[kind]) if kind in heads else tensor
