"""What a property is: one sentence about a component that is true or not, and cases to try it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minillama.arrays import Array
from minillama.testing.levels import Level

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Case: TypeAlias = dict[str, Any]  # what was drawn: arrays and settings by name
Implementation: TypeAlias = Mapping[str, Any]  # functions and constants by their documented names
EXACT = 1e12  # so many times what is allowed, nothing is
Variants: TypeAlias = Mapping[str, Callable[[], Any]]  # what to tell -> the numbers that this mistake gives


@dataclass(frozen=True)
class Property:
    """component: the name of the function it is about. sentence: what must hold. cases: gives a strategy of cases for a
    level. holds: raises Mismatch if the implementation breaks it in a case. needs: the functions it calls, if they are
    others than the component's."""

    component: str
    name: str
    sentence: str
    cases: Callable[[Level], SearchStrategy[Case]]
    holds: Callable[[Implementation, Case, Level], None]
    needs: tuple[str, ...]
    examples: int = 50

    @property
    def id(self) -> str:
        return f"{self.component}::{self.name}"


class Properties(list[Property]):
    """The properties of one component, in the order they were written; called, it takes a function in as another."""

    def __init__(self, component: str):
        super().__init__()
        self.component = component

    def __call__(
        self,
        sentence: str,
        cases: Callable[[Level], SearchStrategy[Case]],
        *,
        needs: Iterable[str] = (),
        examples: int = 50,
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        def take(holds: Callable[..., None]) -> Callable[..., None]:
            name = holds.__name__.strip("_")
            wanted = tuple(needs) or (self.component,)
            self.append(Property(self.component, name, sentence, cases, holds, wanted, examples))
            return holds

        return take


class Mismatch(Exception):  # noqa: N818  # not an error of this program
    """Numbers that are not what they must be. causes: known mistakes that give these numbers."""

    def __init__(self, told: str, causes: Iterable[str] = ()):
        super().__init__(told)
        self.causes = frozenset(causes)


def agree(given: Any, wanted: Array, allowed: Any, what: str = "the result", variants: Variants | None = None) -> None:
    """Mismatch unless every number is as near to the wanted one as is allowed.

    wanted: NaN where any number will do. allowed: like wanted, or a number for all. variants: mistakes to compare
    with if it does not agree.
    """
    given = as_floats(given, wanted.shape, what)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(given - wanted) / allowed
    off = np.where(np.isnan(wanted), 0, np.where(np.isfinite(off), off, np.inf))
    if off.max(initial=0) <= 1:
        return
    first = tuple(int(i) for i in np.argwhere(off > 1)[0])
    worst = tuple(int(i) for i in np.unravel_index(off.argmax(), off.shape))
    lines = [f"{what}{list(first)} is {given[first]:.9g} and must be {wanted[first]:.9g}{_times(off[first])}"]
    if worst != first:
        lines.append(
            f"the worst, {list(worst)}, is {given[worst]:.9g} and must be {wanted[worst]:.9g}{_times(off[worst])}"
        )
    lines.append(f"{int((off > 1).sum())} of {off.size} numbers are off")
    raise Mismatch("\n".join(lines), _causes(given, wanted, allowed, variants or {}))


def as_floats(given: Any, shape: tuple[int, ...], what: str) -> Array:
    """What was returned as float64. Mismatch for what is not an array of real floating-point numbers of that shape."""
    try:
        array = np.asarray(given)
        floats = array.astype(np.float64) if array.dtype != object else None
    except (TypeError, ValueError):
        floats = None
    if floats is None:
        raise Mismatch(f"{what} is {_kind(given)} and must be an array of numbers")
    if array.dtype.kind in "biuc":
        raise Mismatch(f"{what} is an array of {array.dtype} and must be one of real floating-point numbers")
    if array.shape != shape:
        raise Mismatch(f"{what} has the shape {array.shape} and must have {shape}")
    return floats


def _causes(given: Array, wanted: Array, allowed: Any, variants: Variants) -> list[str]:
    counts = ~np.isnan(wanted)
    # What must be small, or 0, may hardly be off at all, but a mistake's own numbers there are rounded like all others
    rounded = np.where(wanted == 0, np.max(allowed), allowed)
    largest = np.max(np.abs(wanted), where=counts, initial=0)
    share = np.max(allowed) / largest if largest else 0.0

    def same(a: Array, b: Array, tolerance: Array) -> bool:
        return bool((np.abs(a - b) <= tolerance)[counts].all())

    causes = []
    for told, variant in variants.items():
        with np.errstate(all="ignore"):
            numbers = np.asarray(variant(), np.float64)
            near = np.maximum(rounded, share * np.abs(numbers)) if numbers.shape == wanted.shape else None
            if near is not None and same(given, numbers, near) and not same(numbers, wanted, allowed):
                causes.append(told)
    return causes


def _times(off: float) -> str:
    return f", {off:.3g} times what is allowed" if off < EXACT else ""


def _kind(thing: object) -> str:
    return "None" if thing is None else f"a {type(thing).__name__}"
