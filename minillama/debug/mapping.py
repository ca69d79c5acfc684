"""Another implementation's names and array layouts as ours, by a small TOML file of rules.

    [[rule]]
    source = "Qcur-{layer}"                           their name; {layer} and {t} (a position) stand for numbers
    name = "model.layers.{layer}.self_attn.q_rope"    ours
    axes = "T (H K)"                                  their axes by the letters of docs/notation.md, merged ones in
                                                      brackets; where it is left out, ours. B may be missing everywhere
    layout = "interleaved"                            the pairs of a head are neighbours (else halves)
    times = "1/sqrt(K)"                               their numbers times this are ours; * and / of numbers, letters
                                                      and sqrt() of these
    future = "padding"                                there are more keys than tokens, and none is meant beyond those;
                                                      "garbage": nor is any after the query

A source with {t} is one array a position, which are put together along T. Names that no rule has are kept if they are
ours. `step.n.` before a name, which says that it is of the nth call after the prompt's, stays. The first rule that
matches a name counts; of several sources for one name, the first rule's.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.debug import names
from minillama.debug.dumps import Arrays
from minillama.debug.traces import Trace
from minillama.messages import listed, shown

SHIPPED = {file.stem: file for file in sorted((Path(__file__).parent / "mappings").glob("*.toml"))}
_FACTOR = re.compile(r"([*/]?)\s*(?:sqrt\((\w)\)|([A-Z])|(\d+(?:\.\d+)?))\s*")


@dataclass(frozen=True)
class Rule:
    """What becomes of the arrays of one kind."""

    source: str
    name: str
    axes: str | None = None
    layout: str = "halves"
    times: str = "1"
    future: str = "meant"

    def match(self, name: str) -> re.Match[str] | None:
        parts = re.split(r"\{(layer|t)\}", self.source)
        pattern = "".join(rf"(?P<{part}>\d+)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
        return re.fullmatch(pattern, name)


def read_mapping(name: str) -> list[Rule]:
    """The rules of a mapping that is shipped, by its name, or in a file. ValueError that names it if it is none."""
    file = SHIPPED.get(name, Path(name))
    if not file.is_file():
        raise ValueError(f"{name} is neither a mapping nor a file: name a file, or one of {', '.join(SHIPPED)}")
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
        if set(said) != {"rule"}:
            raise ValueError(f"it has {listed(said) or 'nothing'}, and not [[rule]] alone")
        return [_checked(Rule(**rule)) for rule in said["rule"]]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a mapping: {error}; see docs/debugging.md") from None


def mapped(trace: Trace, rules: Sequence[Rule], config: LlamaConfig, tokens: int | None = None) -> Trace:
    """The same dump under our names and in our layout; what has no place among them is left out. config: of the model
    it is compared with. tokens: how many arrays of one position each are put together, as a port goes on to generate;
    None for all. ValueError, when an array is read, if it does not have the axes that a rule says or one is missing."""
    found: dict[tuple[str, int], list[tuple[int, str, Rule]]] = {}  # our name, rule -> positions and sources
    for source in trace.tensors:
        step, local = _of_step(source)
        for number, rule in enumerate(rules):
            if match := rule.match(local):
                groups = match.groupdict()
                ours = step + rule.name.replace("{layer}", str(int(groups.get("layer") or 0)))
                position = int(groups.get("t") or 0)
                if tokens is None or position < tokens:
                    found.setdefault((ours, number), []).append((position, source, rule))
                break
        else:
            where = names.place(source)  # of layer 07, which is layer 7 here
            if where is not None:
                found.setdefault((where.name, len(rules)), []).append((0, source, Rule(source, where.name)))
    readers: dict[str, Any] = {}
    for (ours, _), sources in sorted(found.items(), key=lambda item: item[0][1]):
        readers.setdefault(ours, partial(_read, trace, ours, sorted(sources), names.sizes(config)))
    return replace(trace, tensors=Arrays(readers))


def in_our_layout(array: Array, rule: Rule, local: str, sizes: Mapping[str, int], stacked: bool = False) -> Array:
    """An array of theirs as the intermediate `local` of ours. ValueError if it does not have the rule's axes."""
    wanted = names.axes(local)
    theirs = _groups(rule.axes or _likeliest(wanted, array, sizes))
    if stacked:
        theirs = [["T"], *theirs]
    if array.ndim == len(theirs) + 1 and ["B"] not in theirs:
        theirs = [["B"], *theirs]
    elif array.ndim == len(theirs) - 1 and ["B"] in theirs:
        theirs = [group for group in theirs if group != ["B"]]
    if array.ndim != len(theirs):
        raise ValueError(f"its shape {array.shape} is not ({rule.axes or wanted})")
    letters = [letter for group in theirs for letter in group]
    sides: list[int] = []
    for side, group in zip(array.shape, theirs, strict=True):
        rest = side // math.prod(sizes.get(letter, 1) for letter in group)  # of the one no config decides: B, T or S
        inner = [sizes.get(letter, rest) for letter in group]
        if math.prod(inner) != side:
            said = ", ".join(f"{letter} = {number}" for letter, number in zip(group, inner, strict=True))
            raise ValueError(f"its shape {array.shape} is not ({rule.axes or wanted}): {said}")
        sides += inner
    spread = array.reshape(sides)
    target = [letter for group in _groups(wanted) for letter in group]
    if "B" not in letters:
        spread, letters = spread[None], ["B", *letters]
    if sorted(letters) != sorted(target):
        raise ValueError(f"the axes ({rule.axes}) are not those of {local}, ({wanted})")
    spread = spread.transpose([letters.index(letter) for letter in target])
    if rule.layout == "interleaved":  # the last axis is K
        spread = np.concatenate((spread[..., 0::2], spread[..., 1::2]), axis=-1)
    if rule.future != "meant":
        T = spread.shape[2]  # (B, H, T, S)
        spread = spread[..., :T]
        spread = np.where(np.tri(T, dtype=bool), spread, 0) if rule.future == "garbage" else spread
    factor = factor_of(rule.times, sizes)
    shape = [math.prod(spread.shape[target.index(letter)] for letter in group) for group in _groups(wanted)]
    return np.asarray(spread.reshape(shape) * spread.dtype.type(factor) if factor != 1 else spread.reshape(shape))


