"""generate() against transformers, live: greedy and beam search id for id, processors score for score.

Both compute in float64, transformers with its float32 casts lifted while it runs. In float32 a step whose two best
scores are nearer than about 1e-4 may go either way; in float64 they would have to be nearer than 1e-12, and none is, so
that no step is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.generation import processors as ours_
from minillama.generation.config import DEFAULTS, GenerationConfig
from minillama.llama import LlamaForCausalLM
from minillama.loading import load_tokenizer
from minillama.shipped import tale_model
from tests.tiny import SEEDS, spiky

torch = pytest.importorskip("torch", reason="needs the oracle extra")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra")
logits_process = pytest.importorskip("transformers.generation.logits_process")
# transformers warns of settings that we draw on purpose, such as a minimum above the maximum
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

SINGLE = torch.float32
SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@contextmanager
def lifted() -> Iterator[None]:
    """transformers without its casts to float32, which it looks up when it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(SINGLE)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Models of both libraries from the same files: the tale model, and small random ones with spread-out weights."""
    folders = {"tale": tale_model()}
    for name in ("random 0", "random 1"):
        folders[name] = tmp_path_factory.mktemp("model")
        torch.manual_seed(int(name[-1]))
        config = transformers.LlamaConfig(**SMALL, initializer_range=0.35)
        transformers.LlamaForCausalLM(config).save_pretrained(folders[name])
    return {name: Pair(folder) for name, folder in folders.items()}


class Pair:
    def __init__(self, folder: Path):
        self.judge = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        with lifted():  # its frequencies too
            self.judge.model.rotary_emb = type(self.judge.model.rotary_emb)(self.judge.config)
        self.judge.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2)
        self.ours = LlamaForCausalLM.from_pretrained(folder, dtype="float64")
        self.ours.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)

    def both(self, ids: Any, attention_mask: Any = None, **how: Any) -> tuple[Any, Any]:
        """What both return, with scores."""
        how = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True} | how
        mask = None if attention_mask is None else torch.tensor(attention_mask)
        with torch.no_grad(), lifted():
            expected = self.judge.generate(torch.tensor(ids), attention_mask=mask, **how)
        return expected, self.ours.generate(ids, attention_mask=attention_mask, **how)


def assert_same(expected: Any, got: Any, ends: Sequence[int] = (2,)) -> None:
    """Ids, scores and the way through the beams; of rows that have ended, scores count for nothing."""
    assert got.sequences.tolist() == expected.sequences.tolist()
    beams = expected.get("beam_indices") is not None
    for name in ("scores", "logits"):
        assert len(got[name]) == len(expected[name])
        T = got.sequences.shape[1] - len(got[name])
        for step, (one, other) in enumerate(zip(got[name], expected[name], strict=True)):
            going = slice(None) if beams else ~np.isin(got.sequences[:, T : T + step], list(ends)).any(axis=1)
            close(one[going], other.numpy()[going])
    if beams:
        assert got.beam_indices.tolist() == expected.beam_indices.tolist()
        close(got.sequences_scores, expected.sequences_scores.numpy())


def close(ours: Array, theirs: Array) -> None:
    """Equal up to the rounding of a model in float64, of which 1e-9 is about a million times as much."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


# -- greedy and beam search ---------------------------------------------------------------------------------------


@st.composite
def searches(draw: st.DrawFn, V: int) -> dict[str, Any]:
    """Settings of a search over V ids. Words are banned from a small range, so that some would have come."""
    ids, some = st.integers(3, V - 1), st.booleans()
    ends = draw(st.lists(ids, max_size=8, unique=True))
    how: dict[str, Any] = {
        "max_new_tokens": draw(st.integers(1, 12)),
        "num_beams": draw(st.integers(1, 5)),
        "eos_token_id": [2, *ends],
        "pad_token_id": draw(st.integers(1, 3)),
    }
    if how["num_beams"] > 1:
        how["length_penalty"] = draw(st.sampled_from([-1.0, -0.3, 0.0, 0.5, 1.0, 2.0]))
        how["early_stopping"] = draw(st.sampled_from([False, True, "never"]))
        how["num_return_sequences"] = draw(st.integers(1, how["num_beams"]))
    if draw(some):
        how["no_repeat_ngram_size"] = draw(st.integers(1, 3))
    if draw(some):
        how["repetition_penalty"] = draw(st.sampled_from([0.7, 1.3, 2.0]))
    if draw(some):
        how["bad_words_ids"] = [[2], [5], *draw(st.lists(st.lists(ids, min_size=1, max_size=2), max_size=6))]
    if draw(some):
        how["min_new_tokens"] = draw(st.integers(1, 5))
    if draw(some):
        how["min_length"] = draw(st.integers(1, 9))
    return how


