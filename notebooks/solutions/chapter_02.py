"""Answers to the exercises of chapter 2."""

import numpy as np

from minillama.model.heads import log_softmax


# Exercise 2.1
def nearest(index, table, number):
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosines = unit @ unit[index]
    cosines[index] = -2  # below all others
    return np.argsort(-cosines)[:number].tolist()


# Exercise 2.2
def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


# Exercise 2.3
def next_token_loss(logits, ids):
    log_p = log_softmax(logits[:-1])
    predicted = ids[1:]
    return -np.mean(log_p[np.arange(len(predicted)), predicted])


# Exercise 2.4
def bits_per_byte(loss, number_of_ids, text):
    bits = loss * (number_of_ids - 1) / np.log(2)
    return bits / len(text.encode())
