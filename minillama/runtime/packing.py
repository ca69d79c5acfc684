"""Weights as kernels read them: floats where they lie, quantized ones in tiles."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from minillama.arrays import Array
from minillama.kernels.compressed import compress as pack_rows
from minillama.kernels.compressed import survey
from minillama.kernels.llvm import LANES
from minillama.kernels.quantize import quantize_tile
from minillama.kernels.tiles import Fields, fill_tiles
from minillama.layout import (
    BLOCK,
    COMPRESSED,
    GROUP,
    LEAST_ROWS,
    MADE,
    PACKED,
    QUANTIZED,
    TILE,
    WHOLE,
    WORDS,
    note_words,
    rounded_up,
    tile_bytes,
    tile_scales,
)
from minillama.weights.compressed import CompressedTensor
from minillama.weights.formats import narrow
from minillama.weights.gguf_tensors import BlockTensor, TiledTensor
from minillama.weights.quantized import Made, PackedTensor, QuantizedTensor
from minillama.weights.safetensors import Tensor
from minillama.weights.tiles import FIELDS, has_six_bits

# Number formats, each with the type of the array that kernels tell it by (see form_of in kernels/llvm.py)
KINDS: dict[str, Any] = {
    "f32": np.dtype(np.float32), "f16": np.dtype(np.int16), "bf16": np.dtype(np.uint16),
    COMPRESSED: np.dtype(np.uint32), **{form: np.dtype([(form, np.uint8)]) for form in QUANTIZED},
}  # fmt: skip
STORED = {"f32": "F32", "f16": "F16", "bf16": "BF16"}  # by the name of a Tensor's dtype
MEGABYTE = 1 << 18  # numbers, as float32


class Packed(NamedTuple):
    """A matrix for kernels/linear.py: its numbers, and the scales of a quantized one, or what is known of rows."""

    numbers: Array
    scales: Array

    @property
    def addresses(self) -> tuple[int, int]:
        return self.numbers.ctypes.data, self.scales.ctypes.data


def row_width(size: int, form: str) -> int:
    """Columns of a row of `size` numbers, with room for whole groups."""
    return rounded_up(size, GROUP if form in QUANTIZED else BLOCK if form == COMPRESSED else LANES)


def aligned(size: int, dtype: Any) -> Array:
    """Room for `size` numbers that begins where a vector may."""
    count = size * np.dtype(dtype).itemsize
    room = np.empty(count + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + count].view(dtype)


def pack(tensor: Tensor, form: str) -> Packed:
    """A matrix in a format. What is in it already is used where it lies, without a copy."""
    if form in PACKED and tensor.dtype != form.upper():
        raise ValueError(f"a {tensor.dtype} matrix is to be packed as {form} first")
    if form in QUANTIZED:
        assert isinstance(tensor, QuantizedTensor)
        if isinstance(tensor, TiledTensor):
            return _checked(_in_tiles(tensor.tensor, form), tensor.shape, form)
        return _checked(Packed(tensor.numbers.view(KINDS[form]), tensor.scales.view(np.int16)), tensor.shape, form)
    if form == COMPRESSED:
        assert isinstance(tensor, CompressedTensor)
        return _checked(Packed(tensor.numbers, tensor.rows), tensor.shape, form)
    return _checked(_floats(tensor, form), tensor.shape, form)


def _in_tiles(tensor: BlockTensor, form: str) -> Packed:
    """A matrix of a GGUF file's blocks, rearranged."""
    n_out, blocks = tensor.shape[0], tensor.shape[1] // tensor.block.size
    tiles = rounded_up(n_out, TILE) // TILE
    numbers = aligned(tiles * blocks * tile_bytes(form), np.uint8)
    scales = aligned(tiles * blocks * tile_scales(form), np.int16)
    stored, order = tensor.all_blocks()
    fill_tiles(
        stored.reshape(-1), order, blocks, _fields(form), 0, tiles, numbers.view(np.uint32), scales.view(np.uint8)
    )
    tensor.file.forget(tensor.offset, stored.nbytes)
    return Packed(numbers.view(KINDS[form]), scales)


def _fields(form: str) -> Fields:
    sizes = FIELDS[form]
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    fifth = WHOLE[form].bits == 5 and WHOLE[form].block == GROUP
    return Fields(
        size=sum(sizes.values()), low=starts["low"], low_words=sizes["low"] // 4, high=starts.get("high", 0),
        high_words=sizes.get("high", 0) // 4, flip=0x80808080 if form == "q8_0" else 0, fifth=fifth, d=starts["d"],
        m=starts.get("m", -1), parts=starts.get("scales", 0), n_parts=sizes.get("scales", 0),
        six_bits=has_six_bits(form), scales=WHOLE[form].scales,
    )  # fmt: skip


def _checked(packed: Packed, shape: tuple[int, ...], form: str) -> Packed:
    """ValueError unless a matrix fills its buffers: kernels read as far as its shape and format say, and nothing else
    stops them. What rows of bf16z say of where they lie, CompressedTensor has checked."""
    n_out, size = shape
    rows, width = max(n_out, LEAST_ROWS), row_width(size, form)
    if form in QUANTIZED:
        blocks = rounded_up(n_out, TILE) // TILE * (rounded_up(size, WHOLE[form].block) // WHOLE[form].block)
        right = (packed.numbers.size, packed.scales.size) == (blocks * tile_bytes(form), blocks * tile_scales(form))
    elif form == COMPRESSED:
        right = packed.numbers.size >= rows and packed.scales.size == rows * note_words(size)
    else:
        right = packed.numbers.size == rows * width
    if not right or packed.numbers.dtype != KINDS[form] or not all(part.flags.c_contiguous for part in packed):
        raise ValueError(
            f"{packed.numbers.size} {packed.numbers.dtype} and {packed.scales.size} scales are not a {form} matrix of "
            f"{n_out} x {size}"
        )
    return packed


