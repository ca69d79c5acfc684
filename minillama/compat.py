"""Compat modes: where transformers does something else than minillama, and what `compat=` switches to reproduce it.

This table is the only place that says what a mode does; docs/differences.md explains each column.
"""

from typing import Literal, NamedTuple


class Compat(NamedTuple):
    """What one mode does in the cases where libraries disagree; anything else is the same in all of them."""

    # Which length decides the frequencies of rotary scalings that depend on one ("dynamic", "longrope"): each token's
    # own; or one for the whole call, the number of keys, or the last position + 1, cached keys staying as they were
    rope_length: Literal["token", "keys", "positions"]
    # What a query that may see no key averages over: nothing, which gives zeros; the keys before it that are padding
    # and the tokens after it that are not (two masks of the lowest number, added); or every key
    blind_queries: Literal["nothing", "forbidden once", "everything"]
    # Which token a classifier reads: the rightmost that is no padding; or the one before the first padding
    pooled_token: Literal["rightmost", "before first pad"]
    # Whether pretraining_tp above 1 splits products into as many partial sums
    pretraining_tp: bool


COMPAT: dict[str | None, Compat] = {
    None: Compat("token", "nothing", "rightmost", True),
    "hf4": Compat("keys", "forbidden once", "before first pad", True),  # transformers 4.34
    "hf5": Compat("positions", "everything", "rightmost", False),  # transformers 5, "eager" attention
}