def run(pair: Pair, data: st.DataObject, V: int) -> None:
    how = data.draw(searches(V))
    B, T = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    ids = data.draw(st.lists(st.lists(st.integers(4, V - 1), min_size=T, max_size=T), min_size=B, max_size=B))
    mask = None
    if data.draw(st.booleans()):
        mask = [[0] * data.draw(st.integers(0, T - 1)) for _ in range(B)]
        mask = [row + [1] * (T - len(row)) for row in mask]
    assert_same(*pair.both(ids, mask, **how), ends=how["eos_token_id"])


@pytest.mark.parametrize("name", ["random 0", "random 1"])
@given(st.data())
@settings(max_examples=100)
def test_random_models(pairs: dict[str, Pair], name: str, data: st.DataObject) -> None:
    run(pairs[name], data, SMALL["vocab_size"])


@given(st.data())
@settings(max_examples=40)
def test_the_tale_model(pairs: dict[str, Pair], data: st.DataObject) -> None:
    run(pairs["tale"], data, 4096)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_a_long_tale(pairs: dict[str, Pair], num_beams: int) -> None:
    ids = [load_tokenizer(tale_model()).encode("Once upon a time there was")]
    assert_same(*pairs["tale"].both(ids, max_new_tokens=100, num_beams=num_beams, no_repeat_ngram_size=4))


def test_padding_is_inferred_from_its_id(pairs: dict[str, Pair]) -> None:
    ids = [[3, 3, 3, 8, 11, 40], [9, 12, 14, 8, 30, 7]]
    for pad in (3, 4):  # with 4, those of 3 are text
        assert_same(*pairs["random 0"].both(ids, max_new_tokens=9, pad_token_id=pad, repetition_penalty=1.5))
    assert_same(*pairs["random 0"].both(ids, max_new_tokens=9, pad_token_id=3, eos_token_id=[2, 3]), ends=[2, 3])
    assert_same(*pairs["random 0"].both(ids, max_new_tokens=9, eos_token_id=[3, 2]), ends=[2, 3])


@pytest.mark.parametrize(
    "how",
    [
        {},  # 20 new ones
        {"max_length": 9},
        {"max_length": 9, "max_new_tokens": 6},
        {"max_new_tokens": 5, "min_length": 12},
        {"max_length": 12, "min_length": 10, "eos_token_id": list(range(2, 50))},
        {"max_length": 12, "min_length": 10, "min_new_tokens": 1, "eos_token_id": list(range(2, 50))},
        {"max_length": 12, "min_length": 1, "min_new_tokens": 5, "eos_token_id": list(range(2, 50))},
        {"eos_token_id": None, "max_new_tokens": 30},
        {"use_cache": False, "max_new_tokens": 6},
        {"use_cache": False, "max_new_tokens": 6, "num_beams": 3},
        {"generation_config": {"max_length": 10, "num_beams": 2}},
        {"generation_config": {"max_length": 10}, "max_new_tokens": 2},
    ],
    ids=str,
)
def test_lengths_and_where_settings_come_from(pairs: dict[str, Pair], how: dict[str, Any]) -> None:
    pair, ids = pairs["random 1"], torch.tensor([[1, 30, 21, 6]])
    given_, here = dict(how), dict(how)
    if "generation_config" in how:
        given_["generation_config"] = transformers.GenerationConfig(**how["generation_config"])
        here["generation_config"] = GenerationConfig(**how["generation_config"])
    with torch.no_grad(), lifted():
        expected = pair.judge.generate(ids, **given_)
    assert pair.ours.generate(ids.numpy(), **here).tolist() == expected.tolist()


