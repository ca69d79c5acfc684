"""Perplexity by its definition, one token at a time, and which tokens each recipe predicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.debug.perplexity import Perplexity, Window, halves, predictions, standard_error, strided_windows, windows
from minillama.model.ops import softmax
from tests.tiny import random_ids, tiny_model


@given(st.integers(2, 200), st.integers(2, 50), st.data())
def test_strided_windows_predict_every_token_but_those_with_nothing_before_them(
    tokens: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    plan = list(strided_windows(tokens, context, stride))
    predicted = [i for window in plan for i in range(window.first, window.stop)]
    unread = {0} if stride < context else set(range(0, tokens, stride))  # side by side, each has a first token
    assert predicted == sorted(set(range(tokens)) - unread)
    assert all(window.stop - window.start <= context for window in plan)
    for window in plan[1:]:  # half a context and more stands before what is predicted
        assert window.first - window.start >= min(context - stride, window.first)


def test_strided_windows_by_hand() -> None:
    """Of 10 tokens, 6 at a time, 4 apart. The weights are one less than the new tokens."""
    assert list(strided_windows(10, 6, 4)) == [Window(0, 6, 1, 5), Window(4, 10, 6, 3)]
    assert list(strided_windows(10, 6, 5)) == [Window(0, 6, 1, 5), Window(5, 10, 6, 3)]
    assert list(strided_windows(10, 6, 6)) == [Window(0, 6, 1, 5), Window(6, 10, 7, 3)]
    assert list(strided_windows(3, 6, 4)) == [Window(0, 3, 1, 2)]


def test_halves_by_hand() -> None:
    """Of two windows of 8, tokens 5, 6, 7 of each, after the half of the window; the 17th fills none."""
    assert list(halves(17, 8)) == [Window(0, 8, 5, 3), Window(8, 16, 13, 3)]
    assert list(halves(14, 7)) == [Window(0, 7, 4, 3), Window(7, 14, 11, 3)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("strided", 10, 6, 1), "stride must be between 2 and the context of 6 tokens, not 1"),
        (("strided", 10, 6, 7), "not 7"),
        (("strided", 1, 6, 3), "a text of 1 tokens has nothing to predict"),
        (("llama.cpp", 11, 6, 3), "takes two contexts of 6 tokens each"),
        (("other", 11, 6, 3), "recipe must be one of strided, llama.cpp, not 'other'"),
    ],
)
def test_windows_that_there_are_not(arguments: tuple[str, int, int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        windows(*arguments)


@pytest.mark.parametrize("bos", [None, 5])
def test_predictions_are_the_model_s_own(bos: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the parts, each token by a pass over exactly what its window has before it."""
    model, ids = tiny_model(), random_ids(1, 21)
    for chunk, rows in ((3, 100), (4, 2), (100, 3), (100, 0)):
        monkeypatch.setattr("minillama.debug.perplexity.CHUNK", chunk)
        monkeypatch.setattr("minillama.debug.perplexity.NUMBERS", rows * model.config.vocab_size)
        for window in strided_windows(21, 9, 5):
            seen = list(predictions(model, ids, window, bos))
            log_p, came = np.concatenate([part for part, _ in seen]), np.concatenate([part for _, part in seen])
            assert came.tolist() == ids[window.first : window.stop].tolist()
            for row, place in zip(log_p, range(window.first, window.stop), strict=True):
                before = ids[window.start : place].copy()
                if bos is not None:
                    before[0] = bos
                # Two orders of the same float64 sums
                np.testing.assert_allclose(np.exp(row), softmax(model(before[None]).logits[0, -1]), atol=1e-12)


def test_the_mean_of_a_recipe() -> None:
    scores = Perplexity()
    scores.add(Window(0, 4, 1, 3), [1.0, 2.0, 6.0])
    scores.add(Window(2, 7, 4, 2), [0.5, 0.25, 4.5])
    assert scores.perplexity == pytest.approx(math.exp((3 * 3 + 1.75 * 2) / 5))
    assert math.isnan(scores.bits_per_byte)
    other = Perplexity(size=3)
    other.add(Window(0, 2, 1, 1), [7.0])
    scores.merge(other)
    assert scores.nll == [1, 2, 6, 0.5, 0.25, 4.5, 7]
    assert scores.perplexity == pytest.approx(math.exp((3 * 3 + 1.75 * 2 + 7) / 6))
    assert scores.bits_per_byte == pytest.approx(21.25 / math.log(2) / 3)


def test_a_perplexity_beyond_any_number() -> None:
    hopeless, nothing = Perplexity(), Perplexity()
    hopeless.add(Window(0, 2, 1, 1), [1e6])
    nothing.add(Window(0, 2, 1, 0), [1.0])
    assert hopeless.perplexity == math.inf
    assert math.isnan(nothing.perplexity)


def test_the_standard_error() -> None:
    """Of 1, 2, 6 by hand: the squares of -2, -1, 3 add up to 14, of two degrees of freedom."""
    assert standard_error([1.0, 2.0, 6.0]) == pytest.approx(math.sqrt(14 / 2 / 3))
    assert math.isnan(standard_error([1.0]))
    scores = Perplexity()
    scores.add(Window(0, 4, 1, 3), [1.0, 2.0, 6.0])
    assert scores.error == pytest.approx(math.exp(3) * math.sqrt(7 / 3))


def test_the_standard_error_is_how_far_means_scatter() -> None:
    """Of 2,000 means of 50 numbers each, whose scatter is known to 1 / sqrt(2 * 2000) = 1.6 %."""
    draws = np.random.default_rng(0).exponential(3, (2000, 50))
    told = math.sqrt(np.mean([standard_error(row.tolist()) ** 2 for row in draws]))
    assert told == pytest.approx(np.std(draws.mean(axis=1)), rel=0.05)
