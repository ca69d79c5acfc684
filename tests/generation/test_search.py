"""Greedy search, sampling and beam search on tiny models, against what their definitions give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.generation import GenerateOutput, GenerationConfig, Sampling, generate
from minillama.generation.loop import drive
from minillama.generation.processors import LogitsProcessorList
from minillama.generation.sampling import log_softmax
from minillama.generation.search import BeamSearch, Sampler
from minillama.generation.stopping import EosTokenCriteria, MaxLengthCriteria, StoppingCriteriaList
from minillama.llama import LlamaForCausalLM
from tests.tiny import SEEDS, random_ids, random_weights, tiny_config


def tiny(seed: int = 0, **overrides: Any) -> LlamaForCausalLM:
    """A tiny model that generates, in float64; no end of text unless a test sets one."""
    config = tiny_config(**overrides)
    model = LlamaForCausalLM(config, random_weights(config, seed), dtype="float64")
    model.generation_config = GenerationConfig(bos_token_id=1)
    return model


def log_probs(model: LlamaForCausalLM, ids: Any) -> Array:
    """(B, V) after the last of ids (B, T)."""
    return log_softmax(model.forward(ids).logits[:, -1])


def padded(rows: list[list[int]], side: str) -> tuple[Array, Array]:
    """ids and attention_mask of rows of different lengths; `side` is left, right or within."""
    T = max(map(len, rows))
    ids, mask = np.full((len(rows), T), 3), np.zeros((len(rows), T), int)
    for i, row in enumerate(rows):
        places = {"left": range(T - len(row), T), "right": range(len(row)), "within": [0, *range(T - len(row) + 1, T)]}
        ids[i, places[side]], mask[i, places[side]] = row, 1
    return ids, mask


# -- greedy -------------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_greedy_takes_the_likeliest_of_a_whole_forward_pass(seed: int) -> None:
    model, prompt = tiny(seed), random_ids(seed, 2, 5)
    expected = prompt
    for _ in range(6):
        expected = np.concatenate((expected, log_probs(model, expected).argmax(axis=1)[:, None]), axis=1)
    got = model.generate(prompt, max_new_tokens=6)
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.int64
    assert got.tolist() == expected.tolist()
    assert model.generate(prompt.tolist(), max_new_tokens=6, use_cache=False).tolist() == expected.tolist()


def test_rows_end_at_any_end_of_text_and_are_filled() -> None:
    model, prompt = tiny(3), random_ids(3, 3, 4)
    free = model.generate(prompt, max_new_tokens=8)
    ends = [int(free[0, 5]), int(free[1, 9])]
    got = model.generate(prompt, max_new_tokens=8, eos_token_id=ends, pad_token_id=0)
    lengths = [next((i for i in range(4, 12) if row[i] in ends), 11) + 1 for row in free]
    assert got.shape == (3, max(lengths))
    assert len(set(lengths)) > 1
    for row, full, length in zip(got, free, lengths, strict=True):
        assert row.tolist() == [*full[:length], *[0] * (len(row) - length)]
    assert (model.generate(prompt, max_new_tokens=8, eos_token_id=ends)[0, 6:] == ends[0]).all()  # the first is padding


class Watched:
    """An engine that notes how much it is given."""

    def __init__(self, engine: Any):
        self.engine, self.vocab_size, self.context_length = engine, engine.vocab_size, engine.context_length
        self.reset, self.keep, self.cut = engine.reset, engine.keep, engine.cut
        self.given: list[Any] = []

    def prefill(self, rows: Any) -> Array:
        self.given.append([len(row) for row in rows])
        return self.engine.prefill(rows)

    def decode(self, ids: Array) -> Array:
        self.given.append(len(ids))
        return self.engine.decode(ids)


@pytest.mark.parametrize(("how", "rows"), [({}, 2), ({"num_beams": 3}, 6), ({"do_sample": True}, 2)])
def test_prompts_are_read_once_and_every_new_id_once(how: dict[str, Any], rows: int) -> None:
    model = tiny()
    engine = Watched(model.new_engine())
    model.new_engine = lambda: engine  # type: ignore[method-assign,assignment,return-value]
    ids, mask = padded([[4, 5, 6], [7]], "left")
    model.generate(ids, attention_mask=mask, max_new_tokens=5, **how)
    assert engine.given == [[3, 1], rows, rows, rows, rows]


def test_rows_that_have_ended_cost_nothing() -> None:
    model, prompt = tiny(3), random_ids(3, 3, 4)
    end = int(model.generate(prompt, max_new_tokens=2)[1, 5])
    engine = Watched(model.new_engine())
    model.new_engine = lambda: engine  # type: ignore[method-assign,assignment,return-value]
    got = model.generate(prompt, max_new_tokens=5, eos_token_id=end)
    going = [(~(got[:, 4:step] == end).any(axis=1)).sum() for step in range(5, 9)]
    assert engine.given == [[4, 4, 4], *going]
    assert going[-1] < 3


# -- a batch ------------------------------------------------------------------------------------------------------


@given(
    SEEDS,
    st.lists(st.integers(1, 6), min_size=2, max_size=3),
    st.sampled_from(["left", "right", "within"]),
    st.sampled_from(
        [
            {},
            {"repetition_penalty": 1.7},
            {"no_repeat_ngram_size": 2},
            {"num_beams": 3, "early_stopping": True},
            {"num_beams": 2, "length_penalty": 2.0, "repetition_penalty": 1.7},
        ]
    ),
)
def test_rows_get_what_each_gets_alone(seed: int, lengths: list[int], side: str, how: dict[str, Any]) -> None:
    model = tiny(seed % 7)
    rows = [random_ids(seed + i, n).tolist() for i, n in enumerate(lengths)]
    ids, mask = padded(rows, side)
    # Padding is an id that is never chosen, so that a run of ids cannot be begun in it
    how = {"max_new_tokens": 6, "eos_token_id": list(range(5, 12)), "pad_token_id": 3, "bad_words_ids": [[3]], **how}
    together = model.generate(ids, attention_mask=mask, **how)
    assert together[:, : ids.shape[1]].tolist() == ids.tolist()
    for row, full in zip(rows, together, strict=True):
        alone = model.generate([row], attention_mask=[[1] * len(row)], **how)[0, len(row) :].tolist()
        new = full[ids.shape[1] :].tolist()
        assert new == alone + [3] * (len(new) - len(alone))


# -- sampling -----------------------------------------------------------------------------------------------------

# Of a chi-square distribution, by degrees of freedom: one honest seed in a thousand lies above
BEYOND = {6: 22.46, 9: 27.88}


def chi_square(counts: Array, probs: Array) -> float:
    expected = counts.sum() * probs
    assert expected.min() > 5  # else the distribution is another
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_draws_fit_the_probabilities(temperature: float) -> None:
    model = tiny(2, vocab_size=7)
    drawn = model.generate(
        [[4, 2]], do_sample=True, top_k=0, temperature=temperature, max_new_tokens=1, num_return_sequences=4000
    )
    probs = np.exp(log_softmax(log_probs(model, [[4, 2]])[0] / temperature))
    assert chi_square(np.bincount(drawn[:, 2], minlength=7), probs) < BEYOND[6]


def test_drawn_beams_are_drawn_without_replacement() -> None:
    """Of two beams after one step: the pair a, b comes with p(a) p(b) / (1 - p(a)), or in the other order."""
    model, rows = tiny(4, vocab_size=5), 2000
    drawn = model.generate(
        [[4, 2]] * rows, do_sample=True, top_k=0, temperature=3.0, max_new_tokens=1, num_beams=2, num_return_sequences=2
    )
    pairs = np.sort(drawn[:, 2].reshape(rows, 2), axis=1)
    p = np.exp(log_probs(model, [[4, 2]])[0] / 3)  # beams add log probabilities after the processors
    p /= p.sum()
    places = [(a, b) for a in range(5) for b in range(a + 1, 5)]
    expected = np.array([p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b]) for a, b in places])
    assert expected.sum() == pytest.approx(1)
    counts = np.array([((pairs[:, 0] == a) & (pairs[:, 1] == b)).sum() for a, b in places])
    assert counts.sum() == rows
    assert chi_square(counts, expected) < BEYOND[9]


def test_seeds() -> None:
    model = tiny()

    def draw(seed: int) -> list[list[int]]:
        return model.generate([[5, 6]], do_sample=True, seed=seed, max_new_tokens=9, num_return_sequences=3).tolist()

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    first, second, third = draw(7)
    assert first != second != third


@given(SEEDS)
def test_the_loop_that_makes_text_draws_the_same(seed: int) -> None:
    model, prompts = tiny(seed), [random_ids(seed, 3).tolist(), random_ids(seed + 1, 3).tolist()]
    results: list[Any] = []
    sampling = Sampling(repetition_penalty=1.3, temperature=0.9, top_k=9, top_p=0.8, min_p=0.05)
    for _ in generate(model.new_engine(), prompts, sampling, max_new_tokens=7, seed=5, results=results):
        pass
    how = {"repetition_penalty": 1.3, "temperature": 0.9, "top_k": 9, "top_p": 0.8, "min_p": 0.05}
    got = model.generate(prompts, do_sample=True, seed=5, max_new_tokens=7, **how)
    assert got[:, 3:].tolist() == [result.ids for result in results]


# -- beams --------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 8))
def test_one_beam_is_greedy(seed: int, new: int) -> None:
    model, prompts = tiny(seed), random_ids(seed, 2, 3)
    config = GenerationConfig(eos_token_id=[2, *range(20, 25)], max_length=3 + new)
    criteria = StoppingCriteriaList([MaxLengthCriteria(3 + new), EosTokenCriteria(config.eos_token_id)])
    outputs = []
    for kind in (BeamSearch, Sampler):
        search = kind(prompts, config, LogitsProcessorList(), criteria, 0)
        for _ in drive(model.new_engine(), prompts.tolist(), search.step):
            pass
        outputs.append(search.output().sequences.tolist())
    assert outputs[0] == outputs[1]


def every_continuation(
    model: LlamaForCausalLM, prompt: list[int], steps: int, end: int | None
) -> dict[tuple[int, ...], float]:
    """The log probability of every continuation that ends: with `end`, or after so many steps."""
    ended, going = {}, {(): 0.0}
    for step in range(steps):
        rows = list(going)
        logs = log_probs(model, [[*prompt, *row] for row in rows])
        longer = {(*row, i): going[row] + logs[r, i] for r, row in enumerate(rows) for i in range(logs.shape[1])}
        ended |= {row: score for row, score in longer.items() if row[-1] == end or step == steps - 1}
        going = {row: score for row, score in longer.items() if row not in ended}
    return ended


@given(SEEDS)
def test_as_many_beams_as_ids_find_the_best_of_two_steps(seed: int) -> None:
    V = 6
    model = tiny(seed, vocab_size=V)
    got = model.generate(
        [[4, 3, 5]], num_beams=V, num_return_sequences=V, max_new_tokens=2, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    assert isinstance(got, GenerateOutput)
    everything = every_continuation(model, [4, 3, 5], 2, None)
    assert len(everything) == V * V
    best = sorted(everything, key=lambda row: -everything[row])[:V]
    assert [tuple(row) for row in got.sequences[:, 3:].tolist()] == best
    # float64 rounds at 1e-16; a model and a sum of two make that 1e-13
    np.testing.assert_allclose(got.sequences_scores, [everything[row] / 2 for row in best], rtol=1e-10)


@given(SEEDS, st.sampled_from([-1.0, 0.0, 0.7, 2.0]))
def test_with_room_for_all_the_best_by_length_penalty_is_found(seed: int, penalty: float) -> None:
    """Four ids, one of them the end: 27 beams hold all that go on for three steps; "never" gives none of them up."""
    model = tiny(seed, vocab_size=4)
    got = model.generate(
        [[3, 1]], num_beams=27, max_new_tokens=3, length_penalty=penalty, early_stopping="never", eos_token_id=2,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    scores = {row: score / len(row) ** penalty for row, score in every_continuation(model, [3, 1], 3, 2).items()}
    best = max(scores, key=lambda row: scores[row])
    assert tuple(got.sequences[0, 2 : 2 + len(best)].tolist()) == best
    assert got.sequences_scores[0] == pytest.approx(scores[best], rel=1e-10)


def test_early_stopping() -> None:
    """True ends with num_beams finished ones; False when the best on its way is behind, at its present length; "never"
    goes on as long as a better one could come, at any length."""
    model = tiny(2)
    steps = {
        early: len(
            model.generate(
                [[5, 9]], num_beams=3, max_new_tokens=20, early_stopping=early,
                eos_token_id=list(range(2, 13)), return_dict_in_generate=True, output_logits=True,
            ).logits
        )
        for early in (True, False, "never")
    }  # fmt: skip
    assert steps[True] < steps[False] < steps["never"]


@given(SEEDS, st.sampled_from([-1.0, -0.3, 0.0]))
def test_where_length_is_no_gain_the_present_one_is_the_best_to_come(seed: int, penalty: float) -> None:
    never, heuristic = (
        tiny(seed % 50).generate(
            random_ids(seed, 1, 2), num_beams=2, max_new_tokens=12, length_penalty=penalty, early_stopping=early,
            eos_token_id=list(range(2, 9)), return_dict_in_generate=True, output_logits=True,
        )
        for early in ("never", False)
    )  # fmt: skip
    assert never.sequences.tolist() == heuristic.sequences.tolist()
    assert len(never.logits) == len(heuristic.logits)


def test_beams_are_traced_through_their_scores() -> None:
    """beam_indices name the row of `scores` each id came from: adding them up gives sequences_scores."""
    model = tiny(6)
    got = model.generate(
        random_ids(6, 2, 3), num_beams=3, num_return_sequences=2, max_new_tokens=7, length_penalty=0.5,
        eos_token_id=list(range(2, 7)), pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        output_logits=True,
    )  # fmt: skip
    assert got.sequences.shape[0] == got.beam_indices.shape[0] == 4
    np.testing.assert_allclose(log_softmax(got.logits[0]), got.scores[0], rtol=1e-10)
    assert np.abs(got.logits[0] - got.scores[0]).max() > 0.1
    assert (got.beam_indices == -1).any()
    for row, beams, score in zip(got.sequences[:, 3:], got.beam_indices, got.sequences_scores, strict=True):
        length = int((beams >= 0).sum())
        total = sum(got.scores[step][beams[step], row[step]] for step in range(length))
        assert score == pytest.approx(total / length**0.5, rel=1e-10)
        assert (row[length:] == 0).all()


def test_a_search_ends_at_the_last_step_whatever_the_penalty_promises() -> None:
    for penalty in (-100.0, 100.0):
        got = tiny().generate([[5, 9]], num_beams=2, max_new_tokens=3, length_penalty=penalty, early_stopping="never")
        assert got.shape == (1, 5)


def test_what_too_few_ids_leave_open() -> None:
    """One word is allowed, so one beam lives: the prompt alone stands for the others."""
    model = tiny(vocab_size=5)
    got = model.generate(
        [[3, 1]], num_beams=3, num_return_sequences=3, eos_token_id=2, pad_token_id=0, max_new_tokens=4,
        bad_words_ids=[[0], [1], [3], [4]], return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    assert got.sequences[0].tolist() == [3, 1, 2]
    assert got.sequences_scores[0] > -100
    assert (got.sequences_scores[1:] < -1e8).all()
    with pytest.raises(ValueError, match="no token left"):
        model.generate([[3, 1]], num_beams=2, no_repeat_ngram_size=1, bad_words_ids=[[0], [2], [4]])


def test_a_prompt_whose_beams_are_dead_leaves_the_others_alone() -> None:
    model, how = tiny(vocab_size=5), {"num_beams": 2, "no_repeat_ngram_size": 1, "eos_token_id": 2, "pad_token_id": 0}
    rows = [[0, 1, 3, 4], [4, 4, 4, 4]]  # nothing but the end can follow the first, and after that nothing
    got = model.generate(rows, max_new_tokens=4, **how)
    assert got[0, 4] == 2
    alone = model.generate(rows[1:], max_new_tokens=4, **how)[0].tolist()
    assert len(alone) > 5
    assert got[1].tolist() == alone


# -- what comes back ----------------------------------------------------------------------------------------------


def test_output_by_name_index_and_in_a_row() -> None:
    model = tiny()
    got = model.generate([[5, 6]], max_new_tokens=3, return_dict_in_generate=True, output_logits=True)
    assert got.keys() == ["sequences", "logits"]
    assert len(got) == len(got.to_tuple()) == 2
    assert got[0] is got["sequences"] is got.sequences
    assert [type(item) for item in got] == [np.ndarray, tuple]
    assert got["scores"] is None
    with pytest.raises(KeyError):
        got["attentions"]
    assert [logits.shape for logits in got.logits] == [(1, 37)] * 3


def test_scores_are_after_the_processors_and_logits_before() -> None:
    model, prompt = tiny(), [[5, 6]]
    got = model.generate(
        prompt, max_new_tokens=2, bad_words_ids=[[8]], return_dict_in_generate=True, output_logits=True,
        output_scores=True,
    )  # fmt: skip
    for step in range(2):
        expected = model.forward(got.sequences[:, : 2 + step]).logits[:, -1]
        np.testing.assert_allclose(got.logits[step], expected, rtol=1e-10)
        assert np.flatnonzero(np.isinf(got.scores[step])).tolist() == [8]


def test_logits_that_are_no_numbers() -> None:
    model = tiny()

    def broken(input_ids: Array, scores: Array) -> Array:
        return scores * np.nan

    for how in ({}, {"do_sample": True}, {"num_beams": 2}):
        with pytest.raises(ValueError, match="not finite"):
            model.generate([[5, 6]], logits_processor=broken, **how)