def factor_of(text: str, sizes: Mapping[str, int]) -> float:
    """What `1/sqrt(K)` is. ValueError for what is no product of numbers, letters and roots of letters."""
    value, at = 1.0, 0
    for match in _FACTOR.finditer(text):
        sign, root, letter, number = match.groups()
        if match.start() != at or bool(sign) != bool(at) or (root or letter or "K") not in sizes:
            break
        one = math.sqrt(sizes[root]) if root else float(sizes[letter]) if letter else float(number)
        if one == 0:
            break
        value, at = (value / one if sign == "/" else value * one), match.end()
    if at != len(text) or not at:
        raise ValueError(f"times must be such as '1/sqrt(K)', not {shown(text)}")
    return value


def _read(trace: Trace, ours: str, sources: Sequence[tuple[int, str, Rule]], sizes: Mapping[str, int]) -> Array:
    """The array that stands for one of our names."""
    _, source, rule = sources[0]
    where = names.place(ours)
    assert where is not None
    stacked = "{t}" in rule.source
    missing = sorted({*range(sources[-1][0])} - {position for position, _, _ in sources})
    if stacked and missing:
        lacking = rule.source.replace("{t}", str(missing[0])).replace("{layer}", str(where.layer))
        raise ValueError(
            f"{trace.source} has no {lacking}, and has that of position {sources[-1][0]}: dump all positions"
        )
    arrays = [trace[name] for _, name, _ in sources]  # outside of what follows: files that cannot be read are no axes
    try:
        axes = len(_groups(rule.axes or names.axes(where.local)))
        array = np.stack([_without_ones(each, axes) for each in arrays]) if stacked else arrays[0]
        return in_our_layout(array, rule, where.local, sizes, stacked)
    except ValueError as error:
        meant = "" if source == ours else f" cannot be {ours}"
        raise ValueError(f"{trace.source}: {source}{meant}: {error}; say with --map what its axes are") from None


def _of_step(source: str) -> tuple[str, str]:
    """`step.2.Qcur-0` as `step.2.` and `Qcur-0`."""
    match = re.match(r"(step\.\d+\.)?", source)
    step = match.group() if match else ""
    return step, source.removeprefix(step)


def _without_ones(array: Array, axes: int) -> Array:
    """The array of one token without axes of 1 before those that are meant."""
    return array.reshape(array.shape[-axes:]) if set(array.shape[:-axes]) == {1} else array


def _groups(axes: str) -> list[list[str]]:
    """`T (H K)` as [["T"], ["H", "K"]]."""
    return [merged.split() or [single] for merged, single in re.findall(r"\(([^)]*)\)|(\w)", axes)]


def _likeliest(wanted: str, array: Array, sizes: Mapping[str, int]) -> str:
    """Our axes; or heads side by side, as products leave them, or one under the other, where the shape says so."""
    heads = re.fullmatch(r"B ([HG]) T ([KS])", wanted)
    if heads is None:
        return wanted
    count, last = heads.groups()
    if last == "K" and array.shape[-1:] == (sizes[count] * sizes["K"],) != (sizes["K"],):
        return f"T ({count} K)"
    return f"({count} T) {last}" if array.ndim == 2 else wanted


def _checked(rule: Rule) -> Rule:
    example = names.place(rule.name.replace("{layer}", "0"))
    if example is None:
        raise ValueError(f"{shown(rule.name)} is not a name of docs/notation.md")
    if rule.layout not in ("halves", "interleaved") or rule.future not in ("meant", "padding", "garbage"):
        raise ValueError(f"{rule.source}: layout is halves or interleaved, and future meant, padding or garbage")
    factor_of(rule.times, dict.fromkeys("BTSDHGKFVL", 1))
    return rule
