import math

import numpy as np
import pytest

from minillama.model.heads import (
    causal_lm_loss,
    classification_loss,
    infer_problem_type,
    lm_logits,
    log_softmax,
    pooled_tokens,
)
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


# -- classification -----------------------------------------------------------------------------------------------

PAD = 9
IDS = np.array([
    [4, 2, 9, 9],  # padded on the right
    [9, 9, 3, 5],  # on the left
    [1, 9, 6, 9],  # and inside, as where the end of a text serves as padding
    [9, 9, 9, 9],
    [7, 8, 1, 2],
])  # fmt: skip


def test_the_rightmost_token_that_is_no_padding_is_read() -> None:
    assert pooled_tokens(IDS, PAD).tolist() == [1, 3, 2, 0, 3]
    assert pooled_tokens(IDS, None).tolist() == [3] * 5


def test_the_token_before_the_first_padding_is_read_in_the_way_of_transformers_4() -> None:
    assert pooled_tokens(IDS, PAD, "before first pad").tolist() == [1, 3, 0, 3, 3]


@pytest.mark.parametrize(
    ("num_labels", "labels", "kind"),
    [
        (1, [1], "regression"),
        (1, [0.5], "regression"),
        (3, [2], "single_label_classification"),
        (2, [0], "single_label_classification"),
        (2, [[0.0, 1.0]], "multi_label_classification"),
        (3, [[1.0, 0.0, 1.0]], "multi_label_classification"),
    ],
)
def test_what_kind_of_problem_labels_make(num_labels: int, labels: list[float], kind: str) -> None:
    assert infer_problem_type(num_labels, np.array(labels)) == kind


def test_classification_losses_by_hand() -> None:
    logits = np.array([[0.0, math.log(3)], [math.log(4), 0.0]])
    # probabilities (1/4, 3/4) and (4/5, 1/5)
    one = classification_loss(logits, np.array([0, 0]), "single_label_classification")
    assert one == pytest.approx(-(math.log(1 / 4) + math.log(4 / 5)) / 2, rel=1e-14)  # a few roundings of 1e-16
    ignored = classification_loss(logits, np.array([0, -100]), "single_label_classification")
    assert ignored == pytest.approx(-math.log(1 / 4), rel=1e-14)
    # sigmoids of log 3 and log 4 are 3/4 and 4/5, of 0 one half
    several = classification_loss(logits, np.array([[1, 1], [0, 1]]), "multi_label_classification")
    expected = -(math.log(1 / 2) + math.log(3 / 4) + math.log(1 / 5) + math.log(1 / 2)) / 4
    assert several == pytest.approx(expected, rel=1e-14)
    squares = classification_loss(np.array([[1.0, -2.0], [3.0, 0.5]]), np.array([[0, 1], [3, 1]]), "regression")
    assert squares == (1 + 9 + 0 + 0.25) / 4
    assert classification_loss(np.array([[3.0], [1.0]]), np.array([2.0, 4.0]), "regression") == (1 + 9) / 2


def test_no_exponential_overflows_in_the_loss_of_several_labels() -> None:
    logits = np.array([[800.0, -800.0]])
    assert classification_loss(logits, np.array([[1.0, 0.0]]), "multi_label_classification") == 0
    assert classification_loss(logits, np.array([[0.0, 1.0]]), "multi_label_classification") == 800


@pytest.mark.parametrize(
    ("labels", "problem", "message"),
    [
        ([0, 1, 1], "single_label_classification", r"must have the shape \(2,\), not \(3,\)"),
        ([0, 2], "single_label_classification", r"labels has 2, outside the classes 0\.\.1"),
        ([0.0, 1.0], "single_label_classification", "must be integers, not float64"),
        ([0.0, 1.0], "multi_label_classification", r"must have the shape \(2, 2\)"),
        ([0.0, 1.0], "regression", r"must have the shape \(2, 2\)"),
        (["a", "b"], "regression", "labels for regression must be numbers, not <U1"),
        ([[None] * 2] * 2, "multi_label_classification", "must be numbers, not object"),
        ([1j, 0], "single_label_classification", "must be numbers, not complex128"),
        ([[0, 1], [1, 0]], "single_label_classification", r"must have the shape \(2,\), not \(2, 2\)"),
        ([0, 1], "guessing", "problem_type must be one of regression, .*, not 'guessing'"),
    ],
)
def test_labels_that_do_not_fit(labels: list[float], problem: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_loss(np.zeros((2, 2)), np.array(labels), problem)
