"""Answers to the exercises of chapter 8."""

import numpy as np

from minillama.model.ops import softmax


# Exercise 8.1
def greedy(logits_of, ids, count, eos):
    new = []
    for _ in range(count):
        token = int(np.argmax(logits_of(ids + new)))
        new.append(token)
        if token == eos:
            break
    return new


# Exercise 8.2
def probabilities(logits, temperature):
    if temperature == 0:
        p = np.zeros(len(logits))
        p[np.argmax(logits)] = 1
        return p
    return softmax(logits / temperature)


# Exercise 8.3
def top_p(logits, p):
    order = np.argsort(-logits)
    total = softmax(logits)[order].cumsum()
    count = np.searchsorted(total, p) + 1  # the one that crosses the border is the last
    kept = np.full(len(logits), -np.inf)
    kept[order[:count]] = logits[order[:count]]
    return kept


# Exercise 8.4
def penalize(logits, seen, penalty):
    new = logits.copy()
    for i in set(seen):
        new[i] = new[i] / penalty if new[i] > 0 else new[i] * penalty
    return new
