"""The exercises of chapter 7, SwiGLU and the block."""

import numpy as np
from checks import Exercise

from minillama.model.mlp import gelu, silu
from minillama.model.norm import rms_norm

_random = np.random.default_rng(7)
_X = _random.normal(0, 2, (2, 3, 5))
_GATE, _UP, _DOWN = _random.normal(0, 1, (4, 5)), _random.normal(0, 1, (4, 5)), _random.normal(0, 1, (5, 4))
# A square case, in which a matrix and its transpose have the same shape
_SQUARE = tuple(_random.normal(0, 1, (4, 4)) for _ in range(4))
_NUMBERS = np.array([-1000.0, -20, -1.5, -0.1, 0, 0.3, 2, 30, 800])


def swiglu(x, gate, up, down):
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


_STREAM = _random.normal(0.3, 3, (4, 6))
_FIRST, _SECOND = _random.uniform(0.3, 2, 6), _random.uniform(0.3, 2, 6)
_MIX = _random.normal(0, 0.5, (4, 4))


def _attention(x):
    return np.tril(_MIX) @ x


def _network(x):
    return np.tanh(x) * 2 - 0.3


_BLOCK = [
    (_STREAM, _attention, _network, _FIRST, _SECOND, 1e-5),
    (1e-3 * _STREAM, _attention, _network, _FIRST, _SECOND, 1e-5),
]


def block(x, attention, network, first, second, eps):
    x = x + attention(rms_norm(x, first, eps))
    return x + network(rms_norm(x, second, eps))


def _old_stream(x, attention, network, first, second, eps):
    return x + attention(rms_norm(x, first, eps)) + network(rms_norm(x, second, eps))


def _no_first_residual(x, attention, network, first, second, eps):
    x = attention(rms_norm(x, first, eps))
    return x + network(rms_norm(x, second, eps))


def _no_second_residual(x, attention, network, first, second, eps):
    x = x + attention(rms_norm(x, first, eps))
    return network(rms_norm(x, second, eps))


def _first_again(x, attention, network, first, second, eps):
    x0, x = x, x + attention(rms_norm(x, first, eps))
    return x0 + network(rms_norm(x, second, eps))


def _post_norm(x, attention, network, first, second, eps):
    x = rms_norm(x + attention(x), first, eps)
    return rms_norm(x + network(x), second, eps)


def _norm_is_the_stream(x, attention, network, first, second, eps):
    h = rms_norm(x, first, eps)
    x = h + attention(h)
    h = rms_norm(x, second, eps)
    return h + network(h)


def _no_norms(x, attention, network, first, second, eps):
    x = x + attention(x)
    return x + network(x)


def _same_weight(x, attention, network, first, second, eps):
    return block(x, attention, network, first, first, eps)


def _network_first(x, attention, network, first, second, eps):
    x = x + network(rms_norm(x, first, eps))
    return x + attention(rms_norm(x, second, eps))


def _same_input(x, attention, network, first, second, eps):
    h = rms_norm(x, first, eps)
    return x + attention(h) + network(h)


def _norm_of_norm(x, attention, network, first, second, eps):
    h = rms_norm(x, first, eps)
    return x + attention(h) + network(rms_norm(h, second, eps))


def _no_first_norm(x, attention, network, first, second, eps):
    x = x + attention(x)
    return x + network(rms_norm(x, second, eps))


def _no_second_norm(x, attention, network, first, second, eps):
    x = x + attention(rms_norm(x, first, eps))
    return x + network(x)


def _norm_of_the_answers(x, attention, network, first, second, eps):
    x = x + rms_norm(attention(x), first, eps)
    return x + rms_norm(network(x), second, eps)


def _own_eps(x, attention, network, first, second, eps):
    return block(x, attention, network, first, second, 1e-6)


def _weights_swapped(x, attention, network, first, second, eps):
    return block(x, attention, network, second, first, eps)


def parameters(V, D, F, L, H, G, K, tied):
    layer = 2 * H * K * D + 2 * G * K * D + 3 * D * F + 2 * D
    return V * D * (1 if tied else 2) + L * layer + D


_SIZES = [
    (4096, 256, 704, 6, 4, 2, 64, True),
    (32000, 4096, 11008, 32, 32, 32, 128, False),
    (50, 12, 20, 3, 6, 2, 4, False),
]

