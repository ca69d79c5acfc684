from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from minillama.kernels.probe import hand_over, sum_eight_streams, sum_four_streams


@pytest.mark.parametrize(("streams", "read"), [(4, sum_four_streams), (8, sum_eight_streams)])
@pytest.mark.parametrize("size", [0, 3, 4, 7, 8, 15, 400, 4099])
def test_every_word_is_read_but_a_few_at_the_end(size: int, streams: int, read: Any) -> None:
    words = np.random.default_rng(size).integers(0, 2**64, size, dtype=np.uint64)
    assert int(read(words)) == sum(words[: size // streams * streams].tolist()) % 2**64


def test_a_word_changes_hands_twice_each_time() -> None:
    word = np.zeros(1, np.int64)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda me: hand_over(word, me, 1000), (0, 1)))
    assert word == 2000
