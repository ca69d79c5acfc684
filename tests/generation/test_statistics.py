from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from minillama.generation.statistics import STATS, TimedEngine


def test_tokens_are_counted_and_everything_else_passed_on() -> None:
    seen: list[Any] = []

    def prefill(rows: Sequence[Sequence[int]]) -> str:
        seen.append(rows)
        return "after the prompts"

    engine: Any = SimpleNamespace(
        vocab_size=7,
        context_length=9,
        prefill=prefill,
        decode=lambda ids: ids + 1,
        reset=None,
        keep=seen.append,
        cut=None,
    )
    timed = TimedEngine(engine, begin=0.0)
    assert (timed.vocab_size, timed.context_length) == (7, 9)
    assert timed.prefill([[1, 2, 3], [4]]) == "after the prompts"
    assert timed.decode(np.array([5, 6])).tolist() == [6, 7]
    timed.keep([1])
    assert timed.decode(np.array([6])).tolist() == [7]
    assert seen == [[[1, 2, 3], [4]], [1]]

    stats = timed.statistics()
    assert (stats["prompt_tokens"], stats["decode_tokens"]) == (4, 3)
    assert stats["peak_memory_mb"] > 10  # Python with NumPy takes more than that
    assert STATS.format(**stats).startswith("prompt: 4 tokens, ")
