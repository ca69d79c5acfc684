"""Any step: only a part is off, as of a tile, a thread, a head or a row left out, or rows are in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from minillama.arrays import Array
from minillama.debug.errors import TOLERANCES, excess
from minillama.debug.hypotheses.base import Case, Hypothesis
from minillama.debug.hypotheses.projection import HEADED, MATRICES
from minillama.debug.names import EMBED_TOKENS, axes
from minillama.debug.steps import STEPS, How, Scene
from minillama.model.attention import merge_heads, split_heads
from minillama.model.ops import linear

# Indices that are told one by one; tokens that it takes to know a row by what it gives; rows, a sum; numbers, a factor
FEW = 4
MOVED = 1e-3  # of a column's length: what rounding may leave of it, and no two columns of a projection are so near
NAMES = {"H": "head", "G": "head", "T": "token", "S": "key"}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    yield from _short_sums(case)
    ours = case.honest.value(case.target)
    if ours.shape != case.theirs.shape:
        return
    if part := off_part(case, ours):
        where, said = part
        yield from _instead(case, where, said)
    yield from _other_rows(case, ours)


def off_part(case: Case, ours: Array) -> tuple[Array, str] | None:
    """Which of their numbers are off, (*shape) of bool, and what to call these; None if it is not a part of some axis,
    but everything. A part is a choice of heads, tokens or components, and everything where they cross."""
    off = excess(ours, case.theirs, TOLERANCES["f32"]) > 1
    if not off.any():
        return None
    where, said = np.ones(off.shape, bool), []
    for axis, letter in enumerate(_letters(case.target.local)):
        seen = np.asarray(off.any(axis=tuple(other for other in range(off.ndim) if other != axis)))
        if letter != "B" and not seen.all():
            where &= seen.reshape([-1 if other == axis else 1 for other in range(off.ndim)])
            indices = np.flatnonzero(seen)
            rows = _rows_of_ids(case, indices) if letter == "T" else None
            said.append(rows or _said(NAMES.get(letter, "number"), indices, len(seen)))
    return (where, " of ".join(said[::-1])) if said else None


def _instead(case: Case, where: Array, said: str) -> Iterator[Hypothesis]:
    """What may stand in the part."""
    local, target = case.target.local, case.target
    ours = case.honest.value(target)

    def there(value: Array) -> dict[str, How]:
        return {local: lambda s: np.where(where, value, STEPS[local](s))}

    yield Hypothesis("part.zeros", f"{said} of {local} {_are(said)} zero", there(np.zeros(())))
    if np.count_nonzero(where) < FEW:
        return  # whatever they are, some number or factor comes near them by chance
    if ours.shape[-2] > 1 and local != "self_attn.scores":
        for by, word in ((1, "late"), (-1, "early")):
            shifted = np.roll(ours, by, axis=-2)
            yield Hypothesis("part.token", f"{said} of {local} {_are(said)} one token {word}", there(shifted))
    before = None if target.layer is None else case.known.get(target._replace(layer=target.layer - 1).name)
    if before is not None and before.shape == ours.shape:
        yield Hypothesis("part.layer", f"{said} of {local} {_are(said)} those of the layer before", there(before))
    a, b = ours[where], case.theirs[where]
    if np.isfinite(b).all() and a.any() and (factor := float(a @ b / (a @ a))):
        yield Hypothesis(
            "part.scale", f"{said} of {local} {_are(said)} multiplied by {factor:.6g}", there(factor * ours)
        )


def _short_sums(case: Case) -> Iterator[Hypothesis]:
    """Products of which the last inputs are left out, such as those that fill no tile, or the first."""
    local = case.target.local
    if local not in MATRICES or not np.isfinite(case.theirs).all():
        return
    m = MATRICES[local]
    weight = getattr(case.weights.layers[case.target.layer or 0], m.weight)
    width = weight.shape[1]
    token = case.honest.value(case.target._replace(local=m.reads))[0, -1]
    whole, theirs = case.honest.value(case.target), _columns(local, case.theirs)[-1]
    if whole.shape != case.theirs.shape:
        return
    sums = np.cumsum(weight[:FEW] * token, axis=-1)  # (FEW, in)
    left = _columns(local, whole)[-1, :FEW, None] - theirs[:FEW, None]  # what is missing of theirs
    n = int(np.abs(sums[:, -1:] - sums - left).sum(axis=0).argmin()) + 1
    first = int(np.abs(sums - left).sum(axis=0).argmin()) + 1
    for part, count, said in ((slice(n), width - n, "last"), (slice(first, None), first, "first")):
        if 0 < count < width:

            def step(s: Scene, part: slice = part) -> Array:
                y = linear(s[m.reads][..., part], getattr(s.w, m.weight)[:, part], getattr(s.w, m.bias))
                return split_heads(y, case.config.head_dim) if local in HEADED else y

            inputs = "input is" if count == 1 else f"{count} inputs are"
            yield Hypothesis("part.sum", f"the {said} {inputs} left out of the sums of {m.weight}", {local: step})


def _other_rows(case: Case, ours: Array) -> Iterator[Hypothesis]:
    """Rows of the matrices that read one input, in an order that no other hypothesis has: each is known by what it
    gives for all tokens."""
    local = case.target.local
    if local not in MATRICES or ours.shape[0] * ours.shape[-2] < FEW or not np.isfinite(case.theirs).all():
        return
    readers = [name for name, m in MATRICES.items() if m.reads == MATRICES[local].reads]
    cases = [replace(case, target=case.target._replace(local=name)) for name in readers]
    made = [_columns(one.target.local, one.honest.value(one.target)) for one in cases]
    origin = [(name, row) for name, columns in zip(readers, made, strict=True) for row in range(columns.shape[1])]
    known, theirs = np.concatenate(made, axis=1), _columns(local, case.theirs)
    lengths = np.maximum(np.linalg.norm(known, axis=0), 1e-30)
    found = (known / lengths).T @ theirs  # (known rows, theirs)
    rows = found.argmax(axis=0)
    left = np.linalg.norm(theirs - known[:, rows], axis=0) / lengths[rows]
    moved = [(i, origin[row]) for i, row in enumerate(rows.tolist()) if origin[row] != (local, i)]
    if left.max() > MOVED or not moved:
        return
    i, (other, row) = moved[0]
    said = f"row {i} is row {row} of {MATRICES[other].weight}, and {len(moved)} of {len(rows)} are elsewhere"
    rebuilt = known[:, rows].reshape(ours.shape[0], -1, len(rows))
    value = split_heads(rebuilt, case.config.head_dim) if local in HEADED else rebuilt
    yield Hypothesis("any.rows", f"the rows of {MATRICES[local].weight} are in another order: {said}",
                     {local: lambda s: value})  # fmt: skip


def _columns(local: str, x: Array) -> Array:
    """(B T, rows of the matrix)"""
    x = merge_heads(x) if local in HEADED else x
    return x.reshape(-1, x.shape[-1])


def _letters(local: str) -> list[str]:
    """One letter an axis, that of merged ones being any."""
    return axes(local).replace("(H K)", "K").split()


def _rows_of_ids(case: Case, tokens: Array) -> str | None:
    """Tokens as rows of the table, if those of the same ids are off and no others."""
    if case.target.local != EMBED_TOKENS:
        return None
    ids = case.ids[case.target.step]
    chosen = set(ids[:, tokens].ravel().tolist())
    others = set(np.delete(ids, tokens, axis=1).ravel().tolist())
    return None if chosen & others else f"row {_listed(sorted(chosen))}" if len(chosen) <= FEW else None


def _said(name: str, indices: Array, size: int) -> str:
    """Indices of an axis in words."""
    first, last, count = int(indices[0]), int(indices[-1]), len(indices)
    if count == 1:
        return f"{name} {first}"
    if count == last - first + 1:
        return f"{name}s {first} to {last}" + (f", the last {count}," if last == size - 1 else "")
    return f"{name}s {_listed(indices.tolist())}" if count <= FEW else f"{count} of {size} {name}s"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _are(said: str) -> str:
    return "is" if said.startswith(("head ", "token ", "key ", "row ", "number ")) and "," not in said else "are"
