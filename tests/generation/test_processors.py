"""What each processor does; tests/oracle holds all of them to transformers' over drawn scores."""

from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.generation import (
    GenerationConfig,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from minillama.generation.processors import logits_processors

IDS = np.array([[9, 9, 4, 1, 4], [3, 1, 2, 3, 1]])
ZEROS = np.zeros((2, 6))


def banned(scores: Array) -> list[list[int]]:
    return [np.flatnonzero(row == -np.inf).tolist() for row in scores]


def test_repetition_counts_the_prompt_but_not_its_padding() -> None:
    scores = np.array([[1.0, 2, 3, -4, 5, -6], [1.0, 2, 3, -4, 5, -6]])
    ids = np.array([[5, 5, 2, 3], [1, 2, 3, 4]])  # the first row has two of padding
    expected = [[1, 2, 1.5, -8, 5, -6], [1, 1, 1.5, -8, 2.5, -6]]
    np.testing.assert_array_equal(RepetitionPenaltyLogitsProcessor(2, np.array([2, 0]))(ids, scores), expected)
    np.testing.assert_array_equal(RepetitionPenaltyLogitsProcessor(2, 4)(ids, scores), scores)
    assert RepetitionPenaltyLogitsProcessor(2)(ids, scores)[0, 5] == -12


@pytest.mark.parametrize(
    ("size", "expected"), [(1, [[1, 4], [1, 2, 3]]), (2, [[1], [2]]), (3, [[], [2]]), (4, [[], []])]
)
def test_no_run_comes_twice(size: int, expected: list[list[int]]) -> None:
    assert banned(NoRepeatNGramLogitsProcessor(size)(IDS, ZEROS)) == expected


def test_a_run_longer_than_the_text() -> None:
    assert banned(NoRepeatNGramLogitsProcessor(5)(IDS[:, :4], ZEROS)) == [[], []]
    assert banned(NoRepeatNGramLogitsProcessor(9)(IDS, ZEROS)) == [[], []]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([[3]], [[3], [3]]),
        ([[4, 2], [1, 5]], [[2], [5]]),  # the first is begun in row 0, the second in row 1
        ([[1, 4, 0], [3, 1, 0]], [[0], [0]]),
        ([[4, 4, 4, 4, 4, 4, 0]], [[], []]),  # longer than the text
        ([[2]], [[], []]),  # the end of text alone is no word
        ([[2], [1, 2]], [[], [2]]),
    ],
)
def test_bad_words(words: list[list[int]], expected: list[list[int]]) -> None:
    assert banned(NoBadWordsLogitsProcessor(words, 2)(IDS, ZEROS)) == expected


def test_a_bad_word_outside_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"bad_words_ids has the id 6, outside the vocabulary 0\.\.5"):
        NoBadWordsLogitsProcessor([[1, 6]])(IDS, ZEROS)


def test_no_end_before_its_time() -> None:
    assert banned(MinLengthLogitsProcessor(6, [2, 5])(IDS, ZEROS)) == [[2, 5], [2, 5]]
    assert banned(MinLengthLogitsProcessor(5, 2)(IDS, ZEROS)) == [[], []]
    assert banned(MinNewTokensLengthLogitsProcessor(3, 3, 2)(IDS, ZEROS)) == [[2], [2]]
    assert banned(MinNewTokensLengthLogitsProcessor(3, 2, 2)(IDS, ZEROS)) == [[], []]


def test_what_falls_away_gets_the_filter_value() -> None:
    scores = np.log([[0.1, 0.4, 0.5], [0.7, 0.1, 0.2]])
    for warper in (TopKLogitsWarper(2, -9.0), TopPLogitsWarper(0.8, -9.0), MinPLogitsWarper(0.25, -9.0)):
        expected = np.where(scores == np.log(0.1), -9, scores)
        np.testing.assert_array_equal(warper(IDS, scores), expected)
    assert (TypicalLogitsWarper(0.3, -9.0)(IDS, scores) == -9).sum(axis=1).tolist() == [2, 2]
    np.testing.assert_array_equal(TemperatureLogitsWarper(2)(IDS, scores), scores / 2)


def test_top_k_keeps_no_fewer_than_it_must() -> None:
    scores = np.array([[1.0, 2, 3, 4]])
    assert banned(TopKLogitsWarper(1, min_tokens_to_keep=3)(IDS, scores)) == [[0]]
    assert banned(TopKLogitsWarper(0, min_tokens_to_keep=3)(IDS, scores)) == [[]]


