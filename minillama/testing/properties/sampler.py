"""What must hold of sampler(logits, settings, seen), which gives probabilities, and of draw(logits, settings, seen,
seed), which gives an id."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minillama.arrays import Array
from minillama.generation.sampling import Sampling, log_softmax
from minillama.messages import shown
from minillama.testing.base import Case, Implementation, Mismatch, Properties, Variants, agree
from minillama.testing.levels import Level
from minillama.testing.strategies import SEEDS

sampler = Properties("sampler")
DRAWS = 1000
OFF: dict[str, Any] = {"repetition_penalty": 1.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
NEVER = 1e-12  # the probability that a right sampler fails a case


def cases(*fields: str, temperatures: tuple[float, ...] = (1.0,)) -> Callable[[Level], st.SearchStrategy[Case]]:
    """Logits that are apart from each other, of both signs, and the settings named: each such that some ids stay and
    some go, with no id so near the border that rounding decides."""

    @st.composite
    def draw_case(draw: st.DrawFn, level: Level) -> Case:
        V = draw(st.integers(3, 12))
        rng = np.random.default_rng(draw(SEEDS))
        logits = level.rounded(rng.permutation(np.linspace(-3, 3, V) + rng.uniform(-0.1, 0.1, V)))
        settings = Sampling(temperature=draw(st.sampled_from(temperatures)))
        seen: list[int] = []
        if "repetition_penalty" in fields:
            settings = replace(settings, repetition_penalty=draw(st.sampled_from([1.3, 0.8, 2.0])))
            seen = draw(st.lists(st.integers(0, V - 1), min_size=1, max_size=V))
        kept = draw(st.integers(1, V - 1))
        if "top_k" in fields:
            settings = replace(settings, top_k=kept)
        p = -np.sort(-replace(settings, top_k=0).probabilities(logits, seen))
        if "top_p" in fields:  # in the middle of what the last that stays adds
            settings = replace(settings, top_p=float(p[:kept].sum() - p[kept - 1] / 2))
        if "min_p" in fields:  # in the middle between the last that stays and the first that goes
            settings = replace(settings, min_p=float(math.sqrt(p[kept - 1] * p[kept]) / p[0]))
        return {"logits": logits, "settings": settings, "seen": seen}

    return draw_case


def of(case: Case, **changed: Any) -> Array:
    return replace(case["settings"], **changed).probabilities(case["logits"], case["seen"])


def allowed(case: Case, level: Level) -> Array:
    """A logit is rounded when it is penalized, divided and reduced by the largest, each time by a part of its size,
    which the exponential makes a part of the probability; then come the exponential, a sum and a quotient."""
    settings = case["settings"]
    size = np.abs(case["logits"]).max() * max(settings.repetition_penalty, 1) / max(settings.temperature, 1e-3)
    wanted = of(case)
    return level.allowed(wanted * 2 * size, roundings=3) + level.allowed(wanted, roundings=2, terms=len(wanted) + 8)


def mistakes(case: Case) -> Variants:
    logits, settings, seen = case["logits"].astype(np.float64), case["settings"], case["seen"]
    V = len(logits)
    plain = np.exp(log_softmax(logits))
    penalty = settings.repetition_penalty
    counted = np.bincount(np.array(seen, int), minlength=V)

    def penalized(z: Array) -> Array:
        return np.exp(log_softmax(z))

    variants: dict[str, Callable[[], Array]] = {
        "what stays is not divided by its sum": lambda: of(case, top_k=0, top_p=1.0, min_p=0.0) * (of(case) > 0),
        **{f"{name} is left out": partial(of, case, **{name: value}) for name, value in OFF.items()},
    }
    if settings.temperature:
        variants["logits are multiplied by the temperature"] = partial(of, case, temperature=1 / settings.temperature)
    if settings.top_k:
        variants |= {
            "top_k keeps one id too many": lambda: of(case, top_k=settings.top_k + 1),
            "top_k keeps one id too few": lambda: of(case, top_k=max(settings.top_k - 1, 1)),
        }
    if settings.top_p < 1:
        stay = int((of(case) > 0).sum())
        variants |= {
            "top_p leaves out the id that reaches it": lambda: of(case, top_p=1.0, top_k=max(stay - 1, 1)),
            "top_p keeps one id too many": lambda: of(case, top_p=1.0, top_k=stay + 1),
            "top_p is taken before the temperature": lambda: (
                of(case, top_p=1.0)
                * (of(case, temperature=1.0) > 0)
                / (of(case, top_p=1.0) * (of(case, temperature=1.0) > 0)).sum()
            ),
        }
    if settings.min_p > 0:
        above = plain * (plain >= settings.min_p)
        variants["min_p is taken for a probability, not a part of the largest"] = lambda: above / above.sum()
    if penalty != 1:
        variants |= {
            "negative logits are divided by the penalty too": lambda: penalized(
                np.where(counted, logits / penalty, logits)
            ),
            "the penalty is subtracted": lambda: penalized(np.where(counted, logits - penalty, logits)),
            "an id is penalized each time it was seen": lambda: penalized(
                np.where(logits > 0, logits / penalty**counted, logits * penalty**counted)
            ),
            "signs are exchanged": lambda: penalized(
                np.where(counted > 0, np.where(logits > 0, logits * penalty, logits / penalty), logits)
            ),
        }
    return variants


def as_it_must(fn: Implementation, case: Case, level: Level) -> None:
    given = fn["sampler"](case["logits"], case["settings"], case["seen"])
    agree(given, of(case), allowed(case, level), "the probability of id ", mistakes(case))


@sampler("without settings, probabilities are exp(logit) over their sum", cases())
def softmax(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@sampler("temperature 0 takes the largest logit", cases(temperatures=(0.0,)))
def greedy(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@sampler("logits are divided by the temperature", cases(temperatures=(0.7, 0.1, 1.5)))
def temperature(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@sampler("top_k keeps the k likeliest ids, and what stays sums to 1", cases("top_k"))
def top_k(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@sampler("top_p keeps the fewest ids that reach p together, the one that reaches it among them", cases("top_p"))
def top_p(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@sampler("min_p keeps the ids that are at least min_p times as likely as the likeliest", cases("min_p"))
def min_p(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@sampler(
    "logits of seen ids are divided by the penalty if positive, multiplied if negative, once",
    cases("repetition_penalty"),
)
def repetition(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@sampler("the order is penalty, temperature, top_p", cases("repetition_penalty", "top_p", temperatures=(0.7, 1.5)))
def order(fn: Implementation, case: Case, level: Level) -> None:
    as_it_must(fn, case, level)


@sampler(
    "ids are drawn as often as their probabilities say",
    cases("top_k", temperatures=(1.0, 0.7, 1.5)),
    needs=("draw",),
    examples=10,
)
def frequencies(fn: Implementation, case: Case, level: Level) -> None:
    p, counts = of(case), np.zeros(len(case["logits"]))
    for seed in range(DRAWS):
        counts[drawn(fn, case, seed)] += 1
    # Bernstein: of n draws, an id of probability p has a share off by more than e with a probability of at most
    # 2 exp(-n e^2 / (2 p (1 - p) + 2 e / 3)); solved for e, for all ids together
    often = math.log(2 * len(p) / NEVER) / DRAWS
    slack = often / 3 + np.sqrt((often / 3) ** 2 + 2 * often * p * (1 - p))
    agree(counts / DRAWS, p, np.where(p > 0, slack, 1e-30), f"of {DRAWS} draws, the share of id ")


@sampler("temperature 0 draws the largest logit, whatever the seed", cases(temperatures=(0.0,)), needs=("draw",))
def certain(fn: Implementation, case: Case, level: Level) -> None:
    for seed in range(3):
        one_hot = np.eye(len(case["logits"]))[drawn(fn, case, seed)]
        agree(one_hot, of(case), 1e-30, f"with seed {seed}, the number of draws of id ")


@sampler("the same seed draws the same id", cases(temperatures=(1.5,)), needs=("draw",))
def seeded(fn: Implementation, case: Case, level: Level) -> None:
    for seed in range(5):
        one, other = drawn(fn, case, seed), drawn(fn, case, seed)
        if one != other:
            raise Mismatch(f"seed {seed} draws {one} and then {other}")


def drawn(fn: Implementation, case: Case, seed: int) -> int:
    V = len(case["logits"])
    given = np.asarray(fn["draw"](case["logits"], case["settings"], case["seen"], seed))
    if given.size != 1 or given.dtype.kind not in "iu" or not 0 <= int(given.reshape(())) < V:
        raise Mismatch(f"what is drawn is {shown(given.tolist())} and must be one id of 0 .. {V - 1}")
    return int(given.reshape(()))