def test_without_input_ids(pairs: dict[str, Pair]) -> None:
    with torch.no_grad(), lifted():
        expected = pairs["random 1"].judge.generate(max_new_tokens=7)
    assert pairs["random 1"].ours.generate(max_new_tokens=7).tolist() == expected.tolist()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_functions_of_the_caller(pairs: dict[str, Pair], num_beams: int) -> None:
    """A processor that favours ids near the last one, after the built-in ones, and a criterion that stops at a sum."""

    def near(input_ids: Any, scores: Any) -> Any:
        library = torch if isinstance(scores, torch.Tensor) else np
        distance = library.abs(library.arange(scores.shape[1])[None] - input_ids[:, -1:])
        return scores - 0.1 * distance

    def enough(input_ids: Any, scores: Any) -> Any:
        assert len(scores) > 0
        return input_ids.sum(1) > 150

    pair, ids = pairs["random 0"], [[5, 9, 4], [8, 30, 22]]
    how: dict[str, Any] = {"max_new_tokens": 12, "num_beams": num_beams, "repetition_penalty": 1.4}
    assert_same(*pair.both(ids, logits_processor=[near], stopping_criteria=[enough], **how))

    theirs = [logits_process.NoRepeatNGramLogitsProcessor(1)]  # takes the place of the one that is asked for
    own = [ours_.NoRepeatNGramLogitsProcessor(1)]
    kwargs = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "no_repeat_ngram_size": 3}
    with torch.no_grad(), lifted():
        expected = pair.judge.generate(torch.tensor(ids), logits_processor=theirs, **how | kwargs)
    assert_same(expected, pair.ours.generate(ids, logits_processor=own, **how | kwargs))


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("stops", ["e was", ["king", " a"], ["\n", "zz"], ["ther"]])
def test_stop_strings(pairs: dict[str, Pair], stops: Any, num_beams: int) -> None:
    tokenizer = load_tokenizer(tale_model())
    ids = [tokenizer.encode(text)[:4] for text in ("There once was a king", "Long ago, a fox and")]
    how: dict[str, Any] = {"max_new_tokens": 30, "num_beams": num_beams, "stop_strings": stops}
    with torch.no_grad(), lifted():
        theirs = transformers.AutoTokenizer.from_pretrained(tale_model())
        expected = pairs["tale"].judge.generate(torch.tensor(ids), tokenizer=theirs, **how)
    got = pairs["tale"].ours.generate(ids, tokenizer=tokenizer, **how)
    assert got.tolist() == expected.tolist()


def test_what_a_streamer_is_shown(pairs: dict[str, Pair]) -> None:
    seen: dict[str, list[Any]] = {"theirs": [], "ours": []}
    streamers = {
        who: SimpleNamespace(put=lambda ids, to=to: to.append(ids.tolist()), end=lambda to=to: to.append("end"))
        for who, to in seen.items()
    }
    ids = [[1, 30, 21, 6], [1, 17, 4, 4]]
    with torch.no_grad(), lifted():
        pairs["random 1"].judge.generate(torch.tensor(ids), max_new_tokens=5, streamer=streamers["theirs"])
    pairs["random 1"].ours.generate(ids, max_new_tokens=5, streamer=streamers["ours"])
    assert seen["ours"] == seen["theirs"]
    assert len(seen["ours"]) == 7


# -- sampling -----------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=60)
def test_what_is_drawn_from(pairs: dict[str, Pair], data: st.DataObject) -> None:
    """The draws are each library's own, so of the first step only: which ids are left, with which scores."""
    how: dict[str, Any] = {
        "do_sample": True,
        "max_new_tokens": 1,
        "num_beams": data.draw(st.integers(1, 3)),
        "eos_token_id": data.draw(st.sampled_from([[2], [2, 7, 9], None])),
        "pad_token_id": 3,
    }
    choices = {
        "temperature": [0.3, 1.0, 1.7, None],
        "top_k": [0, 1, 7, 100, None],
        "top_p": [0.05, 0.9, 1.0, None],
        "min_p": [0.0, 0.1, 1.0],
        "typical_p": [0.05, 0.8, 1.0],
        "repetition_penalty": [1.0, 1.6],
        "no_repeat_ngram_size": [0, 1],
    }
    for name, values in choices.items():
        if data.draw(st.booleans()):
            how[name] = data.draw(st.sampled_from(values))
    ids = data.draw(st.lists(st.integers(4, 60), min_size=1, max_size=5))
    expected, got = pairs["random 0"].both([ids], **how)
    close(got.scores[0], expected.scores[0].numpy())


# -- processors ---------------------------------------------------------------------------------------------------

V = 23


