"""A model made for the kernels: packed weights and room to work in, allocated once, and threads that run passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from minillama.arrays import Array, check_ids
from minillama.config import LlamaConfig
from minillama.forking import renew_after_fork
from minillama.kernels import ACTIVATIONS
from minillama.kernels.attention import own_room
from minillama.kernels.decoder import forward, head
from minillama.kernels.floats import panel_room
from minillama.kernels.kept import is_compiled
from minillama.kernels.linear import TASK, block_rows, whole_blocks
from minillama.kernels.llvm import LANES
from minillama.kernels.state import BIASES, MATRICES, SLOTS, Arranged, Batch, Room, Sizes, Weights
from minillama.layout import BLOCK, GROUP, QUANTIZED, TILE, WHOLE, terms_of
from minillama.model.rope import Rotary
from minillama.runtime.batch import Append, Description, shape_of
from minillama.runtime.cache import RowCache
from minillama.runtime.packing import KINDS, Packed, aligned, pack, row_width
from minillama.runtime.threads import Team
from minillama.weights import names
from minillama.weights.finite import first_odd_number
from minillama.weights.formats import widen_into
from minillama.weights.mapped import mappings_of
from minillama.weights.safetensors import ArrayTensor, StoredTensor, Tensor

SOME = 256  # rows that get logits together
SMALL = 1 << 24  # products of a pass, below which several threads wait for each other longer than they work
EVERYBODY = 1 << 60  # more threads than meet in any pass


@dataclass
class Passed:
    """What a pass gave."""

    logits: Array  # (wanted, V)
    hidden: Array | None = None  # (N, D), after the final norm
    states: Array | None = None  # (L, N, D), after each layer


class FastModel:
    """Weights of a decoder, packed in one format or in several of whole numbers, and what runs them. The same numbers
    come out whatever the number of threads and whatever else is in a pass."""

    def __init__(
        self,
        config: LlamaConfig,
        tensors: Mapping[str, Tensor],
        form: str,
        cache_form: str,
        threads: int,
    ):
        self.config, self.tensors, self.form, self.cache_form, self.threads = config, tensors, form, cache_form, threads
        self.rotary = Rotary(config)
        self.sizes = _sizes(config, form)
        self.packed: dict[str, Packed] = {}
        found = {self._form_of(name) for name in self._matrices()}
        self.forms = [known for known in KINDS if known in found]  # of matrices, in one order: fewer kinds of kernels
        self.terms = terms_of(self.forms) if form in WHOLE else ()
        self.weights = self._pack()
        embeddings = tensors[names.EMBED_TOKENS]
        at_hand = isinstance(embeddings, StoredTensor | ArrayTensor)  # others are put together when they are read
        self._embeddings = embeddings.stored() if at_hand else None
        read = [array for matrix in self.packed.values() for array in matrix]
        self._mappings = mappings_of(read if self._embeddings is None else [*read, self._embeddings])
        self.room = _room(self.sizes, form, self.terms, threads, 1)
        self.rows = 1
        self.on_tokens: Callable[[int], object] | None = None  # is told how many tokens a pass has computed
        self._one_at_a_time = Lock()  # there is one room, and all threads must be on the same pass
        self._team, self._alone = Team(threads), Team(1)
        self._products = sum(math.prod(tensors[name].shape) for name in self.packed)  # of one row
        self._overflows = False
        self._description = Description(self.rotary, cache_form, shape_of([]))
        renew_after_fork(self)

    def renew(self) -> None:
        """Free the room, which another thread may have been in when this process was forked. Its pass left nothing that
        the next one reads."""
        self._one_at_a_time = Lock()

    def __deepcopy__(self, memo: object) -> FastModel:
        """Itself: it holds nothing of a text."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("what runs a model cannot be pickled: pickle the model, and make engines and caches from that")

    @property
    def compiled(self) -> bool:
        """Whether the kernels for models of this kind are compiled, here or in Numba's cache on disk."""
        return is_compiled(forward, self._nothing())

    def compile(self) -> None:
        """Compile the kernels, or load them: before two threads need them."""
        forward(*self._nothing())

    def _nothing(self) -> tuple[Any, ...]:
        """The arguments of a pass over no tokens."""
        nothing = Description(self.rotary, self.cache_form, shape_of([]))
        return 0, 1, 1, 1, self.sizes, self.weights, nothing.batch, self.room

    def new_cache(self) -> RowCache:
        return RowCache(
            self.config.num_hidden_layers, self.config.num_key_value_heads, self.config.head_dim, self.cache_form
        )

    def embed(self, ids: Array, out: Array | None = None) -> Array:
        """Ids (T,) in 0 .. V - 1 -> (T, D), float32, in `out` if it is given."""
        check_ids("input_ids", ids, self.config.vocab_size)
        self._check_files()
        if out is None:
            return self.tensors[names.EMBED_TOKENS].read(np.float32, ids)
        if self._embeddings is None:
            out[:] = self.tensors[names.EMBED_TOKENS].read(np.float32, ids)
        else:
            for token, row in zip(ids.tolist(), out, strict=True):
                widen_into(self._embeddings[token], self.tensors[names.EMBED_TOKENS].dtype, row)
        return out

    def run(
        self, appends: Sequence[Append], *, hidden: bool = False, states: bool = False, logits: Array | None = None
    ) -> Passed:
        """One pass: append to each sequence, and compute. At most one Append for a cache. One at a time: a second
        thread that calls waits until the first has its answer.

        logits: where they go, (wanted, V) float32; by default into a new array. With it nothing is allocated that grows
        with the model, as long as passes have the same shape and the caches have room.
        """
        with self._one_at_a_time:
            return self._run(appends, hidden, states, logits)

    def _check_files(self) -> None:
        """ValueError that names a file of weights that has become shorter: kernels read it where it lies."""
        for mapping in self._mappings:
            mapping.check()

    def _run(self, appends: Sequence[Append], hidden: bool, states: bool, logits: Array | None) -> Passed:
        self._check_files()
        m = self.sizes
        counts = [len(append.x) for append in appends]
        n, chosen = sum(counts), sum(len(append.wanted) for append in appends)
        if n > self.rows:
            self.room, self.rows = _room(m, self.form, self.terms, self.threads, n), n
        rows, head_rows = (block_rows(self.form in QUANTIZED, count) for count in (n, chosen))
        room = self._asked_room(n, chosen, hidden, states)
        x = room.x[: n * m.hidden_width].reshape(n, m.hidden_width)
        start = 0
        for append, count in zip(appends, counts, strict=True):
            x[start : start + count, : m.hidden] = append.x
            x[start : start + count, m.hidden :] = 0  # where the last pass may have left something
            start += count
        room.work[:] = 0
        batch = self._described(appends)
        self._all_threads(forward, n * self._products, rows, head_rows, m, self.weights, batch, room)
        for append in appends:
            append.cache.length += len(append.x)
        if self.on_tokens:
            self.on_tokens(n)
        return Passed(
            self._logits(room, np.empty((chosen, m.vocab), np.float32) if logits is None else logits),
            room.hidden.reshape(n, -1)[:, : m.hidden].copy() if hidden else None,
            room.states.reshape(m.layers, n, -1)[:, :, : m.hidden].copy() if states else None,
        )

    def lm_logits(self, hidden: Array) -> Array:
        """Normalized hidden states (N, D) -> the logits (N, V) that a pass gives for them, to the bit."""
        with self._one_at_a_time:
            self._check_files()
            m, N = self.sizes, len(hidden)
            head(0, 1, 0, 1, m, self.weights, self.room)  # compiled before two threads need it
            logits = np.empty((N, m.vocab), np.float32)
            for start in range(0, N, SOME):
                part = hidden[start : start + SOME]
                n = len(part)
                if n > self.rows:
                    self.room, self.rows = _room(m, self.form, self.terms, self.threads, n), n
                room = self._asked_room(0, n, hidden=False, states=False)
                rows = room.normed[: n * m.hidden_width].reshape(n, m.hidden_width)
                rows[:, : m.hidden], rows[:, m.hidden :] = part, 0
                room.work[:] = 0
                products = n * m.vocab * m.hidden
                self._all_threads(head, products, n, block_rows(self.form in QUANTIZED, n), m, self.weights, room)
                self._logits(room, logits[start : start + n])
        return logits

    def _all_threads(self, kernel: Callable[..., None], products: int, *arguments: object) -> None:
        """Run kernel(thread, threads, *arguments) in as many threads as it is worth, this one among them."""

        def release() -> None:
            self.room.work[0] = EVERYBODY

        (self._team if products >= SMALL else self._alone).run(kernel, arguments, release)

    def _logits(self, room: Room, out: Array) -> Array:
        """The logits of a pass, in `out` (n, V). ValueError that names the weight if they are not finite because of
        one."""
        n, m = len(out), self.sizes
        out[...] = room.logits[: n * m.vocab_width].reshape(n, m.vocab_width)[:, : m.vocab]
        # The least and the largest are finite if all are: looked at one by one they would need room
        if n and not self._overflows and not (math.isfinite(out.min()) and math.isfinite(out.max())):
            odd = first_odd_number({name: tensor for name, tensor in self.tensors.items() if name != names.SCORE})
            if odd is not None:
                raise ValueError(f"the weights have a NaN or an infinite number, {odd}: get them again")
            self._overflows = True  # it is the activations: nothing to look for again
        return out

    def _asked_room(self, n: int, chosen: int, hidden: bool, states: bool) -> Room:
        m, room = self.sizes, self.room
        needed = whole_blocks(self.form in QUANTIZED, chosen) * m.vocab_width
        if room.logits.size < needed:
            self.room = room = room._replace(logits=np.zeros(needed, np.float32))
        if hidden:
            room = room._replace(hidden=np.zeros(n * m.hidden_width, np.float32))
        if states:
            room = room._replace(states=np.zeros(m.layers * n * m.hidden_width, np.float32))
        return room

    def _described(self, appends: Sequence[Append]) -> Batch:
        """The description of a pass; where the last one had the same shape, in the same arrays."""
        shape = shape_of(appends)
        if shape != self._description.shape:
            self._description = Description(self.rotary, self.cache_form, shape)
        return self._description.fill(appends)

    def runs(self, cache: RowCache, positions: Array) -> list[int]:
        """Where the rotary frequencies of new tokens change, which must then come in passes of their own."""
        if not self.rotary.by_length:
            return []
        inv_freq = self.rotary.inv_freq(positions[None], cache.length + len(positions))[0]
        return (np.flatnonzero((inv_freq[1:] != inv_freq[:-1]).any(axis=1)) + 1).tolist()

    # -- weights ----------------------------------------------------------------------------------------------

    def _pack(self) -> Weights:
        c, m = self.config, self.sizes
        table = np.zeros((c.num_hidden_layers + 1, len(MATRICES), 4), np.int64)
        norms = np.zeros((2 * c.num_hidden_layers + 1, m.hidden_width), np.float32)
        widths = (m.q_width, m.kv_width, m.kv_width, m.hidden_width, m.inner_width, m.inner_width, m.hidden_width)
        biases = np.zeros((c.num_hidden_layers, sum(widths)), np.float32)
        for i in range(c.num_hidden_layers):
            for place, matrix in enumerate(MATRICES):
                table[i, place] = self._entry(names.layer_name(i, matrix))
            for place, norm in enumerate(("input_norm", "post_attention_norm")):
                norms[2 * i + place, : m.hidden] = self._vector(names.layer_name(i, norm))
            for place, bias in enumerate(BIASES):
                name = names.layer_name(i, bias)
                if name in self.tensors:
                    vector = self._vector(name)
                    start = sum(widths[:place])
                    biases[i, start : start + len(vector)] = vector
        norms[-1, : m.hidden] = self._vector(names.NORM)
        if names.LM_HEAD in self.tensors:
            table[-1, 0] = self._entry(names.LM_HEAD)
        return Weights(tuple(np.zeros(1, KINDS[form]) for form in self.forms), table, norms, biases)

    def _matrices(self) -> list[str]:
        """The names of those that activations are multiplied by."""
        layers = range(self.config.num_hidden_layers)
        of_layers = [names.layer_name(layer, matrix) for layer in layers for matrix in MATRICES]
        return [*of_layers, names.LM_HEAD] if names.LM_HEAD in self.tensors else of_layers

    def _form_of(self, name: str) -> str:
        """The format of a matrix: its own where that and the others' are of whole numbers, which may be mixed."""
        own = self.tensors[name].dtype.lower() if name in self.tensors else self.form
        return own if {own, self.form} <= {*QUANTIZED} else self.form

    def _entry(self, name: str) -> tuple[int, ...]:
        """What the table has of a matrix."""
        form = self._form_of(name)
        first = self.terms.index(WHOLE[form].terms[0]) if form in WHOLE else 0
        return *self._packed(name).addresses, self.forms.index(form), first

    def _packed(self, name: str) -> Packed:
        try:
            self.packed[name] = packed = pack(self.tensors[name], self._form_of(name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return packed

    def _vector(self, name: str) -> Array:
        return self.tensors[name].read(np.float32)


def _sizes(c: LlamaConfig, form: str) -> Sizes:
    q_width = row_width(c.num_attention_heads * c.head_dim, form)
    kv_width = row_width(c.num_key_value_heads * c.head_dim, form)
    return Sizes(
        hidden=c.hidden_size,
        inner=c.intermediate_size,
        heads=c.num_attention_heads,
        kv_heads=c.num_key_value_heads,
        head_dim=c.head_dim,
        whole_heads=math.lcm(c.head_dim, TILE),
        layers=c.num_hidden_layers,
        vocab=c.vocab_size,
        hidden_width=row_width(c.hidden_size, form),
        inner_width=row_width(c.intermediate_size, form),
        q_width=q_width,
        kv_width=kv_width,
        qkv_width=q_width + 2 * kv_width,
        vocab_width=row_width(c.vocab_size, form),
        act=ACTIVATIONS[c.hidden_act],
        eps=c.rms_norm_eps,
        attention_bias=c.attention_bias,
        mlp_bias=c.mlp_bias,
    )


def _room(m: Sizes, form: str, terms: Sequence[str], threads: int, n: int) -> Room:
    """Room for n rows."""
    quantized = form in QUANTIZED
    rows = whole_blocks(quantized, n)

    def floats(count: int) -> Array:
        room = aligned(count, np.float32)
        room[:] = 0  # what is behind a row's numbers stays 0
        return room

    def arranged(width: int) -> Arranged:
        numbers = aligned(rows * width, np.int8 if quantized else np.float32)
        numbers[:] = 0
        groups = rows * width // GROUP if quantized else 1
        return Arranged(numbers, floats(groups), np.zeros(groups * max(len(terms), 1), np.int32), len(terms))

    stream, part = rows * m.hidden_width, (threads, rows * (TASK + BLOCK))
    return Room(
        floats(stream), floats(stream), floats(stream), floats(rows * m.qkv_width),
        arranged(max(m.hidden_width, m.q_width)), arranged(m.inner_width),
        np.zeros(part, np.float32), np.zeros(part, np.float32), floats(m.vocab_width),
        np.zeros((threads, own_room(m.head_dim, m.heads // m.kv_heads)), np.float32),
        floats(threads * (panel := LANES if quantized else panel_room(rows))).reshape(threads, panel),
        np.zeros(2 + (m.layers + 1) * SLOTS, np.int64), floats(0), floats(0),
    )  # fmt: skip
