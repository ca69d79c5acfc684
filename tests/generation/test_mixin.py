"""The arguments of generate: where settings come from, what is refused, who is called with what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.generation import GenerationConfig, MaxLengthCriteria, NoRepeatNGramLogitsProcessor
from minillama.generation.config import DEFAULTS
from minillama.generation.mixin import _INSTEAD
from tests.generation.test_search import tiny
from tests.tiny import random_ids

PROMPT = [[5, 6, 7]]


def length(how: dict[str, Any] | None = None, **own: Any) -> int:
    model = tiny()
    model.generation_config = GenerationConfig(bos_token_id=1, **own)
    return int(model.generate(PROMPT, **how or {}).shape[1])


def test_how_long_a_text_gets() -> None:
    assert length() == 23
    assert length({"max_length": 9}) == 9
    assert length({"max_new_tokens": 4}) == 7
    assert length({"max_length": 9, "max_new_tokens": 4}) == 7
    assert length(max_length=8) == 8
    assert length({"max_new_tokens": 4}, max_length=8) == 7
    assert length({"max_length": None}, max_length=8) == 23


def test_arguments_come_before_the_config_given_and_that_before_the_models_own() -> None:
    given = GenerationConfig(max_new_tokens=5, top_k=3)
    assert length({"generation_config": given}, max_new_tokens=9) == 8
    assert length({"generation_config": given, "max_new_tokens": 2}, max_new_tokens=9) == 5
    assert length({"generation_config": GenerationConfig()}, max_new_tokens=9) == 12
    assert given == GenerationConfig(max_new_tokens=5, top_k=3)  # as it was


def test_none_switches_off() -> None:
    model = tiny(3, vocab_size=80)  # more ids than the default top_k
    model.generation_config = GenerationConfig(eos_token_id=list(range(80)), do_sample=True, top_k=1)
    assert model.generate(PROMPT, max_new_tokens=5).shape == (1, 4)
    assert model.generate(PROMPT, max_new_tokens=5, eos_token_id=None).shape == (1, 8)
    wide = {"eos_token_id": None, "max_new_tokens": 1, "temperature": 50.0, "num_return_sequences": 600}
    assert len(np.unique(model.generate(PROMPT, **wide))) == 4
    assert len(np.unique(model.generate(PROMPT, **wide, top_k=None))) > 70


def test_the_default_fits_the_context_and_what_is_asked_for_must() -> None:
    model = tiny()  # of 32 positions
    assert model.generate(random_ids(1, 1, 30)).shape == (1, 33)  # the last is never fed back
    assert model.generate(PROMPT, max_new_tokens=30).shape == (1, 33)
    for how in ({"max_new_tokens": 31}, {"max_length": 34}):
        with pytest.raises(ValueError, match="3 tokens of prompt and 31 new ones exceed the model's context of 32"):
            model.generate(PROMPT, **how)
    with pytest.raises(ValueError, match="33 tokens and the model's context is 32"):
        model.generate(random_ids(1, 1, 33))
    ids = np.concatenate((np.zeros((1, 20), int), PROMPT), axis=1)  # padding takes no room
    assert model.generate(ids, attention_mask=(ids > 0).astype(int), max_new_tokens=30).shape == (1, 53)


def test_without_ids_a_text_begins_with_bos() -> None:
    model = tiny()
    assert model.generate(max_new_tokens=3).tolist() == model.generate([[1]], max_new_tokens=3).tolist()
    assert model.generate(max_new_tokens=3, bos_token_id=4)[0, 0] == 4
    model.generation_config = GenerationConfig()
    with pytest.raises(ValueError, match="no bos_token_id to begin with"):
        model.generate()


def test_ids_equal_to_pad_are_padding_unless_they_end_a_text() -> None:
    model, ids = tiny(), [[4, 4, 9, 11]]
    alone = model.generate([[9, 11]], max_new_tokens=3)[0, 2:].tolist()
    whole = model.generate(ids, max_new_tokens=3)[0, 4:].tolist()
    assert alone != whole
    assert model.generate(ids, max_new_tokens=3, pad_token_id=4)[0, 4:].tolist() == alone
    assert model.generate(ids, max_new_tokens=3, pad_token_id=4, attention_mask=[[1] * 4])[0, 4:].tolist() == whole
    for ends in (4, [2, 4]):
        got = model.generate(ids, max_new_tokens=3, pad_token_id=4, eos_token_id=ends, min_new_tokens=3)
        assert got[0, 4:5].tolist() == whole[:1]


def test_several_sequences_of_each_prompt_stand_side_by_side() -> None:
    ids = random_ids(2, 2, 3)
    for how in ({"do_sample": True}, {"num_beams": 4}, {"num_beams": 4, "do_sample": True}):
        got = tiny().generate(ids, num_return_sequences=3, max_new_tokens=4, **how)
        assert got.shape == (6, 7)
        assert got[:, :3].tolist() == np.repeat(ids, 3, axis=0).tolist()
        assert len({tuple(row) for row in got.tolist()}) > 4


def test_what_the_callers_functions_are_given() -> None:
    """Padding on the left wherever it was, and a row for each beam."""
    seen: list[Any] = []

    def processor(input_ids: Array, scores: Array) -> Array:
        seen.append((input_ids.tolist(), scores.shape))
        return scores

    def criterion(input_ids: Array, scores: Any) -> bool:
        seen.append((input_ids.shape, scores))
        return input_ids.shape[1] == 5

    how: dict[str, Any] = {"attention_mask": [[1, 1, 0], [1, 1, 1]], "pad_token_id": 0}
    how |= {"logits_processor": processor, "stopping_criteria": [criterion], "eos_token_id": 2}
    got = tiny().generate([[5, 6, 9], [7, 8, 4]], **how)
    assert seen[0] == ([[9, 5, 6], [7, 8, 4]], (2, 37))
    tiny().generate(PROMPT, output_scores=True, stopping_criteria=criterion)  # kept, and shown, with return_dict only
    assert seen[-1] == ((1, 5), None)
    seen.pop(), seen.pop()
    assert [entry for entry in seen if entry[1] is None] == [((2, 4), None), ((2, 5), None)]
    assert got[:, :3].tolist() == [[5, 6, 9], [7, 8, 4]]
    assert got.shape == (2, 5)
    seen.clear()
    how |= {"attention_mask": None, "num_beams": 3, "output_scores": True, "return_dict_in_generate": True}
    tiny().generate([[5, 6, 9]], **how)
    assert seen[0] == ([[5, 6, 9]] * 3, (3, 37))
    assert seen[1][0] == (6, 4)
    assert [scores.shape for scores in seen[1][1]] == [(3, 37)]


def test_the_callers_own_take_the_place_of_those_of_the_same_class() -> None:
    model = tiny()
    got = model.generate(PROMPT, no_repeat_ngram_size=5, logits_processor=[NoRepeatNGramLogitsProcessor(1)])[0]
    assert len(set(got.tolist())) == len(got)
    for most in (6, 30):
        got = model.generate(PROMPT, max_new_tokens=9, stopping_criteria=[MaxLengthCriteria(most)])
        assert got.shape == (1, most)
    with pytest.raises(ValueError, match="exceed the model's context"):
        model.generate(PROMPT, stopping_criteria=[MaxLengthCriteria(99)])


class Letters:
    """Decodes an id to a letter, those above z to nothing."""

    def __len__(self) -> int:
        return 37

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(97 + i) for i in ids if i < 26)


def test_stop_strings() -> None:
    model = tiny(5)
    free = model.generate(PROMPT, max_new_tokens=12, bad_words_ids=[[i] for i in range(26, 37)])[0]
    text = Letters().decode(free.tolist())
    stop = text[5:8]
    end = text.index(stop, 1) + 3  # may come earlier
    how: dict[str, Any] = {"max_new_tokens": 12, "bad_words_ids": [[i] for i in range(26, 37)], "tokenizer": Letters()}
    assert model.generate(PROMPT, stop_strings=stop, **how).tolist() == [free[:end].tolist()]
    assert model.generate(PROMPT, stop_strings=["no such", stop], **how).tolist() == [free[:end].tolist()]
    with pytest.raises(ValueError, match="give the tokenizer too"):
        model.generate(PROMPT, stop_strings=stop)
    with pytest.raises(ValueError, match="give pad_token_id"):
        model.generate(PROMPT * 2, stop_strings=stop, **how)


def test_a_streamer_sees_the_prompts_and_then_each_id() -> None:
    class Streamer:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def put(self, value: Array) -> None:
            self.seen.append(value)

        def end(self) -> None:
            self.seen.append("end")

    model, ids = tiny(), random_ids(4, 2, 3)
    streamer = Streamer()
    got = model.generate(ids, max_new_tokens=4, streamer=streamer)
    *values, last = streamer.seen
    assert last == "end"
    assert values[0].tolist() == ids.tolist()
    assert np.stack(values[1:], axis=1).tolist() == got[:, 3:].tolist()
    with pytest.raises(ValueError, match="num_beams=1"):
        model.generate(ids, num_beams=2, streamer=Streamer())


@pytest.mark.parametrize(
    ("ids", "how", "message"),
    [
        ([5, 6], {}, r"one prompt is \[ids\]"),
        ([[]], {}, "B and T above 0"),
        ([[0.5]], {}, "whole numbers"),
        ([[5, 6], [7]], {}, "different lengths"),
        ([[5, 37]], {}, "37"),
        (PROMPT, {"attention_mask": [[1, 1]]}, r"must have the shape \(1, 3\)"),
        ([[5, 6], [7, 8]], {"attention_mask": [[1, 1], [0, 0]]}, "row 1 of input_ids is nothing but padding"),
        (PROMPT, {"max_length": 3}, "nothing can be added"),
        (PROMPT, {"max_new_tokens": 0}, "max_new_tokens must be"),
        (PROMPT, {"num_return_sequences": 2}, "num_return_sequences is 2 and num_beams 1"),
        (PROMPT, {"num_return_sequences": 3, "num_beams": 2}, "num_return_sequences is 3 and num_beams 2"),
        (PROMPT, {"do_sample": True, "temperature": 0.0}, "do_sample=False"),
        (PROMPT, {"num_beam": 3}, "no argument num_beam: did you mean num_beams"),
        (PROMPT, {"zzz": 3}, "no argument zzz: see"),
        (PROMPT, {"top_p": 2}, "top_p must be"),
    ],
)
def test_what_cannot_be_done_is_said(ids: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny().generate(ids, **how)


@pytest.mark.parametrize("name", _INSTEAD)
def test_what_transformers_takes_and_this_does_not(name: str) -> None:
    assert name not in DEFAULTS
    model = tiny()
    with pytest.raises(ValueError, match=rf"generate\(\) does not do {name}, which is 3: \w+"):
        model.generate(PROMPT, **{name: 3})
    model.generate(PROMPT, max_new_tokens=1, **{name: None})
    model.generation_config = GenerationConfig(**{name: 3})  # from a file, it is not passed over in silence
    with pytest.raises(ValueError, match=name):
        model.generate(PROMPT)


def test_arrays_that_are_not_taken() -> None:
    with pytest.raises(ValueError, match=r"inputs_embeds, which is .*: give input_ids"):
        tiny().generate(inputs_embeds=np.zeros((1, 3, 16)))


def test_values_that_ask_for_nothing_pass() -> None:
    model = tiny()
    neutral = {"num_beam_groups": 1, "encoder_repetition_penalty": 1.0, "diversity_penalty": 0.0, "epsilon_cutoff": 0}
    model.generation_config = GenerationConfig(**neutral, output_attentions=False)
    assert model.generate(PROMPT, max_new_tokens=2).shape == (1, 5)


def test_numbers_of_numpy_are_numbers() -> None:
    model = tiny()
    ids = model.generate(
        [[5, 6]], max_new_tokens=np.int64(3), eos_token_id=(np.int64(2), 3), bad_words_ids=np.array([[4]])
    )
    np.testing.assert_array_equal(
        ids, model.generate([[5, 6]], max_new_tokens=3, eos_token_id=[2, 3], bad_words_ids=[[4]])
    )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"generation_config": {"num_beams": 2}}, "generation_config must be a GenerationConfig, not a dict"),
        ({"logits_processor": 5}, "logits_processor must be a function"),
        ({"stopping_criteria": [5]}, "stopping_criteria must be a function"),
        ({"streamer": print}, "streamer must have put"),
        ({"tokenizer": "x"}, "tokenizer must have decode"),
        ({"input_ids": {"input_ids": [[5]]}}, "give it as \\*\\*inputs"),
    ],
)
def test_arguments_of_another_kind(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny().generate(**{"input_ids": [[5]]} | how)
