"""The exercises of chapter 0, the map."""

import numpy as np
from checks import Exercise

_random = np.random.default_rng(0)
_LOGITS = _random.normal(0, 2, (3, 4, 7))
_LOGITS[1, 0, 5] = 30  # a score that no other position comes near


def next_ids(logits):
    return logits[:, -1].argmax(-1)


def number_of_parameters(V, D, L, H, G, K, F, tied):
    attention = 2 * H * K * D + 2 * G * K * D
    return (1 if tied else 2) * V * D + L * (attention + 3 * D * F + 2 * D) + D


def _head_twice(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, False)


def _head_never(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, True)


def _all_heads(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, H, K, F, tied)


def _no_last_norm(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, tied) - D


def _one_norm(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, tied) - L * D


def _two_matrices(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, tied) - L * D * F


def _no_output(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, tied) - L * H * K * D


def _one_layer(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, 1, H, G, K, F, tied)


def _no_norms(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, tied) - (2 * L + 1) * D


def _tied_turned_round(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, not tied)


def _norms_once(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, tied) - 2 * (L - 1) * D


def _keys_without_values(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, tied) - L * G * K * D


def _output_square(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, H, G, K, F, tied) + L * (D - H * K) * D


def _square(V, D, L, H, G, K, F, tied):
    return number_of_parameters(V, D, L, 1, G / H, D, F, tied)


EXERCISES = {
    "0.1": Exercise(
        name="probs_shape",
        right=(1, 4, 5, 5),
        mistakes={
            "those are the key/value heads (G): every query head (H) has probabilities of its own": (1, 2, 5, 5),
            "the batch is missing: one text is a batch of 1": (4, 5, 5),
            "the heads are missing: each of the H heads has probabilities of its own": (1, 5, 5),
            "the layers are not in it: every layer hands over its own array": (1, 6, 5, 5),
            "those are layers where heads are wanted: every layer hands over its own array": (6, 4, 5, 5),
            "the last size is the number of keys (S), one for each id that can be looked at, not K": (1, 4, 5, 64),
            "these probabilities are over positions (S), not over the vocabulary (V)": (1, 4, 5, 4096),
            "heads come before positions: B, H, T, S": (1, 5, 4, 5),
            "a position looks at positions: there are T = 5 queries and S = 5 keys": (1, 4, 5),
        },
    ),
    "0.2": Exercise(
        name="next_ids",
        right=next_ids,
        cases=[(_LOGITS,), (_LOGITS[1:2, :3],)],
        mistakes={
            "you read the first position: what comes next is scored at the last one": lambda x: x[:, 0].argmax(-1),
            "you read all positions: only the last one scores what is not known yet": lambda x: x.argmax(-1),
            "these are places in the text: take the best along the last axis, V": lambda x: x.argmax(1)[:, -1],
            "you look for the best in a whole text at once": lambda x: x.reshape(len(x), -1).argmax(-1),
            "these are the scores: the ids that have them are wanted": lambda x: x[:, -1].max(-1),
            "you take the worst score": lambda x: x[:, -1].argmin(-1),
            "you read the last text only: every text of the batch goes on": lambda x: x[-1].argmax(-1),
            "that is one id, for the first text: every text of the batch goes on": lambda x: x[0, -1].argmax(),
            "you read the last position but one": lambda x: x[:, -2].argmax(-1),
        },
    ),
    "0.3": Exercise(
        name="number_of_parameters",
        right=number_of_parameters,
        # Two tied models with no two sizes alike, a LLaMA of 7 billion, a Llama 3 of 8 billion
        cases=[
            (4096, 256, 6, 4, 2, 64, 704, True),
            (512, 48, 3, 6, 2, 10, 100, True),
            (32_000, 4096, 32, 32, 32, 128, 11_008, False),
            (128_256, 4096, 32, 32, 8, 128, 14_336, False),
        ],
        rtol=1e-12,  # a norm of a large model is a millionth of it; these are whole numbers
        mistakes={
            "a tied head is the embedding: it is counted once": _head_twice,
            "a head that is not tied has a table of its own": _head_never,
            "keys and values have G heads, fewer than the queries": _all_heads,
            "the norm after the last layer is missing": _no_last_norm,
            "each layer has two norms": _one_norm,
            "the MLP has three matrices: gate, up and down": _two_matrices,
            "o_proj, which brings the heads back to D, is missing": _no_output,
            "there are L layers, each with weights of its own": _one_layer,
            "the norms have weights too, D each": _no_norms,
            "tied is the wrong way round: a tied head adds nothing, one that is not tied adds V times D": (
                _tied_turned_round
            ),
            "the two norms are in each of the L layers: you count them once": _norms_once,
            "k_proj and v_proj are two matrices, each from D to G K: one is missing": _keys_without_values,
            "o_proj begins at H K numbers, which need not be D": _output_square,
            "you take H K for D: a head may have any width K": _square,
        },
    ),
}
