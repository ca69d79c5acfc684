"""Cosines and sines of rotary angles, written where kernels read them (the twin of Rotary.angles in model/rope.py)."""

from __future__ import annotations

import numpy as np

from minillama.arrays import Array
from minillama.kernels.attention import KEYS
from minillama.kernels.llvm import LANES
from minillama.model.rope import Rotary


class Angles:
    """Computes what Rotary.angles computes, to the bit, in room of its own."""

    def __init__(self, rotary: Rotary):
        self.rotary = rotary
        self._theta, self._wave = np.empty((2, KEYS, rotary.config.head_dim // 2))

    def write(self, positions: Array, inv_freq: Array, cos: Array, sin: Array) -> None:
        """Of up to KEYS positions (T,), with the frequencies (K/2,): into float32 arrays (..., K/2) with room for T."""
        theta, wave = self._theta[: len(positions)], self._wave[: len(positions)]
        theta[:] = positions[:, None]
        np.multiply(theta, inv_freq, out=theta)
        for function, out in ((np.cos, cos), (np.sin, sin)):
            function(theta, out=wave)
            np.multiply(wave, self.rotary.scale, out=wave)
            out[...] = wave.reshape(out.shape)


class KeyAngles:
    """By which the keys of one sequence are turned, where they are cached unturned: cos and sin, float32,
    [capacity / 16][K / 2][16]. What has been computed is kept as long as the frequencies stay."""

    def __init__(self) -> None:
        self.count = 0  # positions that have angles
        self.addresses = (0, 0)
        self._inv_freq = self._cos = self._sin = np.zeros(0, np.float32)

    def forget(self, length: int) -> None:
        """All but those of the first `length` positions."""
        self.count = min(self.count, length)

    def extend(self, angles: Angles, positions: Array, length: int, inv_freq: Array) -> tuple[int, int]:
        """The addresses of cos and sin for the first `length` positions, of which there are as many as the cache has
        room for. Those that have angles are as they were then; see forget."""
        if self._cos.size != len(positions) * len(inv_freq):
            self._cos, self._sin = np.zeros((2, len(positions) // LANES, len(inv_freq), LANES), np.float32)
            self.addresses = self._cos.ctypes.data, self._sin.ctypes.data
            self.count = 0
        if not np.array_equal(inv_freq, self._inv_freq):
            self._inv_freq, self.count = inv_freq, 0
        for start in range(self.count // KEYS * KEYS, length, KEYS):
            tiles = slice(start // LANES, (start + KEYS) // LANES)
            cos, sin = self._cos[tiles].swapaxes(1, 2), self._sin[tiles].swapaxes(1, 2)
            angles.write(positions[start : start + KEYS], inv_freq, cos, sin)
        self.count = length
        return self.addresses
