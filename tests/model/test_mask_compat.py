import math

import numpy as np
import pytest

from minillama.model.attention import visible_keys
from minillama.model.mask_compat import unseen_scores
from minillama.model.ops import softmax

MASK = np.array([[0, 0, 1, 1, 0], [1, 1, 1, 1, 1]])


def looked_at(T: int, S: int, mode: str) -> list[list[float]]:
    """What the queries of the first row attend to, all scores being equal, in shares."""
    visible = visible_keys(T, S, MASK[:, :S])
    scores = np.where(visible, np.zeros((2, 1, T, S)), unseen_scores(visible, MASK[:, :S], mode))
    return softmax(scores)[0, 0].round(3).tolist()


SEEING = [[0, 0, 1, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5, 0]]  # the queries that see something, in every mode


def test_by_default_a_query_that_sees_nothing_gets_nothing() -> None:
    assert looked_at(5, 5, "nothing") == [[0] * 5, [0] * 5, *SEEING]


def test_in_transformers_5_it_looks_at_everything() -> None:
    assert looked_at(5, 5, "everything") == [[0.2] * 5, [0.2] * 5, *SEEING]


def test_in_transformers_4_it_looks_at_padding_before_and_tokens_after_it() -> None:
    third = round(1 / 3, 3)
    assert looked_at(5, 5, "forbidden once") == [[third, 0, third, third, 0], [0.25] * 4 + [0], *SEEING]
    assert looked_at(1, 2, "forbidden once") == [[0.5, 0.5]]  # nothing comes after a single query


@pytest.mark.parametrize("mode", ["everything", "forbidden once"])
def test_without_padding_there_is_nothing_to_settle(mode: str) -> None:
    assert unseen_scores(visible_keys(5, 5), None, mode) == -math.inf
