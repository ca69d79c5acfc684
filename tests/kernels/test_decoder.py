"""A pass through the whole model, beside NumPy; of batches, and of bits that stay the same, see tests/runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from tests.runtime.beside import FORMS, ODD, NumpyRounded, assert_near, numba_engine

EVEN = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 64, "head_dim": 16}
KINDS = ("random", "one number far out", "denormal", "zero", "denormal but for one")


def streams(width: int) -> Array:
    """A row of each of KINDS, float32."""
    x = np.random.default_rng(55).standard_normal((len(KINDS), width))
    x[1, width // 3] = 3e4
    x[2] *= 1e-40
    x[3] = 0
    x[4] *= 1e-40
    x[4, -1] = 2
    return x.astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", [ODD, EVEN], ids=["odd", "even"])
def test_streams_of_every_kind(form: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as a text of one token, several times, and among the others; then one token after each text."""
    table = streams(sizes["hidden_size"])

    def embed(ids: Any, out: Array | None = None) -> Array:
        x = table[np.asarray(ids)]
        if out is not None:
            out[:] = x
        return x

    how = {"attention_bias": True, "mlp_bias": True, **sizes}  # without biases nothing would come of zeros
    ours, theirs = numba_engine(form, **how), NumpyRounded(form, **how)
    for model in (ours.model, theirs.engine.decoder):
        monkeypatch.setattr(model, "embed", embed)
    for rows in ([[kind] for kind in range(5)], [[kind] * 3 for kind in range(5)], [[2, 1, 0, 3, 4], [3, 4, 2, 1]]):
        ours.reset()
        theirs.reset()
        assert_near(form, ours.prefill(rows), theirs.prefill(rows))
        after = np.arange(len(rows))[::-1].copy()
        assert_near(form, ours.decode(after), theirs.decode(after))
