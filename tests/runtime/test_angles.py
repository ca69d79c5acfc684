from __future__ import annotations

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.kernels.attention import KEYS
from minillama.kernels.llvm import LANES
from minillama.model.rope import Rotary
from minillama.runtime.angles import Angles, KeyAngles
from tests.tiny import ROPES, tiny_config

HALF = 3


def rotary(kind: str = "yarn") -> Rotary:
    """By default of a kind that scales cosines and sines."""
    return Rotary(tiny_config(**ROPES[kind]))


def written(keys: KeyAngles, positions: Array, length: int, inv_freq: Array) -> list[Array]:
    """Cosines and sines (length, K / 2) of the first keys, from where their addresses are."""
    angles = Angles(rotary())
    assert keys.extend(angles, positions, length, inv_freq) == (keys._cos.ctypes.data, keys._sin.ctypes.data)
    return [tiles.swapaxes(1, 2).reshape(-1, HALF)[:length] for tiles in (keys._cos, keys._sin)]


@pytest.mark.parametrize("count", [1, 2, 17, KEYS])
@pytest.mark.parametrize("kind", ROPES)
def test_angles_are_those_of_the_model_to_the_bit(kind: str, count: int) -> None:
    rng, model = np.random.default_rng(1), rotary(kind)
    positions = rng.integers(0, 1 << 20, count)
    inv_freq = model.inv_freq(positions[None, :1], 1).reshape(-1)[-HALF:]
    cos, sin = np.full((2, count, HALF), np.nan, np.float32)
    angles = Angles(model)
    angles.write(positions[::-1], inv_freq, cos, sin)  # what was computed before does not matter
    angles.write(positions, inv_freq, cos, sin)
    for ours, theirs in zip((cos, sin), model.angles(positions, inv_freq, np.float32), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_angles_of_keys_as_a_text_grows_is_cut_and_goes_on_elsewhere() -> None:
    rng, keys, model = np.random.default_rng(2), KeyAngles(), rotary()
    inv_freq, other = rng.random(HALF), rng.random(HALF)
    positions = rng.integers(0, 999, 3 * KEYS)
    for length, frequencies in ((1, inv_freq), (KEYS, inv_freq), (KEYS + 1, inv_freq), (100, other), (101, inv_freq)):
        for ours, theirs in zip(
            written(keys, positions, length, frequencies),
            model.angles(positions[:length], frequencies, np.float32),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
    positions[70:] += 5
    keys.forget(70)
    theirs = model.angles(positions[:110], inv_freq, np.float32)
    np.testing.assert_array_equal(written(keys, positions, 110, inv_freq), theirs)


def test_angles_that_are_there_are_not_computed_again() -> None:
    keys, positions = KeyAngles(), np.arange(4 * KEYS)
    written(keys, positions, 2 * KEYS, np.ones(HALF))
    keys._cos[:] = 7
    cos, _ = written(keys, positions, 2 * KEYS + 1, np.ones(HALF))
    assert (cos[: 2 * KEYS] == 7).all()
    assert cos[2 * KEYS, 0] == np.float32(np.cos(2 * KEYS) * rotary().scale)


def test_a_cache_with_more_room_has_angles_of_its_own() -> None:
    keys, inv_freq = KeyAngles(), np.array([0.5, 0.25, 0.125])
    written(keys, np.arange(KEYS), KEYS, inv_freq)
    cos, _ = written(keys, np.arange(2 * KEYS), KEYS + LANES, inv_freq)
    np.testing.assert_array_equal(cos, rotary().angles(np.arange(KEYS + LANES), inv_freq, np.float32)[0])
