"""More wrong answers as students write them, for the chapters from the block on: most are told by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.notebooks.test_planted_mistakes import Planted, told


def softmax(z: Any) -> Any:
    e = np.exp(z - np.max(z))
    return e / e.sum()


def silu_of_whole(x: Any) -> Any:  # 7.1
    return x / 2 * (np.tanh(x) + 1)


def gate_added(x: Any, gate: Any, up: Any, down: Any) -> Any:  # 7.2
    g = x @ gate.T
    return (g / (1 + np.exp(-g)) + x @ up.T) @ down.T


def width_for_heads(V: int, D: int, F: int, L: int, H: int, G: int, K: int, tied: bool) -> int:  # 7.4
    layer = D * D + 2 * D * G * K + D * D + 3 * D * F + 2 * D
    return (V * D if tied else 2 * V * D) + D + L * layer


def greedy_without_prompt(logits_of: Any, ids: Any, count: int, eos: int) -> Any:  # 8.1
    text, new = ids, []
    while len(new) < count:
        new.append(int(np.argmax(logits_of(text))))
        text = new
        if new[-1] == eos:
            break
    return new


def every_equal_gets_one(logits: Any, temperature: float) -> Any:  # 8.2
    if temperature == 0:
        return np.array([1.0 if z == max(logits) else 0.0 for z in logits])
    return softmax(logits / temperature)


def softened_twice(logits: Any, temperature: float) -> Any:
    p = softmax(logits)
    return np.eye(len(p))[np.argmax(p)] if temperature == 0 else softmax(p / temperature)


def nucleus_from_below(logits: Any, p: float) -> Any:  # 8.3
    out, total = np.array(logits, float), 0.0
    for i in np.argsort(logits):
        total += softmax(logits)[i]
        if total < p:
            out[i] = -np.inf
    return out


def nucleus_of_each(logits: Any, p: float) -> Any:
    return np.array([z if q >= p else -np.inf for z, q in zip(logits, softmax(logits), strict=True)])


def all_penalized(logits: Any, seen: Any, penalty: float) -> Any:  # 8.4
    return np.array([z / penalty if z > 0 else z * penalty for z in logits])


def new_key_asks(q: Any, k: Any, v: Any, keys: Any, values: Any) -> Any:  # 9.1
    keys, values = np.concatenate((keys, k[None])), np.concatenate((values, v[None]))
    weights = softmax(np.array([key @ k for key in keys]) / len(k) ** 0.5)
    return keys, values, sum(w * value for w, value in zip(weights, values, strict=True))


def prompt_cache_kept(step: Any, prompt: Any, count: int) -> Any:  # 9.2
    logits, past = step(prompt, None)
    new = [int(logits.argmax())]
    for _ in range(1, count):
        logits, _ = step([new[-1]], past)
        new.append(int(logits.argmax()))
    return new, past


def counted_after_cutting(mask: Any, T: int) -> Any:  # 9.3
    rows = [np.cumsum(row[len(row) - T :]) - 1 for row in mask]
    return np.array([[max(p, 0) for p in row] for row in rows])


def minus_without_parentheses(theta: float, factor: float, length: int, trained: int, K: int) -> Any:  # 10.1
    l = length if length > trained else trained  # noqa: E741
    return theta * (factor * l / trained - factor - 1) ** (K / (K - 2))


def tokens_for_turns(speeds: Any, factor: float, low: float, high: float, trained: int) -> Any:  # 10.2
    out = []
    for speed in speeds:
        share = min(max((2 * np.pi / speed - low) / (high - low), 0), 1)
        out.append(share * speed + (1 - share) * speed / factor)
    return np.array(out)


def two_bases(n: float, K: int, theta: float, trained: int) -> float:  # 10.3
    return float(K * np.log10(trained / (2 * np.pi * n)) / (2 * np.log(theta)))


def largest_id(ids: Any, pad: int) -> Any:  # 11.1
    return np.array([max([i for i in row if i != pad], default=0) for row in ids])


def mean_over_everything(X: Any, y: Any, W: Any) -> Any:  # 11.2
    total = np.zeros_like(W)
    for x, c in zip(X, y, strict=True):
        total += np.outer(softmax(W @ x) - (np.arange(len(W)) == c), x)
    return total / (len(X) * len(W))


def clipped(logits: Any, labels: Any) -> Any:  # 11.4
    p = np.clip(1 / (1 + np.exp(-logits)), 1e-7, 1 - 1e-7)
    return -np.mean(np.log(np.where(labels == 1, p, 1 - p)))


def size_for_maximum(logits: Any, labels: Any) -> Any:
    size = np.abs(logits)
    return (size - logits * labels + np.log(1 + np.exp(-size))).mean()


def shifted_too_early(stored: Any) -> Any:  # 12.1
    return (stored << 16).view(np.float32)


def whole_tokens(parameters: float, bits: float, rate: float) -> Any:  # 12.2
    return rate * 1e9 // (parameters * bits / 8)


def never_zero(weights: Any) -> Any:  # 12.3
    groups = weights.reshape(len(weights) // 32, 32)
    scales = abs(groups).max(-1) / 127
    return np.rint(groups / (scales + 1e-6)[:, None]), scales


def ratio_of_lengths(x: Any, right: Any) -> float:  # 13.1
    return float(np.sqrt(((x - right) ** 2).sum() / (right**2).sum()))


def worst_name(seen: Any, reference: Any, tolerance: float) -> str | None:  # 13.2
    worst, far = None, tolerance
    for name, right in reference.items():
        x = seen.get(name)
        if x is None or x.shape != right.shape or np.isnan(x).any():
            error = np.inf
        else:
            error = np.abs(x - right).max() / np.abs(right).max()
        if error > far:
            worst, far = name, error
    return worst


PLANTED: list[Planted] = [
    ("7.1", "half of x", silu_of_whole),
    ("7.2", "multiplied, not added", gate_added),
    ("7.4", "need not be D", width_for_heads),
    ("8.1", "the prompt is forgotten", greedy_without_prompt),
    ("8.2", "only the first gets 1", every_equal_gets_one),
    ("8.2", "softmax of a softmax", softened_twice),
    ("8.3", "from below", nucleus_from_below),
    ("8.3", "not each by itself", nucleus_of_each),
    ("8.4", "only the ids that were seen", all_penalized),
    ("9.1", "the query that asks", new_key_asks),
    ("9.2", "cache of the prompt", prompt_cache_kept),
    ("9.3", "those before them count too", counted_after_cutting),
    ("10.1", "mind the parentheses", minus_without_parentheses),
    ("10.2", "tokens of a turn", tokens_for_turns),
    ("10.3", "different bases", two_bases),
    ("11.1", "largest id", largest_id),
    ("11.2", "number of all probabilities", mean_over_everything),
    ("11.3", "write the names out", ["regression", "single_label", "multi_label", "multi_label"]),
    ("11.4", "clipped", clipped),
    ("11.4", "not the size of z", size_for_maximum),
    ("12.1", "16 bits are lost", shifted_too_early),
    ("12.2", "do not round", whole_tokens),
    ("12.3", "added to the scale", never_zero),
    ("12.4", "not 2^30", 6.74e9 * 4.5 / 8 / 2**30),
    ("13.1", "you divide lengths", ratio_of_lengths),
    ("13.2", "the largest error", worst_name),
    ("13.3", "before the mask (and there is more)", ("k_rope", "scores", "output", "norm")),
]


def test_planted_mistakes_of_later_chapters_are_told_by_name() -> None:
    answers = [(number, words, told(number, answer)) for number, words, answer in PLANTED]
    missed = [(number, words, said) for number, words, said in answers if words not in said]
    assert len(missed) <= len(PLANTED) // 6, missed
