"""Quantized matrices: numbers of 8 or 4 bits in groups with a scale, arranged as minillama.layout says."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from minillama.arrays import Array
from minillama.layout import GROUP, OFFSET, TILE, rounded_up, tile_bytes


class QuantizedTensor:
    """A matrix (n_out, width) in q8_0 or q4_0, its bytes and its scales in memory or mapped."""

    def __init__(self, form: str, shape: tuple[int, int], numbers: Array, scales: Array, error: float | None = None):
        self.form, self.shape, self.error = form, shape, error
        self.dtype = form.upper()
        self.numbers, self.scales = numbers.reshape(-1), scales.reshape(-1)
        tiles, groups = rounded_up(shape[0], TILE) // TILE, rounded_up(shape[1], GROUP) // GROUP
        if self.numbers.size != tiles * groups * tile_bytes(form) or self.scales.size != tiles * groups * TILE:
            raise ValueError(f"{self.numbers.size} bytes and {self.scales.size} scales are no {form} matrix of {shape}")

    def stored(self) -> Array:
        """The bytes."""
        return self.numbers

    def read(self, dtype: DTypeLike, rows: Array | None = None) -> Array:
        """The whole, or some rows, as floats of `dtype`."""
        wanted = np.arange(self.shape[0]) if rows is None else rows
        out = np.empty((*wanted.shape, self.shape[1]), dtype)
        tiles = wanted // TILE
        for start in np.unique(tiles // 64).tolist():  # some tiles at a time: memory for one group of them
            here = tiles // 64 == start
            floats = self._tiles(start * 64, start * 64 + 64)
            out[here] = floats[wanted[here] - start * 64 * TILE]
        return out

    def _tiles(self, first: int, last: int) -> Array:
        """Rows of tiles first .. last - 1, float32."""
        groups = rounded_up(self.shape[1], GROUP) // GROUP
        size = groups * tile_bytes(self.form)
        stored = self.numbers[first * size : last * size]
        if self.form == "q4_0":
            half = stored.reshape(-1, groups, GROUP // 8, TILE, 4)
            stored = np.concatenate((half & 15, half >> 4), axis=2)
        whole = stored.reshape(-1, groups, GROUP // 4, TILE, 4).astype(np.float32) - OFFSET[self.form]
        scales = self.scales[first * groups * TILE : last * groups * TILE].astype(np.float32)
        rows = whole.transpose(0, 3, 1, 2, 4).reshape(-1, TILE, groups, GROUP)
        rows *= scales.reshape(-1, groups, TILE).swapaxes(1, 2)[..., None]
        return np.asarray(rows.reshape(-1, groups * GROUP)[:, : self.shape[1]])
