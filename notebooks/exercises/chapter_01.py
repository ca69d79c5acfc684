"""The exercises of chapter 1, tokens."""

from collections import Counter
from itertools import pairwise

from checks import Exercise

from minillama import load_tokenizer, tale_model

_tokenizer = load_tokenizer(tale_model())
_PIECES = _tokenizer.convert_ids_to_tokens(list(range(len(_tokenizer))))
_RANK = {piece: rank for rank, piece in enumerate(_PIECES[259:4019])}


# -- 1.1 ----------------------------------------------------------------------------------------------------------


def count_pairs(words):
    counts = Counter()
    for pieces, times in words:
        for pair in pairwise(pieces):
            counts[pair] += times
    return dict(counts)


def _ignoring_times(words):
    return count_pairs([(pieces, 1) for pieces, _ in words])


def _once_a_word(words):
    counts = Counter()
    for pieces, times in words:
        for pair in set(pairwise(pieces)):
            counts[pair] += times
    return dict(counts)


def _without_order(words):
    counts = Counter()
    for pieces, times in words:
        for pair in pairwise(pieces):
            counts[tuple(sorted(pair))] += times
    return dict(counts)


def _every_second(words):
    counts = Counter()
    for pieces, times in words:
        for pair in zip(pieces[::2], pieces[1::2], strict=False):
            counts[pair] += times
    return dict(counts)


def _around_the_end(words):
    return count_pairs([(pieces[-1:] + pieces, times) for pieces, times in words])


def _across_words(words):
    return count_pairs([([piece for pieces, times in words for piece in pieces * times], 1)])


def _last_pair_missing(words):
    return count_pairs([(pieces[:-1], times) for pieces, times in words])


def _overwritten(words):
    return {pair: times for pieces, times in words for pair in pairwise(pieces)}


def _joined(words):
    return {a + b: n for (a, b), n in count_pairs(words).items()}


_WORDS = [
    (["▁", "b", "an", "an", "an"], 3),
    (["▁", "a", "a", "a", "b"], 2),
    (["b", "an", "a"], 7),
    (["▁", "an", "b"], 1),
    (["x"], 5),
]

# -- 1.2 ----------------------------------------------------------------------------------------------------------


