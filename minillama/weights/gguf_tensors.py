"""Tensors of a GGUF file in blocks: widened a few rows at a time, or rearranged for the kernels, the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.layout import QUANTIZED, TILE, rounded_up, tile_bytes, tile_scales
from minillama.weights.gguf_blocks import BLOCKS, Block
from minillama.weights.gguf_file import GGUFTensor
from minillama.weights.interleaved import InterleavedTensor
from minillama.weights.mapped import MappedFile
from minillama.weights.names import interleaved_to_halves
from minillama.weights.quantized import QuantizedTensor
from minillama.weights.safetensors import StoredTensor, Tensor
from minillama.weights.tiles import Parts, numbers_of, scales_of, to_parts

PIECE = 1 << 20  # weights that are widened at a time
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

    def all_blocks(self) -> tuple[Array, Array]:
        """The bytes of all rows as they lie in the file, (rows, blocks, bytes), and which of them each row is."""
        shape = (math.prod(self.shape[:-1]), self.shape[-1] // self.block.size, self.block.nbytes)
        stored, order = self.file.array("u1", shape, self.offset), np.arange(shape[0])
        return stored, order if self.heads is None else interleaved_to_halves(order, self.heads)

    def blocks(self, rows: Array | None = None) -> Array:
        """The bytes of some rows, or of all, (rows, blocks, bytes)."""
        stored, order = self.all_blocks()
        if rows is None:
            return stored if self.heads is None else stored[order]
        return stored[order[rows]]

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
    """A matrix in a format that the kernels have. They get its very numbers and scales, rearranged when they are asked
    for; rows of it are read where they are mapped."""

    def __init__(self, tensor: BlockTensor):
        self.tensor, self.made = tensor, None
        self.form, self.dtype = tensor.packed.lower(), tensor.packed
        self.shape: tuple[int, int] = (tensor.shape[0], tensor.shape[1])

    @property
    def numbers(self) -> Array:  # type: ignore[override]  # an attribute there
        """The bytes in tiles, made anew."""
        return self._in_tiles(numbers_of, tile_bytes(self.form), np.uint8)

    @property
    def scales(self) -> Array:  # type: ignore[override]
        """The scales in tiles, float16, made anew."""
        return self._in_tiles(scales_of, tile_scales(self.form), np.float16)

    def _in_tiles(self, take: Callable[[Parts], Array], size: int, dtype: DTypeLike) -> Array:
        n_out, blocks = self.shape[0], self.shape[1] // self.tensor.block.size
        made = np.empty((rounded_up(n_out, TILE) // TILE, blocks * size), dtype)
        step = 4 * TILE  # rows at a time: what the processor's caches hold
        for start in range(0, n_out, step):
            parts = to_parts(self.form, self.tensor.blocks(np.arange(start, min(start + step, n_out))))
            tiles = take(parts).reshape(-1, blocks * size)
            made[start // TILE : start // TILE + len(tiles)] = tiles
        return made.reshape(-1)

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        return self.tensor.read(dtype, rows)


def tensor_of(file: MappedFile, described: GGUFTensor, heads: int | None = None) -> Tensor:
    """A tensor of the file, as what reads it. heads: of a q or k projection, in Meta's rotary layout."""
    if FORMATS[described.kind].dequantize is None:
        plain = StoredTensor(file, described.kind, described.shape, described.offset)
        return plain if heads is None else InterleavedTensor(plain, heads)
    blocks = BlockTensor(file, described, heads)
    return TiledTensor(blocks) if described.kind.lower() in QUANTIZED and len(described.shape) == 2 else blocks
