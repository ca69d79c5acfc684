from __future__ import annotations

import numpy as np

from minillama.arrays import Array
from minillama.layout import rounded_up
from minillama.model.rope import Rotary
from minillama.runtime.batch import Append, Description, shape_of
from minillama.runtime.cache import RowCache
from tests.tiny import ROPES, tiny_config

CONFIG = tiny_config()


def row(length: int) -> RowCache:
    cache = RowCache(2, 2, 6, "f32")
    cache.reserve(length)
    cache.length = length
    return cache


def append(cache: RowCache, count: int, wanted: tuple[int, ...] = (), seen: Array | None = None) -> Append:
    return Append(cache, np.zeros((count, 16), np.float32), np.arange(count) * 2 + 7, wanted, seen)


def test_what_a_pass_is_told() -> None:
    appends = [append(row(5), 3, (0, 2)), append(row(70), 1), append(row(0), 2, (1,))]
    batch = Description(Rotary(CONFIG), "f32", shape_of(appends)).fill(appends)
    assert batch.sequence.tolist() == [0, 0, 0, 1, 2, 2]
    assert batch.place.tolist() == [5, 6, 7, 70, 0, 1]
    assert batch.start.tolist() == [0, 3, 4]
    assert batch.past.tolist() == [5, 70, 0]
    assert batch.capacity.tolist() == [one.cache.capacity for one in appends]
    assert batch.chosen.tolist() == [0, 2, 5]
    assert list(zip(batch.keys, batch.values, strict=True)) == [one.cache.addresses for one in appends]
    assert [one.cache.positions[one.cache.length] for one in appends] == [7, 7, 7]
    positions = np.array([7, 9, 11, 7, 7, 9])
    cos, sin = Rotary(CONFIG).angles(positions, Rotary(CONFIG).inv_freq(positions[None], 1), np.float32)
    np.testing.assert_array_equal(batch.cos.reshape(6, 3), cos)
    np.testing.assert_array_equal(batch.sin.reshape(6, 3), sin)
    tasks = {(b, g, r) for b, g, first, last in batch.tasks.tolist() for r in range(first, last)}
    assert tasks == {(b, g, r) for b, T in enumerate((3, 1, 2)) for g in range(2) for r in range(T * 2)}


def test_the_next_pass_of_the_same_shape_is_told_in_the_same_arrays() -> None:
    appends = [append(row(5), 1, (0,)), append(row(63), 1, (0,))]
    description = Description(Rotary(CONFIG), "f32", shape_of(appends))
    before = description.fill(appends)
    for one in appends:
        one.cache.length += 1
    after = description.fill(appends)  # the second cache has got more room, elsewhere
    assert after is before
    assert after.place.tolist() == [6, 64]
    assert after.capacity.tolist() == [64, 128]
    assert list(zip(after.keys, after.values, strict=True)) == [one.cache.addresses for one in appends]


def test_passes_have_one_shape_if_their_rows_and_what_is_wanted_of_them_are_the_same() -> None:
    cache = row(5)
    shape = shape_of([append(cache, 3, (2,))])
    assert shape_of([append(row(9), 3, (2,))]) == shape
    assert shape_of([append(cache, 2, (1,))]) != shape
    assert shape_of([append(cache, 3, (1,))]) != shape
    assert shape_of([append(cache, 3, (2,)), append(row(0), 3, (2,))]) != shape
    assert shape_of([append(cache, 3, (2,), np.ones(8))]) != shape


def test_flags_of_keys_are_whole_vectors() -> None:
    """16 are read at a time: the last of them are behind the last key, but not behind the array."""
    appends = [append(row(5), 3, seen=np.array([0, 1] * 4)), append(row(16), 1)]
    description = Description(Rotary(CONFIG), "f32", shape_of(appends))
    batch = description.fill(appends)
    some, all_seen = description._flags
    assert [(flags.dtype, flags.size) for flags in (some, all_seen)] == [(np.uint8, 16), (np.uint8, 32)]
    assert batch.flags.tolist() == [flags.ctypes.data for flags in (some, all_seen)]
    assert some[:8].tolist() == [0, 1] * 4
    assert all_seen[:17].all()


def test_keys_whose_positions_change_are_turned_anew() -> None:
    """After a cut the next tokens may be elsewhere: their angles, and those of no key before them, are others."""
    rotary, cache = Rotary(tiny_config(**ROPES["longrope"])), row(0)
    for past, positions in ((0, np.arange(20, 90)), (12, np.arange(70, 73))):
        cache.length = past
        appends = [Append(cache, np.zeros((len(positions), 16), np.float32), positions)]
        Description(rotary, "f32", shape_of(appends)).fill(appends)
    wanted = np.concatenate((np.arange(20, 32), np.arange(70, 73)))
    cos, sin = rotary.angles(wanted, rotary.inv_freq(wanted[:1], 15)[0], np.float32)
    angles = cache.key_angles
    for ours, theirs in ((angles._cos, cos), (angles._sin, sin)):
        rows = ours.swapaxes(1, 2).reshape(rounded_up(cache.capacity, 16), -1)
        np.testing.assert_array_equal(rows[:15], theirs)
