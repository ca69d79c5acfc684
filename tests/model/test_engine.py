import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minillama.model.engine
from minillama.arrays import Array
from minillama.llama import LlamaForCausalLM
from tests.tiny import ROPES, SEEDS, assert_close, random_ids, tiny_model


def alone(model: LlamaForCausalLM, row: list[int]) -> Array:
    """The logits after the last token of a row that is computed by itself, all at once."""
    return model([row]).logits[0, -1]


def random_rows(seed: int, lengths: list[int]) -> list[list[int]]:
    return [random_ids(seed + i, length).tolist() for i, length in enumerate(lengths)]


@pytest.mark.parametrize("kind", ROPES)
@given(SEEDS, st.lists(st.integers(1, 11), min_size=1, max_size=4))
def test_ragged_rows_run_as_they_would_alone(kind: str, seed: int, lengths: list[int]) -> None:
    model, rows = tiny_model(**ROPES[kind]), random_rows(seed, lengths)
    engine = model.new_engine()
    logits = engine.prefill(rows)
    for step in range(3):
        for row, got in zip(rows, logits, strict=True):
            assert_close(got, alone(model, row))
        new = random_ids(seed + 9 + step, len(rows))
        rows = [[*row, int(index)] for row, index in zip(rows, new, strict=True)]
        logits = engine.decode(new)
    for row, got in zip(rows, logits, strict=True):
        assert_close(got, alone(model, row))


@pytest.mark.parametrize("kind", ["default", "longrope"])
def test_long_prompts_are_cut_into_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = tiny_model(**ROPES[kind]), random_rows(50, [11, 2, 7])
    monkeypatch.setattr(minillama.model.engine, "CHUNK", 3)  # whole chunks of the short rows are padding
    logits = model.new_engine().prefill(rows)
    for row, got in zip(rows, logits, strict=True):
        assert_close(got, alone(model, row))


def test_a_second_prefill_goes_on() -> None:
    model, first, second = tiny_model(), random_rows(51, [5, 2]), random_rows(55, [1, 4])
    engine = model.new_engine()
    engine.prefill(first)
    logits = engine.prefill(second)
    for a, b, got in zip(first, second, logits, strict=True):
        assert_close(got, alone(model, a + b))


def test_rows_that_are_kept_go_on() -> None:
    model, rows = tiny_model(), random_rows(52, [3, 6, 4])
    engine = model.new_engine()
    engine.prefill(rows)
    engine.keep([0, 2])
    logits = engine.decode(np.array([5, 7]))
    assert_close(logits[0], alone(model, [*rows[0], 5]))
    assert_close(logits[1], alone(model, [*rows[2], 7]))


def test_cut_back_and_gone_on() -> None:
    model, rows = tiny_model(), random_rows(53, [6, 4])
    engine = model.new_engine()
    engine.prefill(rows)
    engine.decode(np.array([1, 2]))
    engine.cut(5)  # the second row is padded by two: its first three tokens are left
    logits = engine.decode(np.array([8, 9]))
    assert_close(logits[0], alone(model, [*rows[0][:5], 8]))
    assert_close(logits[1], alone(model, [*rows[1][:3], 9]))


@pytest.mark.parametrize("forget", ["reset", "cut"])
def test_after_forgetting_all_another_batch_may_come(forget: str) -> None:
    model, engine = tiny_model(), tiny_model().new_engine()
    engine.prefill(random_rows(54, [3, 5]))
    engine.reset() if forget == "reset" else engine.cut(0)
    (row,) = random_rows(56, [4])
    assert_close(engine.prefill([row])[0], alone(model, row))


def test_what_generation_is_told() -> None:
    engine = tiny_model(**ROPES["dynamic"]).new_engine()
    assert (engine.vocab_size, engine.context_length) == (37, 32)
