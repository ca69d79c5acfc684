import numpy as np

from minillama.model.ops import linear, no_tap, scoped, softmax
from tests.tiny import assert_close


def test_softmax_of_known_odds() -> None:
    scores = np.log(np.array([[1.0, 2.0, 5.0]])) + 1000  # would overflow without the shift
    assert_close(softmax(scores), np.array([[0.125, 0.25, 0.625]]))


def test_softmax_of_nothing_is_zeros() -> None:
    scores = np.array([[-np.inf, -np.inf], [-np.inf, 3.0]])
    np.testing.assert_array_equal(softmax(scores), [[0, 0], [0, 1]])


def test_linear_takes_weights_as_out_by_in() -> None:
    x, weight, bias = (
        np.array([[1.0, -2.0]]),
        np.array([[3.0, 5.0], [7.0, 11.0], [0.5, 0.25]]),
        np.array([1.0, 2.0, 3.0]),
    )
    np.testing.assert_array_equal(linear(x, weight), [[-7.0, -15.0, 0.0]])
    np.testing.assert_array_equal(linear(x, weight, bias), [[-6.0, -13.0, 3.0]])


def test_a_scoped_tap_puts_its_prefix_before_every_name() -> None:
    seen: list[str] = []
    scoped(scoped(lambda name, _: seen.append(name), "layers.3."), "mlp.")("gate", np.zeros(1))
    assert seen == ["layers.3.mlp.gate"]
    assert scoped(no_tap, "mlp.") is no_tap
