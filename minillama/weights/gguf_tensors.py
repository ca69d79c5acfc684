"""Tensors of a GGUF file in blocks: widened a few rows at a time, or rearranged for the kernels, the same numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.layout import GROUP, QUANTIZED, TILE, rounded_up
from minillama.weights.gguf_blocks import BLOCKS, Block
from minillama.weights.gguf_file import GGUFTensor
from minillama.weights.interleaved import InterleavedTensor
from minillama.weights.mapped import MappedFile
from minillama.weights.names import interleaved_to_halves
from minillama.weights.quantized import QuantizedTensor
from minillama.weights.safetensors import StoredTensor, Tensor

PIECE = 1 << 20  # weights that are widened at a time
ZEROS = {"q8_0": 128, "q4_0": 8 | 8 << 4}  # bytes of zeros, with what is added to every number
FORMATS = {block.name: block for block in BLOCKS.values()}


class BlockTensor:
    """A tensor in one of ggml's formats of blocks, read as float32. heads: of q and k, whose rows are then reordered
    from Meta's rotary layout to Hugging Face's; a row is whole blocks, so nothing else changes."""

    dtype = "F32"  # what it is read as

    def __init__(self, file: MappedFile, described: GGUFTensor, heads: int | None = None):
        self.file, self.shape, self.packed = file, described.shape, described.kind
        self.offset, self.heads = described.offset, heads

    @property
    def block(self) -> Block:
        return FORMATS[self.packed]

    def blocks(self, rows: Array | None = None) -> Array:
        """The bytes of some rows, or of all, (rows, blocks, bytes)."""
        shape = (math.prod(self.shape[:-1]), self.shape[-1] // self.block.size, self.block.nbytes)
        stored = self.file.array("u1", shape, self.offset)
        if self.heads is not None:
            order = interleaved_to_halves(np.arange(len(stored)), self.heads)
            rows = order if rows is None else order[rows]
        return stored if rows is None else stored[rows]

    def stored(self, rows: Array | None = None) -> Array:
        return self.read(np.float32, rows)

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        if len(self.shape) == 1 and rows is not None:
            return self.read(dtype)[rows]
        wanted = np.arange(math.prod(self.shape[:-1]))[slice(None) if rows is None else rows]
        out = np.empty((*wanted.shape, self.shape[-1]), dtype)
        flat, step = out.reshape(-1, self.shape[-1]), max(1, PIECE // self.shape[-1])
        assert self.block.dequantize is not None
        for start in range(0, wanted.size, step):
            part = self.blocks(wanted.reshape(-1)[start : start + step]).reshape(-1, self.block.nbytes)
            with np.errstate(over="ignore", invalid="ignore"):  # NaN scales: the result shows them
                flat[start : start + step] = self.block.dequantize(part).reshape(-1, self.shape[-1])
        return out.reshape(self.shape) if rows is None else out


class TiledTensor(QuantizedTensor):
    """A matrix in Q8_0 or Q4_0. The kernels get its very numbers and scales, rearranged when they are asked for; rows
    of it are read where they are mapped."""

    def __init__(self, tensor: BlockTensor):
        self.tensor, self.made = tensor, None
        self.form, self.dtype = tensor.packed.lower(), tensor.packed
        self.shape: tuple[int, int] = (tensor.shape[0], tensor.shape[1])

    @property
    def numbers(self) -> Array:  # type: ignore[override]  # an attribute there
        """The bytes in tiles, made anew."""
        n_out, groups = self.shape[0], self.shape[1] // GROUP
        words = (GROUP if self.form == "q8_0" else GROUP // 2) // 4  # of four bytes, of a group in a row
        tiles = np.empty((rounded_up(n_out, TILE) // TILE, groups, words, TILE), np.uint32)
        step = 4 * TILE  # rows at a time: what the processor's caches hold
        for start in range(0, n_out, step):
            rows = np.arange(start, min(start + step, n_out))
            part = np.full((rounded_up(len(rows), TILE), groups, 4 * words), ZEROS[self.form], np.uint8)
            part[: len(rows)] = self.tensor.blocks(rows)[:, :, 2:]
            if self.form == "q8_0":
                part[: len(rows)] ^= 128  # which adds 128 to an int8
            by_row = part.view(np.uint32).reshape(-1, TILE, groups, words)
            tiles[start // TILE : start // TILE + len(by_row)] = by_row.transpose(0, 2, 3, 1)
        return tiles.reshape(-1).view(np.uint8)

    @property
    def scales(self) -> Array:  # type: ignore[override]
        """The scales in tiles, float16, made anew."""
        n_out, groups = self.shape[0], self.shape[1] // GROUP
        scales = np.zeros((rounded_up(n_out, TILE), groups), np.float16)
        scales[:n_out] = np.ascontiguousarray(self.tensor.blocks()[:, :, :2]).view("<f2")[..., 0]
        return np.ascontiguousarray(scales.reshape(-1, TILE, groups).swapaxes(1, 2)).reshape(-1)

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return self.tensor.read(dtype, rows)


def tensor_of(file: MappedFile, described: GGUFTensor, heads: int | None = None) -> Tensor:
    """A tensor of the file, as what reads it. heads: of a q or k projection, in Meta's rotary layout."""
    if FORMATS[described.kind].dequantize is None:
        plain = StoredTensor(file, described.kind, described.shape, described.offset)
        return plain if heads is None else InterleavedTensor(plain, heads)
    blocks = BlockTensor(file, described, heads)
    return TiledTensor(blocks) if described.kind.lower() in QUANTIZED and len(described.shape) == 2 else blocks
