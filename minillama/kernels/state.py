"""What a pass through the model works on: sizes, weights, the rows and sequences of a batch, and room to work in."""

from __future__ import annotations

from typing import NamedTuple

from minillama.arrays import Array

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # of a layer, in this order
BIASES = ("q_bias", "k_bias", "v_bias", "o_bias", "gate_bias", "up_bias", "down_bias")
SLOTS = 5  # of the work counters, for a layer: q, k and v; attention; o; gate and up; down


class Sizes(NamedTuple):
    """What the kernels need of a config. Rows of activations have room for whole groups of columns: `*_width`."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    whole_heads: int  # rows of q, k or v that are whole heads, and whole vectors too
    layers: int
    vocab: int
    hidden_width: int
    inner_width: int
    q_width: int  # of all query heads
    kv_width: int  # of all key/value heads
    qkv_width: int  # of queries, keys and values side by side
    vocab_width: int
    act: int  # see kernels/mlp.py
    eps: float
    attention_bias: bool
    mlp_bias: bool


class Weights(NamedTuple):
    """Where the weights are. table: int64 (L + 1, 7, 4), of each matrix the addresses of its numbers and scales, which
    of `likes` it is like, and which of the terms of the activations is the first that its kind needs; the head's in the
    last row. norms: float32 (2 L + 1, hidden_width). biases: float32 (L, all widths). likes: an array of each kind that
    matrices are of; all of floats, or all of whole numbers, which read activations in the same arrangement."""

    likes: tuple[Array, ...]
    table: Array
    norms: Array
    biases: Array


class Batch(NamedTuple):
    """The rows of one pass, and the sequences they are appended to.

    sequence, place: int64 (N,), which sequence a row belongs to, and its place there. cos, sin: float32 (N, K / 2).
    keys, values, flags, key_cos, key_sin: int64 (B,), addresses. start, past: int64 (B,), the first row of a sequence
    and how much is cached before it; capacity: int64 (B,), positions its cache has room for. tasks: int64 (n, 4),
    sequence, key/value head, and the rows of attention from .. to. chosen: int64 (C,), the rows that get logits.
    cached: an array of the kind of keys and values.
    """

    sequence: Array
    place: Array
    cos: Array
    sin: Array
    keys: Array
    values: Array
    flags: Array
    key_cos: Array
    key_sin: Array
    start: Array
    past: Array
    capacity: Array
    tasks: Array
    chosen: Array
    cached: Array
    masked: bool
    turned: bool


class Arranged(NamedTuple):
    """Activations as a product reads them, all of it one-dimensional: their numbers, and of whole numbers the scales
    and `terms` terms a group; see kernels/quantize.py."""

    a: Array
    s: Array
    z: Array
    terms: int


class Room(NamedTuple):
    """Memory to work in, most of it one-dimensional: x, the stream of activations, its change, and what is between.
    qkv: of each row the queries, keys and values; contexts take the place of the queries. arranged, joined: what the
    next product reads, the latter before down_proj. gate, up, own, panel: (threads, ...), each thread's own. work:
    counters, 0 at the beginning."""

    x: Array
    change: Array
    normed: Array
    qkv: Array
    arranged: Arranged
    joined: Arranged
    gate: Array
    up: Array
    logits: Array
    own: Array
    panel: Array
    work: Array
    states: Array  # hidden states after each layer, (L, N, hidden_width), or empty
    hidden: Array  # those after the final norm, (N, hidden_width), or empty
