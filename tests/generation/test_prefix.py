"""PrefixEngine: the same numbers as an engine that begins anew, for fewer tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.generation import Continuation, Sampling, generate
from minillama.generation.prefix import PrefixEngine
from minillama.model.engine import NumpyEngine
from tests.tiny import ROPES, SIZES, assert_close, tiny_model


class Watched(NumpyEngine):
    """Notes what it is asked to compute, and can be interrupted in the middle of it."""

    prefilled: Sequence[int] = ()
    interrupt = False

    def prefill(self, rows: Sequence[Sequence[int]]) -> Array:
        (self.prefilled,) = rows
        return super().prefill(rows)

    def _append(self, ids: Array, mask: Array) -> Array:
        logits = super()._append(ids, mask)
        if self.interrupt:
            raise KeyboardInterrupt  # the cache has the ids already
        return logits


def engines(kind: str = "default") -> tuple[PrefixEngine, Watched, NumpyEngine]:
    """One that keeps its prefix, the one that it drives, and one to compare with."""
    model = tiny_model(**ROPES[kind])
    watched = Watched(model.decoder, model.weights)
    return PrefixEngine(watched), watched, model.new_engine()


def fresh(engine: NumpyEngine, ids: Sequence[int]) -> Array:
    engine.reset()
    return engine.prefill([ids])


IDS = st.lists(st.integers(0, 2), min_size=1, max_size=12)  # few ids, so that texts have beginnings in common


@pytest.mark.parametrize("kind", ROPES)
@given(texts=st.lists(st.tuples(IDS, st.lists(st.integers(0, 2), max_size=3)), min_size=2, max_size=5))
def test_any_texts_one_after_the_other(kind: str, texts: list[tuple[list[int], list[int]]]) -> None:
    kept, watched, other = engines(kind)
    held: list[int] = []
    for ids, decoded in texts:
        same = 0
        while same < min(len(held), len(ids) - 1) and held[same] == ids[same]:
            same += 1
        assert kept.common(ids) == same
        kept.reset()
        assert_close(kept.prefill([ids]), fresh(other, ids))
        assert list(watched.prefilled) == ids[same:]
        held = list(ids)
        for index in decoded:
            held.append(index)
            assert_close(kept.decode(np.array([index])), fresh(other, held))


def test_a_second_turn_reads_only_what_is_new() -> None:
    """As generation drives it: the prompt, the ids that it chose, and what the second turn adds to them."""
    kept, watched, other = engines()
    first, second = [1, 2, 3], [7, 8, 9]
    results: list[Continuation] = []
    list(generate(kept, [first], Sampling(), max_new_tokens=4, results=results))
    said = results[0].ids
    text = [*first, *said, *second]
    answers = []
    for engine in (kept, other):
        list(generate(engine, [text], Sampling(), max_new_tokens=6, results=results))
        answers.append(results[0].ids)
    assert list(watched.prefilled) == [said[-1], *second]  # the last id of an answer is not fed back
    assert answers[0] == answers[1]


@pytest.mark.parametrize("new", [[], [6, 7]], ids=["decoding", "reading"])
def test_an_interruption_leaves_what_was_there_before(new: list[int]) -> None:
    kept, watched, other = engines()
    kept.prefill([[1, 2, 3]])
    kept.decode(np.array([4]))
    watched.interrupt = True
    if new:
        kept.reset()
    with pytest.raises(KeyboardInterrupt):
        _ = kept.prefill([[1, 2, 3, 4, *new]]) if new else kept.decode(np.array([5]))
    watched.interrupt = False
    text = [1, 2, 3, 4, 5, 8]
    kept.reset()
    assert_close(kept.prefill([text]), fresh(other, text))
    assert list(watched.prefilled) == [5, 8]


def test_the_same_text_again_needs_its_last_token_only() -> None:
    kept, watched, _ = engines()
    for _ in range(2):
        kept.reset()
        logits = kept.prefill([[3, 1, 2]])
    assert list(watched.prefilled) == [2]
    assert logits.shape == (1, SIZES["vocab_size"])


def test_it_is_an_engine_in_all_else() -> None:
    kept, _, other = engines()
    assert (kept.vocab_size, kept.context_length) == (other.vocab_size, other.context_length)
    kept.prefill([[1, 2]])
    assert_close(kept.prefill([[3, 4]]), fresh(other, [1, 2, 3, 4]))  # without a reset, more of the same text
    kept.keep([0])
    kept.cut(3)
    assert_close(kept.decode(np.array([5])), fresh(other, [1, 2, 3, 5]))
    with pytest.raises(ValueError, match="that of one row, not of 2"):
        kept.prefill([[1], [2]])