EXERCISES = {
    "7.1": Exercise(
        name="my_silu",
        right=silu,
        cases=[(_NUMBERS,), (_NUMBERS[2:8].reshape(2, 3),)],
        mistakes={
            "that is the sigmoid: it is still to be multiplied by x": lambda x: 0.5 * np.tanh(x / 2) + 0.5,
            "the tanh is of half of x": lambda x: x * (0.5 * np.tanh(x) + 0.5),
            "the half is added before x multiplies: brackets are missing": lambda x: x * 0.5 * np.tanh(x / 2) + 0.5,
            "the half that is added is missing": lambda x: x * (0.5 * np.tanh(x / 2)),
            "sigmoid is half of tanh, plus a half: a factor is missing": lambda x: x * (np.tanh(x / 2) + 0.5),
            "that is relu": lambda x: np.maximum(x, 0),
            "that is gelu": gelu,
            "x times tanh is another activation: sigmoid is between 0 and 1": lambda x: x * np.tanh(x),
            "the sign in the exponent is wrong: small x pass, and large ones do not": lambda x: -silu(-x),
        },
    ),
    "7.2": Exercise(
        name="swiglu",
        right=swiglu,
        cases=[(_X, _GATE, _UP, _DOWN), _SQUARE],
        mistakes={
            "gate and up have changed places: silu belongs to the gate": lambda x, g, u, d: swiglu(x, u, g, d),
            "silu is missing": lambda x, g, u, d: ((x @ g.T) * (x @ u.T)) @ d.T,
            "silu comes after the product: it belongs to the gate alone": lambda x, g, u, d: (
                silu((x @ g.T) * (x @ u.T)) @ d.T
            ),
            "both are put through silu: only the gate is": lambda x, g, u, d: (silu(x @ g.T) * silu(x @ u.T)) @ d.T,
            "up is not used: that is a network without a gate": lambda x, g, u, d: silu(x @ g.T) @ d.T,
            "the gate and up are multiplied, not added": lambda x, g, u, d: (silu(x @ g.T) + x @ u.T) @ d.T,
            "that is gelu in place of silu": lambda x, g, u, d: (gelu(x @ g.T) * (x @ u.T)) @ d.T,
            "that is relu in place of silu": lambda x, g, u, d: (np.maximum(x @ g.T, 0) * (x @ u.T)) @ d.T,
            "that is the sigmoid in place of silu": lambda x, g, u, d: (
                ((0.5 * np.tanh(x @ g.T / 2) + 0.5) * (x @ u.T)) @ d.T
            ),
            "the last matrix is missing: the result has D components": lambda x, g, u, d: silu(x @ g.T) * (x @ u.T),
            "x is added: that is the block's affair": lambda x, g, u, d: x + swiglu(x, g, u, d),
        },
    ),
    "7.3": Exercise(
        name="block",
        right=block,
        cases=_BLOCK,
        mistakes={
            "the second norm reads the stream before attention was added to it": _old_stream,
            "attention is not added to x but takes its place": _no_first_residual,
            "the network is not added to x but takes its place": _no_second_residual,
            "the network is added to the old x, so that attention is lost": _first_again,
            "the norms stand after the additions (post-norm): they belong before attention and network": _post_norm,
            "you add to the normalized vector: the stream itself is never normalized": _norm_is_the_stream,
            "the norms are missing": _no_norms,
            "both norms have the first weight": _same_weight,
            "the two weights have changed places": _weights_swapped,
            "the network is given what attention was given: it needs a norm of its own, of the new stream": _same_input,
            "the second norm reads the first one's result: it reads the stream": _norm_of_norm,
            "the first norm is missing": _no_first_norm,
            "the second norm is missing": _no_second_norm,
            "the norms stand before attention and network, not after them": _norm_of_the_answers,
            "eps is an argument, not always 1e-6": _own_eps,
            "attention comes first, then the network": _network_first,
        },
    ),
    "7.4": Exercise(
        name="parameters",
        right=parameters,
        cases=_SIZES,
        mistakes={
            "keys and values have G heads, not H": lambda V, D, F, L, H, G, K, tied: parameters(
                V, D, F, L, H, H, K, tied
            ),
            "the network has three matrices: gate, up and down": lambda V, D, F, L, H, G, K, tied: (
                parameters(V, D, F, L, H, G, K, tied) - L * D * F
            ),
            "the final norm is missing": lambda V, D, F, L, H, G, K, tied: parameters(V, D, F, L, H, G, K, tied) - D,
            "a layer has two norms": lambda V, D, F, L, H, G, K, tied: parameters(V, D, F, L, H, G, K, tied) - L * D,
            "norms are not counted": lambda V, D, F, L, H, G, K, tied: (
                parameters(V, D, F, L, H, G, K, tied) - (2 * L + 1) * D
            ),
            "a head that is tied is the embedding, and counts once": lambda V, D, F, L, H, G, K, tied: parameters(
                V, D, F, L, H, G, K, False
            ),
            "the head counts too, unless it is tied": lambda V, D, F, L, H, G, K, tied: parameters(
                V, D, F, L, H, G, K, True
            ),
            "tied is the wrong way round": lambda V, D, F, L, H, G, K, tied: parameters(V, D, F, L, H, G, K, not tied),
            "H K need not be D: the second size is in the list above": lambda V, D, F, L, H, G, K, tied: (
                parameters(V, D, F, L, H, G, K, tied) + 2 * L * D * (D - H * K)
            ),
            "keys and values have a matrix each": lambda V, D, F, L, H, G, K, tied: (
                parameters(V, D, F, L, H, G, K, tied) - L * G * K * D
            ),
            "there is one final norm, not one in every layer": lambda V, D, F, L, H, G, K, tied: (
                parameters(V, D, F, L, H, G, K, tied) + (L - 1) * D
            ),
            "a head has K rows: q is H K × D, not H × D": lambda V, D, F, L, H, G, K, tied: parameters(
                V, D, F, L, H, G, 1, tied
            ),
            "the embedding and the head are missing": lambda V, D, F, L, H, G, K, tied: parameters(
                0, D, F, L, H, G, K, tied
            ),
            "the matrix o is missing": lambda V, D, F, L, H, G, K, tied: (
                parameters(V, D, F, L, H, G, K, tied) - L * H * K * D
            ),
            "that is one layer: there are L": lambda V, D, F, L, H, G, K, tied: parameters(V, D, F, 1, H, G, K, tied),
        },
    ),
}