@pytest.mark.parametrize(
    "processor",
    [
        RepetitionPenaltyLogitsProcessor(1.5),
        NoRepeatNGramLogitsProcessor(1),
        NoBadWordsLogitsProcessor([[3]]),
        MinLengthLogitsProcessor(9, 2),
        TemperatureLogitsWarper(0.5),
        TopKLogitsWarper(2),
        TopPLogitsWarper(0.5),
        MinPLogitsWarper(0.5),
        TypicalLogitsWarper(0.5),
    ],
    ids=lambda processor: type(processor).__name__,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_keep_their_type_and_what_was_given_stays(processor: Any, dtype: type) -> None:
    scores = np.random.default_rng(1).normal(size=(2, 6)).astype(dtype)
    before = scores.copy()
    changed = processor(IDS, scores)
    assert changed.dtype == dtype
    assert (changed != scores).any()
    np.testing.assert_array_equal(scores, before)


def test_the_order_of_processors() -> None:
    config = GenerationConfig(
        repetition_penalty=2.0, no_repeat_ngram_size=2, bad_words_ids=[[3]], min_length=4, eos_token_id=[2, 5],
        do_sample=True, temperature=0.5, top_p=0.9, min_p=0.1, typical_p=0.8,
    )  # fmt: skip

    def own(input_ids: Array, scores: Array) -> Array:
        return scores

    processors = logits_processors(config, np.array([0]), 3, [own])
    assert [getattr(type(one), "__name__", "") if one is not own else "own" for one in processors] == [
        "RepetitionPenaltyLogitsProcessor", "NoRepeatNGramLogitsProcessor", "NoBadWordsLogitsProcessor",
        "MinLengthLogitsProcessor", "own", "TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper",
        "MinPLogitsWarper", "TypicalLogitsWarper",
    ]  # fmt: skip
    config.do_sample = False
    assert len(logits_processors(config, np.array([0]), 3)) == 4
    config.min_new_tokens = 2  # is stronger than min_length
    assert isinstance(logits_processors(config, np.array([0]), 3)[-1], MinNewTokensLengthLogitsProcessor)
    assert len(logits_processors(config, np.array([0]), 3)) == 4
    config.eos_token_id = None  # with no end of text there is none to ban
    assert len(logits_processors(config, np.array([0]), 3)) == 3
    assert logits_processors(GenerationConfig(), np.array([0]), 3) == []


@pytest.mark.parametrize(("num_beams", "eos", "least"), [(1, [2, 3], 1), (2, [2, 3], 3), (2, 2, 2), (2, None, 2)])
def test_beams_need_more_than_the_ends_of_text(num_beams: int, eos: Any, least: int) -> None:
    config = GenerationConfig(do_sample=True, top_k=1, num_beams=num_beams, eos_token_id=eos)
    (top_k,) = logits_processors(config, np.array([0]), 3)
    assert len(banned(top_k(IDS, np.arange(12.0).reshape(2, 6)))[0]) == 6 - least


def test_one_of_the_same_class_takes_the_place() -> None:
    config = GenerationConfig(no_repeat_ngram_size=3, bad_words_ids=[[3]])
    mine, also = NoRepeatNGramLogitsProcessor(1), MinLengthLogitsProcessor(9, 2)
    processors = logits_processors(config, np.array([0]), 3, [also, mine])
    assert processors[0] is mine
    assert isinstance(processors[1], NoBadWordsLogitsProcessor)
    assert processors[2:] == [also]


def test_a_processor_that_loses_a_row_is_named() -> None:
    def first_row(input_ids: Array, scores: Array) -> Array:
        return scores[:1]

    with pytest.raises(ValueError, match=r"first_row.*shape \(1, 6\).*\(2, 6\)"):
        LogitsProcessorList([first_row])(IDS, ZEROS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepetitionPenaltyLogitsProcessor(0), "repetition_penalty"),
        (lambda: NoRepeatNGramLogitsProcessor(-1), "no_repeat_ngram_size"),
        (lambda: NoBadWordsLogitsProcessor([[]]), "bad_words_ids"),
        (lambda: TemperatureLogitsWarper(0), "do_sample=False"),
        (lambda: TopKLogitsWarper(-1), "top_k"),
        (lambda: TopPLogitsWarper(1.5), "top_p"),
        (lambda: MinPLogitsWarper(0.5, min_tokens_to_keep=0), "min_tokens_to_keep"),
        (lambda: TypicalLogitsWarper(0), "typical_p"),
    ],
)
def test_settings_that_make_no_sense(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
