from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.generation.stopping import (
    EosTokenCriteria,
    MaxLengthCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    StopStrings,
)
from minillama.shipped import tale_model
from minillama.tokenizer import LlamaTokenizer, LlamaTokenizerFast, Tokenizer

LETTERS = st.text("ab\n", max_size=12)  # few letters, so that stops are often found and often begun


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    watch = StopStrings(stops)
    text = "".join(watch.push(piece) for piece in pieces)
    return text + watch.finish(), watch.found


def before_the_first_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """Read letter by letter: the first stop to be complete counts, and of those that end there the longest."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(st.lists(LETTERS), st.lists(LETTERS.filter(bool), max_size=3))
def test_however_the_text_is_cut_it_ends_before_the_first_stop(pieces: list[str], stops: list[str]) -> None:
    assert run(stops, pieces) == before_the_first_stop("".join(pieces), stops)


@pytest.mark.parametrize("pieces", [["abcd"], ["abc", "d"], ["a", "b", "c", "d"]])
def test_of_two_stops_the_first_to_be_complete_counts(pieces: list[str]) -> None:
    assert run(["abcd", "bc"], pieces) == ("a", True)


def test_only_what_may_begin_a_stop_is_held_back() -> None:
    watch = StopStrings(["END", "\n\n"])
    assert [watch.push(piece) for piece in ("the EN", "EMY\n", "E", "N")] == ["the ", "ENEMY", "\n", ""]
    assert not watch.found
    assert watch.finish() == "EN"


def test_nothing_follows_a_stop() -> None:
    watch = StopStrings(["."])
    assert watch.push("a.b") == "a"
    assert watch.found
    assert watch.push("c") == ""
    assert watch.finish() == ""


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopStrings(["a", ""])


# -- criteria -----------------------------------------------------------------------------------------------------

IDS = np.array([[1, 2, 3], [1, 9, 7], [3, 2, 1]])


def test_a_row_ends_when_one_criterion_says_so() -> None:
    def second(ids: Array, scores: Any) -> list[bool]:
        return [False, True, False]

    assert EosTokenCriteria(3)(IDS).tolist() == [True, False, False]
    assert EosTokenCriteria([3, 7])(IDS).tolist() == [True, True, False]
    assert StoppingCriteriaList([EosTokenCriteria(3), second])(IDS).tolist() == [True, True, False]
    assert StoppingCriteriaList([EosTokenCriteria(3), MaxLengthCriteria(4)])(IDS).tolist() == [True, False, False]
    assert StoppingCriteriaList([EosTokenCriteria(3), MaxLengthCriteria(3)])(IDS).tolist() == [True] * 3
    assert StoppingCriteriaList()(IDS).tolist() == [False] * 3


def test_an_answer_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 1\).*each of the 3 rows"):
        StoppingCriteriaList([lambda ids, scores: ids[:, :1] > 2])(IDS)


class Bytes:
    """A tokenizer of bytes, and of a few words that are one id."""

    words: ClassVar = {256: "stop", 257: " the", 258: "stopper"}

    def __len__(self) -> int:
        return 300

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.words.get(i, "").encode() or bytes([i]) for i in ids).decode(errors="replace")


@pytest.mark.parametrize(
    ("ids", "stops", "expected"),
    [
        ([*b"a sto", *b"p"], "stop", True),
        ([*b"a stop"[:-1]], "stop", False),
        ([*b"a ", 256], "stop", True),
        ([*b"a ", 258], "stop", True),  # however the id goes on
        ([256, *b"s"], "stop", False),  # it was complete an id before
        ([256, 256], "stop", True),  # and is once more
        ([*b"aa"], "aa", True),
        ([*b"aaa"], "aa", True),
        ([*"é".encode()], "é", True),
        ([*"é".encode(), 97], "é", False),
        ([*"x€".encode()], ["y", "x€"], True),
        ([*"x€".encode()][:-1], ["x€"], False),
        ([*"x€€".encode()], ["€"], True),
        ([*b"a", 257], " th", True),
        ([-1, 999, *b"sto", *b"p"], "stop", True),  # padding, and ids the tokenizer does not know
        ([256, -1], "stop", False),
    ],
)
def test_stop_strings_end_in_the_last_id(ids: list[int], stops: Any, expected: bool) -> None:
    criterion = StopStringCriteria(Bytes(), stops)
    assert criterion(np.array([ids])).tolist() == [expected]
    long = np.array([[*b"some text before that is longer than any stop", *ids]])
    assert criterion(long).tolist() == [expected]


SLOW, FAST = LlamaTokenizer.from_pretrained(tale_model()), LlamaTokenizerFast.from_pretrained(tale_model())


def completed(tokenizer: Tokenizer, ids: list[int], stop: str) -> list[int]:
    """After how many ids the criterion says that the stop string is complete."""
    criterion = StopStringCriteria(tokenizer, stop)
    return [end for end in range(1, len(ids) + 1) if criterion(np.array([ids[:end]]))[0]]


@pytest.mark.parametrize("tokenizer", [SLOW, FAST], ids=["slow", "fast"])
@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("hi 😊😀😁 there", "😀", [12]),  # <s> ▁h i ▁ and four bytes each
        ("hi 😊😊😊😀", "😀", [20]),
        ("狐狸狐狸", "狐", [5, 11]),  # <s> ▁ and three bytes each
        ("狐狸狐狸", "狸狐", [11]),
        ("狐狸é狐x", "é狐", [13]),
        ("狸狸狸 fox", " fox", [12]),
        ("name , yes ?", " ,", [4]),
        ("😊\n\n😊", "\n\n", [8]),
    ],
)
def test_stop_strings_behind_characters_spelled_in_bytes(
    tokenizer: Tokenizer, text: str, stop: str, expected: list[int]
) -> None:
    assert completed(tokenizer, tokenizer.encode(text), stop) == expected


@pytest.mark.parametrize("tokenizer", [SLOW, FAST], ids=["slow", "fast"])
def test_a_stop_string_behind_a_stray_byte(tokenizer: Tokenizer) -> None:
    ids = [byte + 3 for byte in b"\xf0" + "😊\xff😀".encode()]
    assert completed(tokenizer, ids, "😊") == [5]
    assert completed(tokenizer, ids, "😀") == [11]


def test_a_stop_string_that_is_a_space() -> None:
    ids = SLOW.convert_tokens_to_ids(["a", "▁", "▁", "▁", "b", "▁a"])  # decoding drops spaces that begin a text
    assert completed(SLOW, ids, " ") == [2, 3, 4, 6]
    assert completed(SLOW, ids, "  ") == [3, 4]


def test_a_clean_up_of_spaces_hides_no_stop_string() -> None:
    tokenizer = LlamaTokenizerFast.from_pretrained(tale_model(), clean_up_tokenization_spaces=True)
    ids = tokenizer.encode("yes , no")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "yes, no"
    assert completed(tokenizer, ids, " ,") == [len(ids) - 1]
