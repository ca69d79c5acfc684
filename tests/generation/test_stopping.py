import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.generation.stopping import StopStrings

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
