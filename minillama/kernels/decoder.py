"""One pass through the whole model (the twin of model/decoder.py), run by several threads at the same time.

Every thread calls `forward` and goes through the same steps; in each it takes the rows or tasks that are its own, and
between two steps all threads meet. No memory is allocated, and what is summed in which order depends neither on the
threads nor on the other rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from minillama.kernels.attention import attention
from minillama.kernels.kept import kernel
from minillama.kernels.linear import PART, ROWS, from_row, linear_rows, task_count, task_end, task_rows
from minillama.kernels.llvm import LANES, SOURCES, inner
from minillama.kernels.mlp import gated
from minillama.kernels.norm import rms_norm
from minillama.kernels.quantize import arrange_row
from minillama.kernels.rope import rotate
from minillama.kernels.simd import load, put, store
from minillama.kernels.state import SLOTS, Arranged
from minillama.kernels.threads import at, fetch_add, wait_for
from minillama.layout import BLOCK

FLAGS, SCALES = np.zeros(1, np.uint8), np.zeros(1, np.int16)  # which kind of array is at an address
Q_PROJ, K_PROJ, V_PROJ, O_PROJ, GATE_PROJ, UP_PROJ, DOWN_PROJ = range(7)  # places in MATRICES


@inner
def meet(work: Any, threads: int, meeting: int) -> int:
    """Wait until all threads have come to this meeting; the number of the next."""
    fetch_add(work, 0, 1)
    wait_for(work, 0, meeting * threads)
    return meeting + 1


@inner
def add_row(x: Any, i: int, y: Any, j: int, width: int) -> None:
    """x[i : i + width] += y[j : j + width]"""
    for k in range(0, width, LANES):
        store(x, i + k, load(x, i + k) + load(y, j + k))


@inner
def arrange(to: Any, likes: Any, x: Any, i: int, width: int, row: int, rows: int) -> None:
    """x[i : i + width] as a row of what the next product reads, of a matrix like any of these."""
    arrange_row(likes, x, i, 0, width, width, to.a, to.s, to.z, row, rows)


@inner
def v_width(m: Any) -> int:
    """Numbers of a value in the cache: whole vectors."""
    return (m.head_dim + LANES - 1) // LANES * LANES


@inner
def norm_step(
    thread: int, threads: int, n: int, rows: int, m: Any, w: Any, room: Any, norm: int, changed: bool, bias: int
) -> None:
    """Add what the last product gave, and its bias if there is one (from place `bias` on), to the stream; the norm of
    that, arranged for the next product."""
    width = m.hidden_width
    for row in range(thread, n, threads):
        i = row * width
        if changed:
            if bias >= 0:
                add_row(room.change, i, w.biases[(norm - 1) // 2], bias, width)
            add_row(room.x, i, room.change, i, width)
        rms_norm(room.x, i, w.norms[norm], width, m.hidden, m.eps, room.normed, i)
        arrange(room.arranged, w.likes, room.normed, i, width, row, rows)


@inner
def arrange_step(
    thread: int, threads: int, n: int, rows: int, likes: Any, x: Any, x_step: int, width: int, room: Any
) -> None:
    """Rows of x, x_step apart, arranged for the next product, of a matrix like any of these."""
    for row in range(thread, n, threads):
        arrange(room.arranged, likes, x, row * x_step, width, row, rows)


@inner
def cache_key(x: Any, i: int, row: int, layer: int, g: int, m: Any, batch: Any) -> None:
    """x[i : i + K], key head g of a row, into the cache of its sequence."""
    b, place = batch.sequence[row], batch.place[row]
    keys, first = at(batch.keys[b], batch.cached), (layer * m.kv_heads + g) * batch.capacity[b]
    j = (first + place // LANES * LANES) * m.head_dim + place % LANES
    for k in range(m.head_dim):
        put(keys, j + k * LANES, x[i + k])


@inner
def cache_value(x: Any, i: int, row: int, layer: int, g: int, m: Any, batch: Any) -> None:
    """x[i : i + K], value head g of a row, into the cache of its sequence."""
    b, place = batch.sequence[row], batch.place[row]
    values, first = at(batch.values[b], batch.cached), (layer * m.kv_heads + g) * batch.capacity[b]
    j = (first + place) * v_width(m)
    for k in range(m.head_dim):
        put(values, j + k, x[i + k])


@inner
def rope_step(matrix: int, first: int, last: int, n: int, i: int, layer: int, m: Any, batch: Any, room: Any) -> None:
    """Heads first .. last - 1 of q, k or v, of the first row at room.qkv[i:]: queries and keys are turned, keys and
    values go into the cache."""
    K, half = m.head_dim, m.head_dim // 2
    for row in range(n):
        if matrix == Q_PROJ or (matrix == K_PROJ and not batch.turned):
            rotate(room.qkv, i, last - first, K, batch.cos, batch.sin, row * half)
        for head in range(first, last):
            j = i + (head - first) * K
            if matrix == K_PROJ:
                cache_key(room.qkv, j, row, layer, head, m, batch)
            elif matrix == V_PROJ:
                cache_value(room.qkv, j, row, layer, head, m, batch)
        i += m.qkv_width


@inner
def attention_step(thread: int, layer: int, slot: int, m: Any, batch: Any, room: Any) -> None:
    """Attention of all heads, task by task; the contexts take the place of the queries."""
    K, own = m.head_dim, room.own[thread]
    while True:
        task = fetch_add(room.work, slot, 1)
        if task >= len(batch.tasks):
            return
        b, g, row, last = batch.tasks[task]
        first = (layer * m.kv_heads + g) * batch.capacity[b]
        attention(
            room.qkv, batch.start[b], m.qkv_width, g, m.heads // m.kv_heads, row, last, K, batch.past[b],
            at(batch.keys[b], batch.cached), first * K, at(batch.values[b], batch.cached), first * v_width(m),
            at(batch.flags[b], FLAGS), 0, batch.masked, at(batch.key_cos[b], room.x), at(batch.key_sin[b], room.x),
            batch.turned, own, room.qkv, m.qkv_width,
        )  # fmt: skip


@inner
def rows_of_kind(
    like: Any, thread: int, out: Any, out_step: int, x: Any, where: Any, first: int, last: int, width: int, n: int,
    room: Any,
) -> None:  # fmt: skip
    """product_rows for a matrix like that."""
    rows, scales = from_row(at(where[0], like), at(where[1], SCALES), first, width)
    own = Arranged(x.a, x.s, x.z[where[3] * (1 if n == 1 else ROWS) :], x.terms)  # from its first term on
    linear_rows(out, out_step, rows, scales, 0, last - first, width, own, n, room.panel[thread])


def product_rows(kind: int, likes: Any, *task: Any) -> None:
    """The arranged activations x times the rows first .. last - 1 of one matrix, as the first columns of out. kind:
    which of `likes` the matrix is like. task: the other arguments of rows_of_kind."""
    raise NotImplementedError("called in kernels only")


@overload(product_rows)
def _product_rows(kind: int, likes: Any, *task: Any) -> Any:
    def of_one_kind(kind: int, likes: Any, *task: Any) -> None:
        rows_of_kind(likes[0], *task)

    def of_its_kind(kind: int, likes: Any, *task: Any) -> None:
        if kind == 0:
            rows_of_kind(likes[0], *task)
        else:
            product_rows(kind - 1, likes[1:], *task)

    return of_one_kind if len(likes) == 1 else of_its_kind


@inner
def product(
    thread: int, out: Any, out_step: int, x: Any, w: Any, where: Any, n_out: int, width: int, n: int, room: Any,
    slot: int,
) -> None:  # fmt: skip
    """This thread's share of the arranged activations x times one matrix. where: its entry in Weights.table."""
    step = task_rows(w.likes[0], n)
    while True:
        task = fetch_add(room.work, slot, 1)
        if task >= task_count(n_out, step):
            return
        first, last = task * step, task_end(task, n_out, step)
        product_rows(where[2], w.likes, thread, out[first:], out_step, x, where, first, last, width, n, room)


