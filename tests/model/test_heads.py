import math

import numpy as np
import pytest

from minillama.model.heads import causal_lm_loss, lm_logits, log_softmax
from tests.tiny import assert_close, spiky


def test_logits_are_dot_products_with_the_rows_of_the_head() -> None:
    rng = np.random.default_rng(30)
    hidden, head = spiky(rng, 2, 3, 5), spiky(rng, 7, 5)
    expected = [[[sum(h * w for h, w in zip(x, row, strict=True)) for row in head] for x in xs] for xs in hidden]
    assert_close(lm_logits(hidden, head), np.array(expected))


def test_the_loss_by_hand() -> None:
    """Position t predicts the label at t + 1: the first label and the last logits do not count."""
    quarter = math.log(3)  # of two tokens, the second is three times as likely
    logits = np.array([[[0, quarter], [quarter, 0], [9, -9]]])
    assert causal_lm_loss(logits, np.array([[0, 1, 0]])) == pytest.approx(-math.log(3 / 4), rel=1e-15)
    assert causal_lm_loss(logits, np.array([[0, 0, 0]])) == pytest.approx(
        -(math.log(1 / 4) + math.log(3 / 4)) / 2, rel=1e-15
    )  # float64 rounds at 1e-16, and there are two terms


def test_the_mean_is_over_the_labels_that_count() -> None:
    rng = np.random.default_rng(31)
    logits, labels = spiky(rng, 2, 4, 5), rng.integers(0, 5, (2, 4))
    labels[0, 2] = labels[1, 1:3] = -100
    each = [
        math.log(np.exp(logits[b, t]).sum()) - logits[b, t, labels[b, t + 1]]
        for b, t in ((0, 0), (0, 2), (1, 2))
    ]  # fmt: skip
    assert causal_lm_loss(logits, labels) == pytest.approx(sum(each) / 3, rel=1e-13)  # sums of some ten terms


@pytest.mark.parametrize("labels", [[[3, -100, -100]], [[-100, -100, -100]]])
def test_nothing_to_predict_is_nan(labels: list[list[int]]) -> None:
    assert math.isnan(causal_lm_loss(np.zeros((1, 3, 5)), np.array(labels)))


def test_a_single_token_predicts_nothing() -> None:
    assert math.isnan(causal_lm_loss(np.zeros((1, 1, 5)), np.array([[2]])))


@pytest.mark.parametrize("label", [5, -1, -99])
def test_a_label_outside_the_vocabulary(label: int) -> None:
    with pytest.raises(ValueError, match=rf"labels has {label}, outside the vocabulary 0..4"):
        causal_lm_loss(np.zeros((1, 3, 5)), np.array([[0, label, 1]]))


def test_log_softmax_of_what_softmax_rounds_to_zero() -> None:
    np.testing.assert_array_equal(log_softmax(np.array([0.0, -2000.0, 2000.0])), [-2000, -4000, 0])
