import math
from types import SimpleNamespace

import numpy as np
import pytest

from minillama.model.mlp import ACTIVATIONS, activation, erf, mlp, silu
from tests.tiny import assert_close, spiky


def test_the_formula_in_loops() -> None:
    rng = np.random.default_rng(20)
    D, F = 4, 7
    w = SimpleNamespace(
        gate_proj=spiky(rng, F, D), up_proj=spiky(rng, F, D), down_proj=spiky(rng, D, F),
        gate_bias=spiky(rng, F), up_bias=spiky(rng, F), down_bias=spiky(rng, D),
    )  # fmt: skip
    x = spiky(rng, 2, 3, D)
    expected = np.empty_like(x)
    for b, t in np.ndindex(2, 3):
        hidden = []
        for f in range(F):
            gate = sum(w.gate_proj[f, d] * x[b, t, d] for d in range(D)) + w.gate_bias[f]
            up = sum(w.up_proj[f, d] * x[b, t, d] for d in range(D)) + w.up_bias[f]
            hidden.append(gate / (1 + math.exp(-gate)) * up)
        for d in range(D):
            expected[b, t, d] = sum(w.down_proj[d, f] * hidden[f] for f in range(F)) + w.down_bias[d]
    assert_close(mlp(x, w, silu), expected)


# f(1) and f(-2), from the definitions with 40 decimal digits
VALUES = {
    "silu": (0.73105857863000488, -0.23840584404423511),
    "gelu": (0.84134474606854295, -0.04550026389635841),
    "gelu_pytorch_tanh": (0.84119199060827670, -0.04540230591222498),
    "quick_gelu": (0.84579576593282130, -0.06434137685579185),
    "relu": (1.0, 0.0),
}


@pytest.mark.parametrize("name", VALUES)
def test_known_values(name: str) -> None:
    # Near -2 these formulas subtract numbers near 1, so float64's 1e-16 becomes some 1e-15 of what is left
    np.testing.assert_allclose(ACTIVATIONS[name](np.array([1.0, -2.0])), VALUES[name], rtol=2e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_overflow_and_the_dtype_stays(name: str, dtype: str) -> None:
    y = ACTIVATIONS[name](np.array([-1e4, -30, 0, 1e4], dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(y, [0, 0, 0, 1e4], atol=1e-4)  # the tails: float32's half step at 1, times 1e4 at most


def test_erf_is_the_standard_librarys() -> None:
    x = np.array([[-3.0, -0.1], [0.5, 2]])
    np.testing.assert_array_equal(erf(x), [[math.erf(value) for value in row] for row in x.tolist()])


def test_an_activation_by_name_or_a_function() -> None:
    assert activation("silu") is silu
    y = activation(lambda x: np.float64(3) * x)(np.array([-1.5, 2], np.float32))
    assert y.dtype == np.float32  # though the function gave float64
    np.testing.assert_array_equal(y, [-4.5, 6])
    with pytest.raises(ValueError, match="'mish' is unknown: use one of silu"):
        activation("mish")