def _floats(tensor: Tensor, form: str) -> Packed:
    """A matrix in a format of floats, widened or rounded from whatever it is stored in."""
    kind = KINDS[form]
    n_out, size = tensor.shape
    none = np.zeros(1, np.int16)
    stored = tensor.stored() if STORED[form] == tensor.dtype else None
    fits = size % LANES == 0 and n_out >= LEAST_ROWS
    if stored is not None and fits and stored.flags.aligned and stored.flags.c_contiguous:
        return Packed(stored.view(kind).reshape(-1), none)
    width = row_width(size, form)
    numbers = aligned(max(n_out, LEAST_ROWS) * width, kind).reshape(-1, width)
    numbers[:] = 0
    for start in range(0, n_out, 1024):
        rows = np.arange(start, min(start + 1024, n_out))
        part = _narrowed(tensor.read(np.float32, rows), form) if stored is None else stored[rows[0] : rows[-1] + 1]
        numbers[rows[0] : rows[-1] + 1, :size] = part.view(kind)
    return Packed(numbers.reshape(-1), none)


def _narrowed(x: Array, form: str) -> Array:
    """Floats in a format. ValueError if one is too large for it; what is infinite or none stays so, and the pass that
    meets it says which weight it is."""
    with np.errstate(over="ignore"):
        narrowed = narrow(x, STORED[form])
    if form == "f16" and (np.isinf(narrowed) & np.isfinite(x)).any():
        raise ValueError("it holds a number too large for float16: use dtype bf16 or f32")
    return narrowed


def packed(
    tensor: Tensor, form: str, threads: int = 1, *, progress: Callable[[int], object] = lambda numbers: None
) -> PackedTensor:
    """A matrix in a format of PACKED; see quantize and compress."""
    if form == COMPRESSED:
        return compress(tensor, threads, progress=progress)
    return quantize(tensor, form, threads, progress=progress)


def compress(
    tensor: Tensor, threads: int = 1, *, progress: Callable[[int], object] = lambda numbers: None
) -> CompressedTensor:
    """A matrix in bf16z: of bfloat16 every bit is kept, other numbers are rounded to that first."""
    n_out, size = tensor.shape
    n, blocks = max(n_out, LEAST_ROWS), rounded_up(size, BLOCK) // BLOCK
    notes, sizes = np.zeros((n, note_words(size)), np.int16), np.full(n, WORDS * blocks)
    step = max(1, MEGABYTE // size)
    starts = range(0, n_out, step)

    def bits(start: int) -> Array:
        rows = np.arange(start, min(start + step, n_out))
        if tensor.dtype == "BF16":
            return tensor.stored(rows)
        return narrow(tensor.read(np.float32, rows), "BF16")

    def look(start: int) -> None:
        survey(bits(start), notes[start : start + step], sizes[start : start + step])

    def write(start: int) -> None:
        part = bits(start)
        pack_rows(part, notes[start : start + step], places[start : start + step], numbers.view(np.uint8))
        progress(part.size)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(look, starts))
        head = rounded_up(n, 16)
        ends = head + np.cumsum(sizes)
        numbers, places = aligned(int(ends[-1]), np.uint32), ends - sizes
        numbers[:head] = 0
        numbers[:n] = places - np.arange(n)
        numbers[head + sizes[:n_out].sum() :] = 0  # rows that only fill up
        list(pool.map(write, starts))
    return CompressedTensor((n_out, size), numbers, notes, tensor)


def quantize(
    tensor: Tensor,
    form: str,
    threads: int = 1,
    *,
    search: bool = True,
    progress: Callable[[int], object] = lambda numbers: None,
) -> QuantizedTensor:
    """A matrix in q8_0 or q4_0, a tile at a time.

    search: whether the scales of q4_0 are searched for, or ggml's. progress is told how many numbers are done. The
    result's `made` says how large its error is, and with ggml's scales would be. ValueError if a weight is NaN or
    infinite.
    """
    if form not in MADE:
        raise ValueError(f"weights are quantized to {' or '.join(MADE)}, not to {form}")
    n_out, size = tensor.shape
    width, tiles = rounded_up(size, GROUP), rounded_up(n_out, TILE) // TILE
    numbers = aligned(tiles * width // GROUP * tile_bytes(form), np.uint8)
    scales = aligned(tiles * width // GROUP * TILE, np.int16)

    def some(first: int) -> Array:
        last = min(first + step, tiles)
        rows = np.zeros(((last - first) * TILE, width), np.float32)
        wanted = np.arange(first * TILE, min(last * TILE, n_out))
        rows[: len(wanted), :size] = tensor.read(np.float32, wanted)
        sums = np.zeros(3)
        for tile, part in enumerate(rows.reshape(last - first, -1), first):
            sums += quantize_tile(part, width, numbers, scales, tile, form == "q4_0", search)
        progress(len(wanted) * size)
        return sums

    step = max(1, MEGABYTE // (TILE * width))  # tiles at a time
    with ThreadPoolExecutor(threads) as pool:
        sums = np.array(list(pool.map(some, range(0, tiles, step))))
    errors, plain, squares = sums.sum(axis=0)
    if np.isinf(errors):
        raise ValueError(f"it holds a number too large for {form}, whose scales are float16: use another dtype")
    if np.isnan(errors):
        raise ValueError("it holds a NaN or an infinite number, and no scale fits that: get the weights again")
    made = Made(tensor, *(float(np.sqrt(part / squares)) if squares else 0.0 for part in (errors, plain)))
    return QuantizedTensor(form, (n_out, size), numbers, scales.view(np.float16), made)
