"""Forty-eight wrong answers as students write them, in other words than the exercises know them: most are told by name.

Each is written out by itself, with loops or other functions of NumPy, so that only its numbers can tell what is wrong.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.notebooks.running import COURSE

sys.path.append(str(COURSE))  # as in a notebook, whose folder is on the path

import checks

Planted = tuple[str, str, Any]  # the exercise, words of the diagnosis that names the mistake, the wrong answer


def norm_by_hand(x: Any, weight: Any, eps: float) -> Any:  # 3.1
    flat = x.reshape(-1, x.shape[-1])
    out = [row / (np.linalg.norm(row) / np.sqrt(len(row)) + eps) * weight for row in flat]
    return np.array(out).reshape(x.shape)


def norm_by_length(x: Any, weight: Any, eps: float) -> Any:
    return weight * x / np.sqrt((x**2).sum(-1)[..., None] + eps)


def norm_centred(x: Any, weight: Any, eps: float) -> Any:
    return weight * (x - np.mean(x, -1)[..., None]) * (np.var(x, -1)[..., None] + eps) ** -0.5


def norm_rsqrt_forgotten(x: Any, weight: Any, eps: float) -> Any:
    power = np.einsum("...d,...d->...", x, x) / x.shape[-1] + eps
    return weight * x / power[..., None]


def speeds_positive(K: int, theta: float) -> Any:  # 4.1
    return np.array([theta ** (2 * j / K) for j in range(K // 2)])


def speeds_by_component(K: int, theta: float) -> Any:
    return np.array([1 / theta ** (j / K) for j in range(K // 2)])


def turn_interleaved(x: Any, positions: Any, speeds: Any) -> Any:  # 4.2
    y = np.zeros_like(x)
    for t, p in enumerate(positions):
        for j, s in enumerate(speeds):
            z = complex(x[t, 2 * j], x[t, 2 * j + 1]) * np.exp(1j * p * s)
            y[t, 2 * j], y[t, 2 * j + 1] = z.real, z.imag
    return y


def turn_backwards(x: Any, positions: Any, speeds: Any) -> Any:
    half = x.shape[1] // 2
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(-1j * np.outer(positions, speeds))
    return np.hstack((z.real, z.imag))


def turn_overwriting(x: Any, positions: Any, speeds: Any) -> Any:
    y, half = x.copy(), x.shape[1] // 2
    for t, p in enumerate(positions):
        for j, s in enumerate(speeds):
            y[t, j] = y[t, j] * np.cos(p * s) - y[t, j + half] * np.sin(p * s)
            y[t, j + half] = y[t, j + half] * np.cos(p * s) + y[t, j] * np.sin(p * s)
    return y


def order_inverse(K: int) -> Any:  # 4.3
    return np.array([j // 2 + (j % 2) * (K // 2) for j in range(K)])


def mask_sees_next(T: int, S: int) -> Any:  # 5.1
    return np.array([[j <= S - T + i + 1 for j in range(S)] for i in range(T)])


def mask_blind_to_itself(T: int, S: int) -> Any:
    return np.array([[j < S - T + i for j in range(S)] for i in range(T)])


def mask_from_the_first(T: int, S: int) -> Any:
    return np.tril(np.ones((T, S))) == 1


def rows_of(q: Any, k: Any, v: Any, visible: Any, scale: float, blind: float = -np.inf) -> Any:
    out = []
    for i in range(len(q)):
        s = np.array([q[i] @ k[j] / scale if visible[i, j] else blind for j in range(len(k))])
        p = np.exp(s - s.max())
        out.append((p / p.sum()) @ v)
    return np.array(out)


def attend_unscaled(q: Any, k: Any, v: Any, visible: Any) -> Any:  # 5.2
    return rows_of(q, k, v, visible, 1.0)


def attend_scaled_by_width(q: Any, k: Any, v: Any, visible: Any) -> Any:
    return rows_of(q, k, v, visible, float(k.shape[1]))


def attend_zero_for_hidden(q: Any, k: Any, v: Any, visible: Any) -> Any:
    return rows_of(q, k, v, visible, np.sqrt(k.shape[1]), 0.0)


def attend_mask_after(q: Any, k: Any, v: Any, visible: Any) -> Any:
    s = q @ k.T / k.shape[1] ** 0.5
    p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
    return (p * visible) @ v


def attend_columns(q: Any, k: Any, v: Any, visible: Any) -> Any:
    s = np.exp(np.where(visible, q @ k.T / k.shape[1] ** 0.5, -np.inf))
    total = s.sum(axis=0)
    return s / np.where(total == 0, 1, total) @ v


def split_straight(flat: Any, heads: int) -> Any:  # 6.1
    B, T, width = flat.shape
    return flat.reshape((B, heads, T, width // heads))


def cache_of_one(layers: int, kv_heads: int, head_dim: int, tokens: int, bytes_per_number: int = 2) -> int:  # 6.2
    return layers * tokens * kv_heads * head_dim * bytes_per_number


def group_in_turn(h: int, H: int, G: int) -> int:  # 6.3
    return [g for _ in range(H // G) for g in range(G)][h]


def grouped_in_turn(q: Any, k: Any, v: Any, visible: Any) -> Any:  # 6.4
    B, H = q.shape[:2]
    G, K = k.shape[1], q.shape[3]
    out = [[rows_of(q[b, h], k[b, h % G], v[b, h % G], visible, K**0.5) for h in range(H)] for b in range(B)]
    return np.array(out)


def silu_is_sigmoid(x: Any) -> Any:  # 7.1
    return 1 / (1 + np.exp(-x))


def gate_on_up(x: Any, gate: Any, up: Any, down: Any) -> Any:  # 7.2
    g, u = np.einsum("...d,fd->...f", x, gate), np.einsum("...d,fd->...f", x, up)
    return np.einsum("...f,df->...d", g * u / (1 + np.exp(-u)), down)


def block_parallel(x: Any, attention: Any, network: Any, first: Any, second: Any, eps: float) -> Any:  # 7.3
    size = np.sqrt(np.mean(x**2, axis=1) + eps)[:, None]
    return x + attention(x / size * first) + network(x / size * second)


def block_keeps_no_stream(x: Any, attention: Any, network: Any, first: Any, second: Any, eps: float) -> Any:
    def norm(x: Any, w: Any) -> Any:
        return x / np.sqrt(np.mean(x**2, axis=1) + eps)[:, None] * w

    x = x + attention(norm(x, first))
    return network(norm(x, second))


def warm_wrong_way(logits: Any, temperature: float) -> Any:  # 8.2
    if temperature == 0:
        return np.eye(len(logits))[logits.argmax()]
    e = np.exp((logits - logits.max()) * temperature)
    return e / e.sum()


def nucleus_too_small(logits: Any, p: float) -> Any:  # 8.3
    q = np.exp(logits - logits.max())
    q, kept, total = q / q.sum(), np.full(len(logits), -np.inf), 0.0
    for i in sorted(range(len(q)), key=lambda i: -q[i]):
        total += q[i]
        if total > p:
            break
        kept[i] = logits[i]
    return kept


def penalty_divides(logits: Any, seen: Any, penalty: float) -> Any:  # 8.4
    new = logits.astype(float)
    new[np.unique(np.array(seen, int))] /= penalty
    return new


def scale_one_for_all(weights: Any) -> Any:  # 12.3
    scale = max(abs(w) for w in weights) / 127
    return np.array([round(w / scale) for w in weights]).reshape(-1, 32), np.full(len(weights) // 32, scale)


def parameters_tied_for_untied(V: int, D: int, L: int, H: int, G: int, K: int, F: int, tied: bool) -> int:  # 0.3
    tables = [V * D] if not tied else [V * D, V * D]
    layer = [H * K * D, G * K * D, G * K * D, D * H * K, F * D, F * D, D * F, D, D]
    return sum(tables) + sum(layer) * L + D


def parameters_two_norms_in_all(V: int, D: int, L: int, H: int, G: int, K: int, F: int, tied: bool) -> int:
    matrices = sum(L * rows * D for rows in (H * K, G * K, G * K, H * K, F, F, F))
    return matrices + 3 * D + V * D * (2 - int(tied))


def pairs_set_anew(words: Any) -> dict[tuple[str, str], int]:  # 1.1
    counts = {}
    for pieces, times in words:
        for i in range(1, len(pieces)):
            counts[pieces[i - 1], pieces[i]] = times
    return counts


def encode_newest_merge(word: str, rank: dict[str, int]) -> list[str]:  # 1.2
    pieces = list(word)
    while any(a + b in rank for a, b in itertools.pairwise(pieces)):
        ranks = [rank.get(a + b, -1) for a, b in itertools.pairwise(pieces)]
        i = ranks.index(max(ranks))
        pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
    return pieces


def decode_without_looking(ids: list[int], pieces: list[str]) -> str:  # 1.4
    raw = bytearray()
    for i in ids:
        if i not in (0, 1, 2):
            match = re.fullmatch("<0x(..)>", pieces[i])
            raw += bytes.fromhex(match[1]) if match else pieces[i].replace("▁", " ").encode()
    return "".join(list(raw.decode(errors="replace"))[1:])


def decode_what_is_whole(ids: list[int], pieces: list[str]) -> str:  # 1.4
    raw = b"".join(
        bytes.fromhex(piece[3:5]) if piece.startswith("<0x") else piece.replace("▁", " ").encode()
        for piece in (pieces[i] for i in ids if i >= 3)
    )
    return raw.decode("utf-8", "ignore").removeprefix(" ")


def nearest_by_columns(index: int, table: Any, number: int) -> list[int]:  # 2.1
    scaled = table / np.sqrt(np.sum(table**2, 0))
    similar = {j: sum(a * b for a, b in zip(scaled[j], scaled[index], strict=True)) for j in range(len(table))}
    del similar[index]
    return sorted(similar, key=lambda j: similar[j], reverse=True)[:number]


def softmax_around_the_mean(scores: Any) -> Any:  # 2.2
    e = np.exp(scores - np.average(scores, axis=-1)[..., None])
    return e / np.einsum("...v->...", e)[..., None]


def norm_of_length_one(x: Any, weight: Any, eps: float) -> Any:  # 3.1
    return np.apply_along_axis(lambda row: row / np.sqrt(row @ row) * weight, -1, x)


def norm_by_deviation(x: Any, weight: Any, eps: float) -> Any:
    spread = np.mean((x - np.mean(x, -1)[..., None]) ** 2, -1)[..., None]
    return weight * x / (spread + eps) ** 0.5


def which_by_output(x: Any, y: Any) -> str:  # 3.3
    if all(abs(sum(row)) < 1e-6 for row in y):
        return "layer"
    root = np.sqrt((x**2).mean(1) + 1e-5)
    return "rms" if all(np.allclose(a / r, b) for a, r, b in zip(x, root, y, strict=True)) else "neither"


def which_by_one_row(x: Any, y: Any) -> str:
    row, centred = x[0], x[0] - x[0].mean()
    if np.allclose(y[0], row * (np.dot(row, row) / len(row) + 1e-5) ** -0.5):
        return "rms"
    return "layer" if np.allclose(y[0], centred * (centred.var() + 1e-5) ** -0.5) else "neither"


def turn_plus_plus(x: Any, positions: Any, speeds: Any) -> Any:  # 4.2
    half = len(speeds)
    cos, sin = np.cos(np.outer(positions, speeds)), np.sin(np.outer(positions, speeds))
    y = np.hstack((x[:, :half] * cos, x[:, half:] * cos))
    return y + np.hstack((x[:, half:] * sin, x[:, :half] * sin))


def turn_by_degrees(x: Any, positions: Any, speeds: Any) -> Any:
    half = x.shape[1] // 2
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * np.outer(positions, speeds) * np.pi / 180)
    return np.concatenate((z.real, z.imag), 1)


def order_of_floats(K: int) -> Any:  # 4.3
    return np.hstack((np.linspace(0, K - 2, K // 2), np.linspace(1, K - 1, K // 2)))


def mask_of_ones(T: int, S: int) -> Any:  # 5.1
    return np.tri(T, S, S - T)


def attend_weights_scaled(q: Any, k: Any, v: Any, visible: Any) -> Any:  # 5.2
    return rows_of(q, k, v, visible, 1.0) / np.sqrt(k.shape[1])


def attend_by_a_mask_of_its_own(q: Any, k: Any, v: Any, visible: Any) -> Any:
    T, S = visible.shape
    return rows_of(q, k, v, np.tri(T, S, S - T) == 1, np.sqrt(k.shape[1]))


def grouped_laid_out_twice(q: Any, k: Any, v: Any, visible: Any) -> Any:  # 6.4
    B, H, T, K = q.shape
    share = H // k.shape[1]
    out = [[rows_of(q[b, h], k[b, h // share], v[b, h // share], visible, K**0.5) for h in range(H)] for b in range(B)]
    return np.einsum("bthk->bhtk", np.array(out).reshape(B, T, H, K))


PLANTED: list[Planted] = [
    ("3.1", "outside the square root", norm_by_hand),
    ("3.1", "their mean is wanted", norm_by_length),
    ("3.1", "layer normalization", norm_centred),
    ("3.1", "square root is missing", norm_rsqrt_forgotten),
    ("4.1", "exponent is negative", speeds_positive),
    ("4.1", "counts components", speeds_by_component),
    ("4.2", "interleaved pairs", turn_interleaved),
    ("4.2", "backwards", turn_backwards),
    ("4.2", "already turned", turn_overwriting),
    ("4.3", "way back", order_inverse),
    ("5.1", "a token sees the one after it", mask_sees_next),
    ("5.1", "does not see itself", mask_blind_to_itself),
    ("5.1", "count them from the first", mask_from_the_first),
    ("5.2", "not divided by the square root", attend_unscaled),
    ("5.2", "divided by K", attend_scaled_by_width),
    ("5.2", "give them -inf", attend_zero_for_hidden),
    ("5.2", "after the softmax", attend_mask_after),
    ("5.2", "over the queries", attend_columns),
    ("6.1", "come from several tokens", split_straight),
    ("6.2", "keys and values", cache_of_one),
    ("6.3", "in turn", group_in_turn),
    ("6.4", "in turn", grouped_in_turn),
    ("7.1", "that is the sigmoid", silu_is_sigmoid),
    ("7.2", "changed places", gate_on_up),
    ("7.3", "before attention was added", block_parallel),
    ("7.3", "takes its place", block_keeps_no_stream),
    ("8.2", "not multiplied", warm_wrong_way),
    ("8.3", "crosses the border", nucleus_too_small),
    ("8.4", "a negative logit is multiplied", penalty_divides),
    ("12.3", "one for all", scale_one_for_all),
    ("0.3", "tied is the wrong way round", parameters_tied_for_untied),
    ("0.3", "in each of the L layers", parameters_two_norms_in_all),
    ("1.1", "add to the number it has", pairs_set_anew),
    ("1.2", "last learned", encode_newest_merge),
    ("1.4", "whatever it is", decode_without_looking),
    ("1.4", "is not complete", decode_what_is_whole),
    ("2.1", "lengths of the columns", nearest_by_columns),
    ("2.2", "subtract the mean", softmax_around_the_mean),
    ("3.1", "root of the sum of squares", norm_of_length_one),
    ("3.1", "standard deviation", norm_by_deviation),
    ("3.3", "mean is zero", which_by_output),
    ("3.3", "first row", which_by_one_row),
    ("4.2", "both signs are plus", turn_plus_plus),
    ("4.2", "radians already", turn_by_degrees),
    ("4.3", "whole numbers are wanted", order_of_floats),
    ("5.1", "booleans are wanted", mask_of_ones),
    ("5.2", "shrinks the weights", attend_weights_scaled),
    ("5.2", "visible you are given", attend_by_a_mask_of_its_own),
    ("6.4", "mixes heads and tokens", grouped_laid_out_twice),
]


def told(number: str, answer: Callable[..., Any]) -> str:
    with pytest.raises(checks.WrongAnswerError) as wrong:
        checks.check(number, answer)
    return str(wrong.value)


def test_planted_mistakes_are_told_by_name() -> None:
    assert len(PLANTED) == 49
    answers = [(number, words, answer.__name__, told(number, answer)) for number, words, answer in PLANTED]
    missed = [(number, name, said) for number, words, name, said in answers if words not in said]
    assert len(missed) <= 5, missed
