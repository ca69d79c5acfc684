"""What every table of hypotheses is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.debug.names import Place
from minillama.debug.steps import STEPS, How, Recomputation, Scene
from minillama.weights.parameters import Parameters


class Hypothesis(NamedTuple):
    """key: what it is called, `component.fault`. cause: the sentence that is told. steps: what is computed otherwise.
    rounds: it is about number formats, so only most of the numbers come out the same."""

    key: str
    cause: str
    steps: Mapping[str, How]
    rounds: bool = False


@dataclass
class Case:
    """A tensor of theirs that is not ours, and what it may have been made of. known: their intermediates, each of which
    agreed with ours before the target."""

    config: LlamaConfig
    weights: Parameters
    ids: list[Array]
    known: Mapping[str, Array]
    target: Place
    theirs: Array  # float64
    honest: Recomputation = field(init=False)

    def __post_init__(self) -> None:
        self.honest = self.recomputed({})

    def recomputed(self, steps: Mapping[str, How]) -> Recomputation:
        return Recomputation(self.weights, self.config, self.ids, self.known, self.target, steps)

    def beside(self, local: str) -> Array | None:
        """Another intermediate of theirs in the layer of the target."""
        name = self.target._replace(local=local).name
        return self.known.get(name)


def table(rows: Mapping[str, tuple[str, Mapping[str, How]]]) -> Iterator[Hypothesis]:
    """Hypotheses from `key: (cause, steps)`."""
    return (Hypothesis(key, cause, steps) for key, (cause, steps) in rows.items())


def multiplied(s: Scene, by: float) -> Array:
    """A step, and its result times a number."""
    return by * STEPS[s.local](s)
