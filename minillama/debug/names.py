"""The names of what a trace holds: every intermediate of docs/notation.md, with the axes of each.

A name is `model.layers.3.self_attn.q_rope`; of a later call than the first, `step.2.` stands before it: what was
computed for the second token after the prompt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from minillama.config import LlamaConfig
from minillama.messages import shown

EMBED_TOKENS, NORM, LOGITS = "model.embed_tokens", "model.norm", "logits"
FIRST = {EMBED_TOKENS: "B T D"}
# What each layer makes, in the order it does; the axes by the letters of docs/notation.md, merged ones in brackets
LAYER = {
    "input_norm": "B T D",
    "self_attn.q_proj": "B H T K",
    "self_attn.k_proj": "B G T K",
    "self_attn.v_proj": "B G T K",
    "self_attn.q_rope": "B H T K",
    "self_attn.k_rope": "B G T K",
    "self_attn.scores": "B H T S",
    "self_attn.probs": "B H T S",
    "self_attn.context": "B T (H K)",
    "self_attn.o_proj": "B T D",
    "residual": "B T D",
    "post_attention_norm": "B T D",
    "mlp.gate": "B T F",
    "mlp.up": "B T F",
    "mlp.act": "B T F",
    "mlp.down": "B T D",
    "output": "B T D",
}
LAST = {NORM: "B T D", LOGITS: "B T V"}
_NAME = re.compile(r"(?:step\.(\d+)\.)?(?:model\.layers\.(\d+)\.)?(.+)")


class Place(NamedTuple):
    """Where in a run something is computed. step: the number of the call. layer: None outside of the layers. local:
    the rest of the name."""

    step: int
    layer: int | None
    local: str

    @property
    def name(self) -> str:
        of_layer = "" if self.layer is None else f"model.layers.{self.layer}."
        return f"{prefix(self.step)}{of_layer}{self.local}"


def prefix(step: int) -> str:
    """What stands before the names of a call."""
    return f"step.{step}." if step else ""


def place(name: str) -> Place | None:
    """What a name stands for; None if it is none of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    step, layer, local = match.groups()
    known = local in LAYER if layer is not None else local in FIRST | LAST
    return Place(int(step or 0), None if layer is None else int(layer), local) if known else None


def axes(local: str) -> str:
    """The axes of an intermediate."""
    return (FIRST | LAYER | LAST)[local]


def sides(local: str) -> list[str]:
    """The axes of an intermediate one by one, merged ones as "H K"."""
    return [merged or single for merged, single in re.findall(r"\(([^)]*)\)|(\w)", axes(local))]


def in_order(layers: int, steps: Iterable[int]) -> Iterator[Place]:
    """Everything that is computed, in order."""
    for step in steps:
        yield Place(step, None, EMBED_TOKENS)
        yield from (Place(step, layer, local) for layer in range(layers) for local in LAYER)
        yield from (Place(step, None, local) for local in LAST)


def turn(where: Place) -> tuple[float, float, int]:
    """What sorts places into the order in which they are computed."""
    first = where.local in FIRST
    layer = where.layer if where.layer is not None else -1 if first else math.inf
    return where.step, layer, list(FIRST | LAYER | LAST).index(where.local)


def sizes(config: LlamaConfig) -> dict[str, int]:
    """The letters of docs/notation.md that a config decides."""
    c = config
    return {"D": c.hidden_size, "H": c.num_attention_heads, "G": c.num_key_value_heads, "K": c.head_dim,
            "F": c.intermediate_size, "V": c.vocab_size, "L": c.num_hidden_layers}  # fmt: skip


def shape(local: str, known: dict[str, int]) -> tuple[int, ...]:
    """The shape of an intermediate, with the size of every letter known."""
    return tuple(math.prod(known[letter] for letter in letters.split()) for letters in sides(local))


def is_chosen(where: Place, names: Sequence[str], layers: Collection[int] | None) -> bool:
    """Whether a selection has it. names: patterns with *, ? and [...], each of a whole name or of the part after the
    layer or of its last word. layers: None for all; what is in no layer is not asked."""
    if layers is not None and where.layer is not None and where.layer not in layers:
        return False
    spellings = (where._replace(step=0).name, where.local, where.local.rpartition(".")[2])
    return any(fnmatchcase(spelling, pattern) for pattern in names for spelling in spellings)


def is_shown(where: Place, rope_type: str) -> bool:
    """Keys that are rotated anew for each run of queries have no one tensor (docs/notation.md)."""
    return not (where.local == "self_attn.k_rope" and rope_type in ("dynamic", "longrope"))


def check_patterns(names: Sequence[str], layers: int) -> None:
    """ValueError for a pattern that no intermediate has."""
    everything = list(in_order(layers, [0]))
    for pattern in names:
        if not any(is_chosen(where, [pattern], None) for where in everything):
            local = ", ".join(name.rpartition(".")[2] for name in FIRST | LAYER | LAST)
            raise ValueError(
                f"no intermediate is called {shown(pattern)}: take patterns such as 'q_*' or 'mlp.*' of {local}"
            )