@st.composite
def scores(draw: st.DrawFn) -> Array:
    """(B, V), spiky; some with ties, some with minus infinity."""
    rng = np.random.default_rng(draw(SEEDS))
    array = spiky(rng, draw(st.integers(1, 3)), V)
    if draw(st.booleans()):
        array = np.round(array, draw(st.integers(0, 1)))
    if draw(st.booleans()):
        array[:, 1:][rng.random((len(array), V - 1)) < 0.3] = -np.inf
    return array


def processor_pairs(rng: np.random.Generator, B: int, T: int) -> Iterator[tuple[Any, Any]]:
    """The same processor of both libraries, with its arguments drawn."""

    def both(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return getattr(ours_, name)(*args, **kwargs), getattr(logits_process, name)(*args, **kwargs)

    least = int(rng.integers(1, 4))
    for fill in (-np.inf, -1e4):
        how = {"filter_value": fill, "min_tokens_to_keep": least}
        yield both("TopKLogitsWarper", int(rng.integers(1, 30)), **how)
        yield both("TopPLogitsWarper", float(rng.random()), **how)
        yield both("MinPLogitsWarper", float(rng.random()), **how)
        yield both("TypicalLogitsWarper", float(rng.random()), **how)
    for p in (0.0, 1.0):
        yield both("TopPLogitsWarper", p)
        yield both("MinPLogitsWarper", p)
    yield both("TemperatureLogitsWarper", float(rng.uniform(0.1, 3)))
    yield both("RepetitionPenaltyLogitsProcessor", float(rng.uniform(0.3, 3)))
    yield both("RepetitionPenaltyLogitsProcessor", 1.7, prompt_ignore_length=int(rng.integers(0, T + 2)))
    ignored = rng.integers(0, T + 1, B)
    yield (
        ours_.RepetitionPenaltyLogitsProcessor(1.7, ignored),
        logits_process.RepetitionPenaltyLogitsProcessor(1.7, torch.from_numpy(ignored)),
    )
    for n in (1, 2, 3):
        yield both("NoRepeatNGramLogitsProcessor", n)
    words = [rng.integers(0, 4, rng.integers(1, 4)).tolist() for _ in range(5)]
    yield both("NoBadWordsLogitsProcessor", [*words, [V - 1], [2], [2, 1]], [2, 3])
    yield both("NoBadWordsLogitsProcessor", [*words, [2]])
    for length in (T - 1, T, T + 1):
        yield both("MinLengthLogitsProcessor", max(length, 0), [2, 5])
        yield both("MinNewTokensLengthLogitsProcessor", 2, max(length - 2, 0), 2)


@given(scores(), SEEDS, st.integers(1, 9))
@settings(max_examples=150)
def test_processors(array: Array, seed: int, T: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, rng.choice([4, V]), (len(array), T))
    ties = any(len(set(row)) < len(row) for row in np.where(np.isinf(array), np.arange(V) + 99, array).tolist())
    for own, judge in processor_pairs(rng, len(array), T):
        expected = judge(torch.from_numpy(ids), torch.from_numpy(array.copy())).numpy()
        got = own(ids, array)
        if ties:  # which of equals torch's sort puts first is its own; as many of them stay
            got, expected = np.sort(got, axis=1), np.sort(expected, axis=1)
        close(got, expected)
        assert own(ids, array.astype(np.float32)).dtype == np.float32


# -- generation_config.json ---------------------------------------------------------------------------------------


def test_the_file_goes_both_ways(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "max_length": 50,
        "top_k": 7,
        "eos_token_id": [2, 9],
        "stop_strings": ["a"],
        "do_sample": True,
    }
    transformers.GenerationConfig(**fields, custom=[1]).save_pretrained(tmp_path)
    ours = GenerationConfig.from_pretrained(tmp_path)
    assert {name: getattr(ours, name) for name in fields} == fields
    assert ours.custom == [1]
    ours.update(num_beams=3)
    ours.save_pretrained(tmp_path / "again")
    back = transformers.GenerationConfig.from_pretrained(tmp_path / "again")
    assert (back.max_length, back.eos_token_id, back.num_beams, back.custom) == (50, [2, 9], 3, [1])


def test_defaults() -> None:
    theirs, ours = transformers.GenerationConfig._get_default_generation_params(), GenerationConfig()
    for name in set(theirs) & set(DEFAULTS):
        assert getattr(ours, name) == theirs[name], name
