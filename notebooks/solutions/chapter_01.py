"""Answers to the exercises of chapter 1."""


# Exercise 1.1
def count_pairs(words):
    counts = {}
    for pieces, times in words:
        for i in range(len(pieces) - 1):
            pair = (pieces[i], pieces[i + 1])
            counts[pair] = counts.get(pair, 0) + times
    return counts


# Exercise 1.2
def encode_word(word, rank):
    pieces = list(word)
    while True:
        best = None
        for i in range(len(pieces) - 1):
            together = pieces[i] + pieces[i + 1]
            if together in rank and (best is None or rank[together] < rank[pieces[best] + pieces[best + 1]]):
                best = i
        if best is None:
            return pieces
        pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]


# Exercise 1.3
number_of_ids = 1 + 2 + 1 + 4  # <s>, ▁The ▁fox, ▁, four bytes


# Exercise 1.4
def decode(ids, pieces):
    spelled = b""
    for i in ids:
        if i <= 2:
            continue
        piece = pieces[i]
        if piece.startswith("<0x"):
            spelled += bytes([int(piece[3:5], 16)])
        else:
            spelled += piece.replace("▁", " ").encode()
    text = spelled.decode(errors="replace")
    return text[1:] if text.startswith(" ") else text
