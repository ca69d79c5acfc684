"""A safetensors file that is filled as its tensors come."""

from __future__ import annotations

import io

import numpy as np
import pytest
from safetensors.numpy import load

from minillama.weights.filling import Filling


def test_tensors_come_in_any_order() -> None:
    rng = np.random.default_rng(3)
    tensors = {"a": rng.standard_normal((2, 3)), "b": rng.standard_normal((5, 1, 2)), "c": np.array(7.5)}
    out = io.BytesIO()
    filling = Filling(out, {name: array.shape for name, array in tensors.items()}, "F64", {"ids": "[]   "})
    for name in ("b", "c", "a"):
        filling.put(name, tensors[name])
    filling.finish({"ids": "[1,2]"})
    read = load(out.getvalue())
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)
    assert b'"ids":"[1,2]"' in out.getvalue()


def test_a_file_that_would_not_hold_what_it_says_is_refused() -> None:
    filling = Filling(io.BytesIO(), {"a": (2, 3), "b": (1,)}, "F32", {})
    with pytest.raises(ValueError, match=r"a has the shape \(3, 2\)"):
        filling.put("a", np.zeros((3, 2)))
    filling.put("a", np.zeros((2, 3)))
    with pytest.raises(ValueError, match="b has not been computed"):
        filling.finish({})
    filling.put("b", np.zeros(1))
    with pytest.raises(ValueError, match="as long as before"):
        filling.finish({"notes": "x" * 100})
