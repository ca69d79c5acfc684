"""Bits a byte on held-out text: the tale model beside an n-gram, gzip and xz.

    python data/train/bits_per_byte.py --valid tales-valid.txt --tales tales.txt

The model sees each story by itself, in windows of its whole context that overlap by half, so that every token is
predicted once, from at least half a context where the story has one; the end of the story counts as a token too.
"""

import argparse
import gzip
import lzma
import math
from collections.abc import Sequence

import numpy as np
from tokenizer import read_stories

from minillama import LlamaForCausalLM, load_tokenizer, tale_model
from minillama.model.heads import log_softmax


def model_bits(model: LlamaForCausalLM, ids: Sequence[int]) -> float:
    """Bits of ids[1:], each given what comes before it."""
    context, bits, done = model.config.context_length, 0.0, 1
    for start in range(0, len(ids), context // 2):
        window = np.array(ids[start : start + context + 1])
        log_p = log_softmax(model(window[None, :-1]).logits[0])  # (T, V)
        log_p = log_p[np.arange(len(window) - 1), window[1:]]
        bits -= log_p[done - start - 1 :].sum(dtype=np.float64) / math.log(2)
        done = start + len(window)
        if done == len(ids):
            break
    return bits


def ngram_bits(train: bytes, test: bytes, order: int = 7) -> float:
    """Bits of `test` by a byte n-gram, each order smoothed with the one below it (Witten and Bell 1991):

    p(b | h) = (count(h b) + distinct(h) p(b | h without its first byte)) / (count(h) + distinct(h))
    """
    p = np.full(len(test), 1 / 256)
    for n in range(order + 1):  # bytes of history
        grams, counts = np.unique(_grams(train, n + 1), return_counts=True)
        histories, first, distinct = np.unique(grams >> np.uint64(8), return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first)
        here = _grams(test, n + 1)
        c, (t, d) = _look_up(grams, here, counts)[0], _look_up(histories, here >> np.uint64(8), totals, distinct)
        seen = t > 0
        p[n:][seen] = (c[seen] + d[seen] * p[n:][seen]) / (t[seen] + d[seen])
    return float(-np.log2(p).sum())


def _grams(text: bytes, n: int) -> np.ndarray:
    """Every run of n <= 8 bytes as one number."""
    data = np.frombuffer(text, np.uint8).astype(np.uint64)
    grams = np.zeros(len(data) - n + 1, np.uint64)
    for i in range(n):
        grams = grams << np.uint64(8) | data[i : len(data) - n + 1 + i]
    return grams


def _look_up(keys: np.ndarray, wanted: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return [np.where(keys[place] == wanted, value[place], 0) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--valid", required=True, help="held-out corpus: <|story|> on a line before every story")
    parser.add_argument("--tales", required=True, help="training corpus, for the n-gram")
    parser.add_argument("--weights", default=tale_model(), help="default: the tale model")
    args = parser.parse_args()

    stories = read_stories(args.valid)
    text = "\n\n".join(stories).encode()
    model, tokenizer = LlamaForCausalLM.from_pretrained(args.weights), load_tokenizer(args.weights)
    rows = [[*tokenizer.encode(story), model.config.eos_token_id] for story in stories]
    size = sum(len(story.encode()) for story in stories)
    train = "\n\n".join(read_stories(args.tales)).encode()
    figures = {
        "the model": sum(model_bits(model, row) for row in rows) / size,
        "byte n-gram, 7 bytes of history, Witten-Bell": ngram_bits(train, text) / len(text),
        "xz -9e": 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text),
        "gzip -9": 8 * len(gzip.compress(text, 9)) / len(text),
    }
    print(f"{len(stories)} stories, {size:,} bytes, {sum(map(len, rows)):,} tokens")
    for name, bits in figures.items():
        print(f"{bits:.4f} bits a byte: {name}")


if __name__ == "__main__":
    main()