@inner
def qkv_pass(thread: int, n: int, layer: int, slot: int, m: Any, w: Any, batch: Any, room: Any) -> None:
    """Queries, keys and values, in one pass over the rows of their three matrices. A task is whole heads of one of
    them: whoever has computed these turns them and puts them into the cache."""
    step = max(task_rows(w.likes[0], n) // m.whole_heads, 1) * m.whole_heads
    sizes = (m.heads * m.head_dim, m.kv_heads * m.head_dim, m.kv_heads * m.head_dim)
    starts = (0, m.q_width, m.q_width + m.kv_width)
    while True:
        task, matrix = fetch_add(room.work, slot, 1), 0
        while task >= task_count(sizes[matrix], step):
            task -= task_count(sizes[matrix], step)
            matrix += 1
            if matrix == len(sizes):
                return
        row, last = task * step, task_end(task, sizes[matrix], step)
        i = starts[matrix] + row
        out, x = room.qkv[i:], room.arranged
        here = w.table[layer, matrix]
        product_rows(here[2], w.likes, thread, out, m.qkv_width, x, here, row, last, m.hidden_width, n, room)
        if m.attention_bias:
            for token in range(n):
                add_row(room.qkv, i + token * m.qkv_width, w.biases[layer], i, last - row)
        rope_step(matrix, row // m.head_dim, last // m.head_dim, n, i, layer, m, batch, room)


@inner
def gated_step(
    gate: Any, up: Any, step: int, first: int, last: int, n: int, rows: int, layer: int, m: Any, w: Any, room: Any
) -> None:
    """act(gate) * up of the features first .. last - 1, which lie in rows `step` apart, arranged for down_proj. What is
    behind the last feature is 0."""
    width, bias = last - first, m.qkv_width + m.hidden_width + first
    end = m.inner_width if last == m.inner else last
    # Taken out of the tuples once: each time counts references, which costs as much as the numbers of a short row
    likes, a, s, z = w.likes, room.joined.a, room.joined.s, room.joined.z
    for row in range(n):
        i = row * step
        if m.mlp_bias:
            add_row(gate, i, w.biases[layer], bias, width)
            add_row(up, i, w.biases[layer], bias + m.inner_width, width)
        gated(m.act, gate, i, up, i, width)
        for k in range(width, end - first):
            gate[i + k] = 0
        arrange_row(likes, gate, i, first, end, m.inner_width, a, s, z, row, rows)


@inner
def gated_pass(thread: int, n: int, rows: int, layer: int, slot: int, m: Any, w: Any, room: Any) -> None:
    """act(gate) * up, in one pass over the rows of the two matrices. A task is the same rows of both: whoever has
    computed these features, in room of his own, joins and arranges them."""
    step, x = max(task_rows(w.likes[0], n), PART), room.arranged
    gate, up, apart = room.gate[thread], room.up[thread], step + BLOCK  # the last task may be a little larger
    while True:
        task = fetch_add(room.work, slot, 1)
        if task >= task_count(m.inner, step):
            return
        first, last = task * step, task_end(task, m.inner, step)
        for out, matrix in ((gate, w.table[layer, GATE_PROJ]), (up, w.table[layer, UP_PROJ])):
            product_rows(matrix[2], w.likes, thread, out, apart, x, matrix, first, last, m.hidden_width, n, room)
        gated_step(gate, up, apart, first, last, n, rows, layer, m, w, room)


@inner
def final_step(thread: int, threads: int, n: int, rows: int, m: Any, w: Any, batch: Any, room: Any, bias: int) -> None:
    """The last change and the final norm; of the chosen rows, which become the first, arranged for the head."""
    width, layer = m.hidden_width, m.layers - 1
    for row in range(thread, n, threads):
        i = row * width
        if bias >= 0:
            add_row(room.change, i, w.biases[layer], bias, width)
        add_row(room.x, i, room.change, i, width)
        rms_norm(room.x, i, w.norms[2 * m.layers], width, m.hidden, m.eps, room.normed, i)
        for place in range(len(batch.chosen)):
            if batch.chosen[place] == row:
                arrange(room.arranged, w.likes, room.normed, i, width, place, rows)
        if len(room.hidden):
            for k in range(width):
                room.hidden[i + k] = room.normed[i + k]


@inner
def keep_states(thread: int, threads: int, n: int, layer: int, m: Any, room: Any) -> None:
    """This thread's rows of the stream as they are after a layer."""
    size = n * m.hidden_width
    for row in range(thread, n, threads):
        for k in range(row * m.hidden_width, (row + 1) * m.hidden_width):
            room.states[layer * size + k] = room.x[k]


def _kept(sources: str) -> Any:
    @kernel
    def forward(thread: int, threads: int, rows: int, head_rows: int, m: Any, w: Any, batch: Any, room: Any) -> None:
        """What thread number `thread` of `threads` does of one pass over the N rows in room.x.

        rows, head_rows: of a block of arranged activations, in the layers and for the head (see block_rows). The
        logits of the chosen rows are in room.logits then, and what was asked for in room.states and room.hidden.
        """
        sources  # noqa: B018  # see llvm.SOURCES
        n, chosen, L = len(batch.place), len(batch.chosen), m.layers
        if n == 0:  # a call that only compiles
            return
        o_bias = m.qkv_width if m.attention_bias else -1
        down_bias = m.qkv_width + m.hidden_width + 2 * m.inner_width if m.mlp_bias else -1
        meeting = 1
        for layer in range(L):
            slot = 1 + layer * SLOTS
            norm_step(thread, threads, n, rows, m, w, room, 2 * layer, layer > 0, down_bias)
            if layer and len(room.states):
                keep_states(thread, threads, n, layer - 1, m, room)
            meeting = meet(room.work, threads, meeting)
            width = m.hidden_width
            qkv_pass(thread, n, layer, slot, m, w, batch, room)
            meeting = meet(room.work, threads, meeting)
            attention_step(thread, layer, slot + 1, m, batch, room)
            meeting = meet(room.work, threads, meeting)
            arrange_step(thread, threads, n, rows, w.likes, room.qkv, m.qkv_width, m.q_width, room)
            meeting = meet(room.work, threads, meeting)
            x, o_proj = room.arranged, w.table[layer, O_PROJ]
            product(thread, room.change, width, x, w, o_proj, m.hidden, m.q_width, n, room, slot + 2)
            meeting = meet(room.work, threads, meeting)
            norm_step(thread, threads, n, rows, m, w, room, 2 * layer + 1, True, o_bias)
            meeting = meet(room.work, threads, meeting)
            gated_pass(thread, n, rows, layer, slot + 3, m, w, room)
            meeting = meet(room.work, threads, meeting)
            x, down = room.joined, w.table[layer, DOWN_PROJ]
            product(thread, room.change, width, x, w, down, m.hidden, m.inner_width, n, room, slot + 4)
            meeting = meet(room.work, threads, meeting)
        final_step(thread, threads, n, head_rows, m, w, batch, room, down_bias)
        if len(room.states):
            keep_states(thread, threads, n, L - 1, m, room)
        meeting = meet(room.work, threads, meeting)
        if chosen:
            slot, x, own = 1 + L * SLOTS, room.arranged, w.table[L, 0]
            product(thread, room.logits, m.vocab_width, x, w, own, m.vocab, m.hidden_width, chosen, room, slot)

    return forward


def _kept_head(sources: str) -> Any:
    @kernel
    def head(thread: int, threads: int, n: int, rows: int, m: Any, w: Any, room: Any) -> None:
        """What thread number `thread` of `threads` does of the logits of n rows of hidden states, in room.normed, in
        blocks of `rows`: the last step of forward, by itself and for any rows."""
        sources  # noqa: B018  # see llvm.SOURCES
        if n == 0:  # a call that only compiles
            return
        arrange_step(thread, threads, n, rows, w.likes, room.normed, m.hidden_width, m.hidden_width, room)
        meet(room.work, threads, 1)
        x, own = room.arranged, w.table[m.layers, 0]
        product(thread, room.logits, m.vocab_width, x, w, own, m.vocab, m.hidden_width, n, room, 1)

    return head


forward, head = _kept(SOURCES), _kept_head(SOURCES)
