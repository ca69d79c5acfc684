"""Why two implementations part: hypotheses tried on the data.

Their first tensor that differs is computed again, in float64, from what they themselves had before it, which agreed
with ours: once as it should be, and once under every hypothesis. One that gives their numbers is the cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.debug.comparison import Comparison, Finding, ordered
from minillama.debug.dumps import Arrays
from minillama.debug.errors import TOLERANCES, Tolerance, excess, scale
from minillama.debug.hypotheses import Case, Hypothesis, hypotheses
from minillama.debug.hypotheses.attention import PROBS, SCORES
from minillama.debug.hypotheses.head import of_embedding
from minillama.debug.hypotheses.norm import NORMS
from minillama.debug.hypotheses.part import off_part
from minillama.debug.hypotheses.precision import kept_in
from minillama.debug.hypotheses.projection import MATRICES
from minillama.debug.names import EMBED_TOKENS, LAYER, LOGITS, NORM, Place, is_shown, place
from minillama.debug.steps import masked
from minillama.weights.parameters import Parameters

# Shares of the error that may remain. A right hypothesis leaves rounding, 1e-3 of it or less; where numbers are rounded
# on purpose some fall to the other side, which leaves up to a third
EXPLAINED, EXPLAINED_ROUNDING, NEAREST = 0.05, 0.35, 0.7
SAME = 1e-5  # an error, in units of the numbers' size, that is only rounding
NEARER = 10.0  # what a hypothesis about a part has to be to those about everything, to be believed instead
ENOUGH = 8  # numbers of a part that a hypothesis does not give by chance
ALIKE = 3.0  # hypotheses that leave less than this times what the best leaves cannot be told from it
WEIGHTED = {*MATRICES, *NORMS, EMBED_TOKENS, LOGITS}  # steps that a weight of their own goes into
OWN = 0.25  # of what a format allows in the first layer: what rounding leaves of one step


def diagnose(
    result: Comparison, weights: Parameters, config: LlamaConfig, tried: Callable[[], object] = int
) -> list[Finding]:
    """What explains the first divergence, best first; what explains next to nothing is left out. tried: is called after
    every hypothesis; where little was recorded, each computes much of the model."""
    first = None if result.first is None else place(result.first.name)
    if first is None or not is_shown(first, config.rope_type):
        return []
    case = case_of(result, first, weights, config)
    if not own_error(case, TOLERANCES[result.tolerance.form]) > OWN:
        earlier = first_own_error(result, first, weights, config)
        if earlier is None:
            form = result.tolerance.form
            said = f"every step follows from the one before, apart from what {form} rounds: compare in a finer format"
            return [Finding("none", said, 0.0, True, first.name)]
        case = case_of(result, earlier, weights, config)
    return findings(case, tried)


def follows(result: Comparison, weights: Parameters, config: LlamaConfig) -> bool:
    """Whether what ours has at the first divergence is what the weights make of what it has before: if not, they are
    not its own, or it was not a plain row, and theirs cannot be judged by them."""
    first = None if result.first is None else place(result.first.name)
    if first is None or not is_shown(first, config.rope_type):
        return True
    ours, usual = result.a, replace(result, tolerance=TOLERANCES[result.tolerance.form])
    case = Case(config, weights, ours.input_ids, ours.tensors, first, np.asarray(ours[first.name], np.float64))
    return own_error(case, usual.allowed(first)) <= 1


def case_of(result: Comparison, target: Place, weights: Parameters, config: LlamaConfig) -> Case:
    known, theirs = result.b.tensors, result.b[target.name]
    if target.local == LOGITS and theirs.ndim == 3:  # of the last tokens only, perhaps
        read = (
            target._replace(local=NORM).name,
            target._replace(layer=config.num_hidden_layers - 1, local="output").name,
        )
        readers: dict[str, Callable[[], Array]] = {name: partial(known.__getitem__, name) for name in known}
        for name in read:
            if name in readers:
                readers[name] = lambda read=readers[name]: read()[:, -theirs.shape[1] :]  # type: ignore[misc]
        known = Arrays(readers)
    return Case(config, weights, result.a.input_ids, known, target, np.asarray(theirs, np.float64))


def findings(case: Case, step: Callable[[], object] = int) -> list[Finding]:
    """All hypotheses that bear on the target, tried: on all of it, and on the part that is off, if it is one."""
    honest = case.honest.value(case.target)
    used = case.honest.used
    before = _error(case, honest)
    part = off_part(case, honest) if honest.shape == case.theirs.shape else None
    tried: list[tuple[float, Hypothesis]] = []
    within: list[tuple[float, Hypothesis]] = []
    for hypothesis in hypotheses(case):
        made = None if used.isdisjoint(hypothesis.steps) else _made(case, hypothesis)
        if made is not None:
            tried.append((_left(case, made, before), hypothesis))
            if part and np.count_nonzero(part[0]) >= ENOUGH:
                said = f"{part[1]} of {case.target.local}, and nowhere else: {hypothesis.cause}"
                left = _left(case, np.where(part[0], made, honest), before)
                within.append((left, hypothesis._replace(cause=said)))
        step()
    tried.sort(key=lambda one: one[0])
    right, there = _right(tried), _right(sorted(within, key=lambda one: one[0]))
    if right and not (there and there[0][0] * NEARER < right[0][0]):
        alike = [(left, h) for left, h in right if left <= max(right[0][0] * ALIKE, 1e-6)]
        wrong = [_wrong_elsewhere(case, h, alike) for _, h in alike]
        kept = [one for one, count in zip(alike, wrong, strict=True) if count == min(wrong)]
    elif there:
        by_key: dict[str, tuple[float, Hypothesis]] = {}
        for left, h in there:
            if left <= max(there[0][0] * ALIKE, 1e-6):
                by_key.setdefault(h.key, (left, h))
        kept = list(by_key.values())
    else:
        near = [Finding(h.key, h.cause, left, False, case.target.name) for left, h in tried if left < NEAREST]
        return _one_of_each([*_signs(case, honest), *near])[:3]
    kept.sort(key=lambda one: one[1].key.startswith("any."))  # these say least
    return _one_of_each([Finding(h.key, h.cause, left, True, case.target.name) for left, h in kept])


def _right(tried: list[tuple[float, Hypothesis]]) -> list[tuple[float, Hypothesis]]:
    return [(left, h) for left, h in tried if left <= (EXPLAINED_ROUNDING if h.rounds else EXPLAINED)]


def _wrong_elsewhere(case: Case, hypothesis: Hypothesis, rivals: list[tuple[float, Hypothesis]]) -> int:
    """How many more of the tensors that rivals speak of a hypothesis gets wrong: of those that say the same of the
    target, one may say it of keys too, or of values."""
    wrong = 0
    locals_ = {local for _, rival in rivals for local in rival.steps}
    if SCORES in locals_ and case.beside(SCORES) is None:
        locals_ = locals_ - {SCORES} | {PROBS}  # which show what scores there were
    for local in locals_ - {case.target.local}:
        where = case.target._replace(local=local)
        if where.name in case.known and where.layer is not None and local in LAYER:
            other = replace(case, target=where, theirs=np.asarray(case.known[where.name], np.float64))
            try:
                before = _error(other, other.honest.value(where))
            except ValueError:  # what it is made of has another shape
                continue
            made = _made(other, hypothesis)
            wrong += made is None or _left(other, made, before) * before > max(before * EXPLAINED_ROUNDING, SAME)
    return wrong


def first_own_error(result: Comparison, last: Place, weights: Parameters, config: LlamaConfig) -> Place | None:
    """The first tensor of theirs before `last` whose own step is off by more than rounding, small as that may be. Those
    that ours does not have are looked at too: nothing else has yet."""
    for where in ordered(result.b):
        if where == last:
            return None
        case = case_of(result, where, weights, config)
        if is_shown(where, config.rope_type) and own_error(case, TOLERANCES[result.tolerance.form]) > OWN:
            return where
    return None


def own_error(case: Case, tolerance: Tolerance) -> float:
    """How far a step of theirs is from what it should have made of what they had, as a share of what is allowed; NaN if
    that has shapes of which nothing can be made."""
    try:
        made = case.honest.value(case.target)
    except (ValueError, IndexError):
        return math.nan
    if made.shape != case.theirs.shape:
        return math.inf
    return float(excess(*_seen(case, made), tolerance).max(initial=0))


def _made(case: Case, hypothesis: Hypothesis) -> Array | None:
    """The target under a hypothesis; None if it cannot be so."""
    try:
        with np.errstate(all="ignore"):
            made = case.recomputed(hypothesis.steps).value(case.target)
    except (ValueError, IndexError):  # shapes that do not fit each other
        return None
    return made if made.shape == case.theirs.shape else None


def _left(case: Case, made: Array, before: float) -> float:
    """The share of the error that is left, or of their numbers if that is more: whatever is small is near to small
    numbers."""
    left = _error(case, made) / before if np.isfinite(before) and before > 0 else _error(case, made)
    ours, theirs = _seen(case, made)
    with np.errstate(all="ignore"):
        share = float(np.linalg.norm(theirs - ours) / np.linalg.norm(theirs))
    return max(left, share) if share > EXPLAINED else left


def _error(case: Case, made: Array) -> float:
    """Root mean square of what theirs is off, each number in units of its size, theirs or what it should be."""
    if made.shape != case.theirs.shape:
        return np.inf
    ours, theirs = _seen(case, made)
    honest = case.honest.value(case.target)
    size = np.maximum(scale(theirs), scale(honest) if honest.shape == theirs.shape else 0)
    with np.errstate(all="ignore"):
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        off = np.where(same, 0, (theirs - ours) / np.maximum(size, 1e-30))
        return float(np.sqrt(np.mean(np.square(np.where(np.isnan(off), np.inf, off)))))


def _seen(case: Case, made: Array) -> tuple[Array, Array]:
    """Both without the scores that a mask hides."""
    if case.target.local != "self_attn.scores":
        return made, case.theirs
    hidden = np.isneginf(masked(np.zeros(made.shape)))
    return np.where(hidden, 0, made), np.where(hidden, 0, case.theirs)


def _signs(case: Case, honest: Array) -> list[Finding]:
    """What can be seen of numbers that no hypothesis gives."""
    theirs, name = case.theirs, case.target.name
    if not np.isfinite(theirs).all():
        return [Finding("any.not_finite", _said_of_infinite(case, honest), 0, True, name)]
    if honest.shape != theirs.shape:
        return []
    cosine = float(np.sum(honest * theirs) / max(float(np.linalg.norm(honest) * np.linalg.norm(theirs)), 1e-300))
    if form := kept_in(case, _error(case, honest)):
        said = f"{case.target.local} has only numbers of {form}: sums are kept in it, in an order that is not known"
        return [Finding("precision.accumulated", said, 0, True, name)]
    if abs(cosine) < 0.2 and case.target.local == "logits" and case.config.tie_word_embeddings:
        if of_embedding(case):
            said = "logits are products with the embedding, as they should be, but of something else than model.norm"
            return [Finding("head.input", said, 0, True, name)]
        if of_embedding(case) is False:
            said = "logits are not products with the embedding, to which the config ties the head"
            return [Finding("head.not_tied", said, 0, True, name)]
        said = "logits have nothing to do with ours: the head may not be the embedding, to which the config ties it"
        return [Finding("head.not_tied", said, 1.0, False, name)]
    part = off_part(case, honest)
    if abs(cosine) < 0.2 and not part:
        loaded = ": its weight may never have been loaded" if case.target.local in WEIGHTED else ""
        said = f"{case.target.local} has nothing to do with ours{loaded}"
        return [Finding("weight.not_loaded" if loaded else "any.unlike", said, 1.0, False, name)]
    if part:
        return [Finding("part", f"only {part[1]} of {case.target.local} differ", 1.0, False, name)]
    return []


def _said_of_infinite(case: Case, honest: Array) -> str:
    """Which of their numbers are not finite, and whether these are the largest."""
    local, finite = case.target.local, np.isfinite(case.theirs)
    said = f"{local} has numbers that are not finite, {np.count_nonzero(~finite):,} of {finite.size:,}"
    if honest.shape == finite.shape and finite.any() and np.isinf(case.theirs).any():
        largest, least = np.abs(honest[finite]).max(), np.abs(honest[~finite]).min()
        if largest <= least * (1 + SAME):
            return f"{said}: an overflow of all beyond {largest:.6g}" + (
                ", as float16 has it beyond 65504"
                if largest < 65520 <= least * 1.001
                else ", such as of float16 on the way"
            )
    return said


def _one_of_each(found: list[Finding]) -> list[Finding]:
    """The best of each sentence."""
    seen: dict[str, Finding] = {}
    for finding in found:
        seen.setdefault(finding.cause, finding)
    return list(seen.values())