def encode_word(word, rank, choose=min):
    pieces = list(word)
    while True:
        known = [(rank[a + b], i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in rank]
        if not known:
            return pieces
        _, i = choose(known)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


def _longest_first(word, rank):
    pieces = []
    while word:
        n = next(n for n in range(len(word), 0, -1) if n == 1 or word[:n] in rank)
        pieces.append(word[:n])
        word = word[n:]
    return pieces


def _leftmost(word, rank):
    return encode_word(word, rank, lambda known: min(known, key=lambda pair: pair[1]))


def _last_learned(word, rank):
    return encode_word(word, rank, max)


def _last_learned_leftmost(word, rank):
    return encode_word(word, rank, lambda known: max(known, key=lambda pair: (pair[0], -pair[1])))


def _rightmost_of_equals(word, rank):
    return encode_word(word, rank, lambda known: min(known, key=lambda pair: (pair[0], -pair[1])))


def _one_merge(word, rank):
    pieces = list(word)
    known = [(rank[a + b], i) for i, (a, b) in enumerate(pairwise(pieces)) if a + b in rank]
    if known:
        _, i = min(known)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
    return pieces


def _no_merge(word, rank):
    return list(word)


def _letters_lost(word, rank):
    pieces = encode_word(word, rank)
    return [piece for piece in pieces if piece in rank]


# -- 1.4 ----------------------------------------------------------------------------------------------------------


def _is_byte(piece):
    return len(piece) == 6 and piece.startswith("<0x")


def _bytes_of(piece, space=" "):
    return bytes([int(piece[3:5], 16)]) if _is_byte(piece) else piece.replace("▁", space).encode()


def _all_text(ids, pieces, errors="replace"):
    return b"".join(_bytes_of(pieces[i]) for i in ids if i > 2).decode(errors=errors)


def decode(ids, pieces, errors="replace"):
    text = _all_text(ids, pieces, errors)
    return text[1:] if text.startswith(" ") else text


def _one_by_one(ids, pieces):
    return "".join(decode([i], pieces) for i in ids)


def _unfinished_hidden(ids, pieces):
    return decode(ids, pieces, "ignore")


def _bytes_one_by_one(ids, pieces):
    text = "".join(_bytes_of(pieces[i]).decode(errors="replace") for i in ids if i > 2)
    return text[1:] if text.startswith(" ") else text


def _bytes_as_code_points(ids, pieces):
    text = "".join(
        chr(int(pieces[i][3:5], 16)) if _is_byte(pieces[i]) else pieces[i].replace("▁", " ") for i in ids if i > 2
    )
    return text[1:] if text.startswith(" ") else text


def _names_of_bytes(ids, pieces):
    text = "".join(pieces[i] for i in ids if i > 2).replace("▁", " ")
    return text[1:] if text.startswith(" ") else text


def _first_letter_dropped(ids, pieces):
    return _all_text(ids, pieces)[1:]


def _all_spaces_dropped(ids, pieces):
    return _all_text(ids, pieces).lstrip()


def _spaces_at_both_ends(ids, pieces):
    return _all_text(ids, pieces).strip()


def _marker_kept(ids, pieces):
    return b"".join(_bytes_of(pieces[i], "▁") for i in ids if i > 2).decode(errors="replace")


def _special_tokens_shown(ids, pieces):
    text = b"".join(_bytes_of(pieces[i]) for i in ids).decode(errors="replace")
    return text[1:] if text.startswith(" ") else text


def _special_tokens_stripped(ids, pieces):
    """text.strip("<s>") takes off letters, not a word."""
    text = b"".join(_bytes_of(pieces[i]) for i in ids).decode(errors="replace").strip("</s>")
    return text[1:] if text.startswith(" ") else text


def _spaces_between(ids, pieces):
    return " ".join(pieces[i].replace("▁", "") for i in ids if i > 2)


_TEXTS = ["the naïve princess", "  two spaces before, two behind  ", "fox 🦊 and mouse 🐭s"]
_IDS = [(_tokenizer.encode(text) + [2] * (i < 2), _PIECES) for i, text in enumerate(_TEXTS)]
_IDS.append((_tokenizer.encode("milestone", add_special_tokens=False)[1:], _PIECES))  # begins within a word
_IDS.append((_tokenizer.encode("foxes 🦊")[:-1], _PIECES))  # ends within a character


EXERCISES = {
    "1.1": Exercise(
        name="count_pairs",
        right=count_pairs,
        cases=[(_WORDS,), (_WORDS[1:3],)],
        mistakes={
            "you count a word once, however often it stands in the text: add its number each time": _ignoring_times,
            "a pair that stands twice in a word counts twice: you count it once a word": _once_a_word,
            "the order matters: ('a', 'b') and ('b', 'a') are two pairs": _without_order,
            "you skip pairs: every two neighbours are one, so a piece belongs to two pairs": _every_second,
            "you pair the last piece of a word with its first": _around_the_end,
            "you count pairs across two words: a pair lies within one word": _across_words,
            "the last pair of every word is missing": _last_pair_missing,
            "a pair that is met again starts anew: add to the number it has": _overwritten,
            "the keys are joined texts: keep the pair, a tuple of two pieces": _joined,
        },
    ),
    "1.2": Exercise(
        name="encode_word",
        right=encode_word,
        cases=[(word, _RANK) for word in ("▁milestone", "▁steward", "▁brought", "▁Barbara", "▁eeel", "▁psss", "▁x")],
        mistakes={
            "you take the longest piece that fits: BPE joins the pair that was learned first": _longest_first,
            "you join the leftmost pair that makes a piece: take the one of the smallest rank": _leftmost,
            "you join the pair that was learned last: the smallest rank comes first": _last_learned,
            "you join the pair of the largest rank, the last learned: the smallest comes first": _last_learned_leftmost,
            "of two pairs with the same rank the left one comes first": _rightmost_of_equals,
            "you stop after one merge: go on until no pair makes a piece": _one_merge,
            "nothing is joined: a pair is known if its two texts together are a key of rank": _no_merge,
            "pieces of one letter are lost: they have no rank, and stay nevertheless": _letters_lost,
        },
    ),
    "1.3": Exercise(
        name="number_of_ids",
        right=8,
        mistakes={
            "that would be right if the emoji were one piece: it is spelled in its four bytes": 5,
            "one is missing: did you count <s>, and the ▁ before the emoji as a piece of its own?": 7,
            "two are missing: <s>, and the ▁ before the emoji as a piece of its own": 6,
            "that is the number of letters, not of pieces": 9,
            "<s> is one piece, the two words one each; the ▁ before the emoji and its bytes come next": 4,
        },
    ),
    "1.4": Exercise(
        name="decode",
        right=decode,
        cases=_IDS,
        mistakes={
            "you decode every id by itself, so each word loses its space and bytes are no characters": _one_by_one,
            "you decode every byte by itself: join the bytes of all pieces, then decode once": _bytes_one_by_one,
            "a byte is not a character: collect the bytes and decode them as UTF-8": _bytes_as_code_points,
            "a piece like <0xC3> stands for a byte; you write its name": _names_of_bytes,
            "you drop all spaces at the beginning: one is the tokenizer's, others are the text's": _all_spaces_dropped,
            "you strip spaces at both ends: only one, at the beginning, is the tokenizer's": _spaces_at_both_ends,
            "the space that encoding put before the text is still there: drop one": _all_text,
            "you drop the first character whatever it is: only a space is the tokenizer's": _first_letter_dropped,
            "a ▁ in a piece stands for a space": _marker_kept,
            "the special tokens, ids 0 to 2, are no text: leave them out": _special_tokens_shown,
            "errors='ignore' hides that a character is not complete: errors='replace' shows it": _unfinished_hidden,
            "strip('<s>') takes letters off the text: leave out special tokens by their ids": _special_tokens_stripped,
            "pieces are joined without anything between them: the spaces are in them, as ▁": _spaces_between,
        },
    ),
}
