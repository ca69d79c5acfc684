"""What a query that may see no key averages over: nothing, or what it does in transformers, for comparing with it."""

import math

import numpy as np

from minillama.arrays import Array


def unseen_scores(visible: Array, attention_mask: Array | None, blind_queries: str) -> Array | float:
    """The scores of keys that may not be seen: -inf, but 0 where a query that sees no key looks all the same.

    visible: bool (B or 1, 1, T, S); attention_mask: (B, S); blind_queries: as in minillama.compat -> a number, or
    (B, 1, T, S).
    """
    if blind_queries == "nothing" or attention_mask is None:
        return -math.inf
    T, S = visible.shape[2:]
    blind = ~visible.any(axis=-1, keepdims=True)  # (B, 1, T, 1)
    equal, never = np.float32(0), np.float32(-math.inf)  # exact in every dtype that scores may have
    if blind_queries == "everything":
        return np.where(blind, equal, never)
    # Two masks of the lowest number are added: where both forbid, that is -inf; where one does, it is the same number
    # in the whole row, in which the scores themselves are lost
    future = np.arange(S) > np.arange(S - T, S)[:, None]  # (T, S)
    padding = attention_mask[:, None, None, :] == 0  # (B, 1, 1, S)
    return np.where(blind & (future != padding), equal, never)
