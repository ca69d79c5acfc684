"""onnx's reference operators, one node at a time, as the conformance suite calls them:

pytest --pyargs minillama.testing.suite --impl tests.oracle.adapters.onnx_parts
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from minillama.arrays import Array

OPSET = 23  # the first with these operators
level, layout = "float32", "halves"


def node(op: str, inputs: dict[str, Array], **attributes: Any) -> Array:
    made = onnx.helper.make_node(op, list(inputs), ["result"], **attributes)
    kinds = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in inputs.items()
    ]
    result = onnx.helper.make_tensor_value_info("result", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([made], "one", kinds, [result])
    opset = [onnx.helper.make_opsetid("", OPSET)]
    return ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opset)).run(None, inputs)[0]


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return node("RMSNormalization", {"X": x, "scale": weight}, axis=-1, epsilon=eps)


def rope(x: Array, positions: Array, theta: float, scaling: dict[str, Any] | None) -> Array:
    """The operator is given cosines and sines, so that scaling is not its own."""
    if scaling is not None:
        raise NotImplementedError("onnx's operator knows no scaling")
    K = x.shape[-1]
    angles = positions[..., None] * theta ** -(np.arange(0, K, 2) / K)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return node("RotaryEmbedding", {"X": x, "cos_cache": cos, "sin_cache": sin})


def attention(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    T, S = q.shape[2], k.shape[2]
    # is_causal counts from the first key: with more keys than queries it is another mask
    seen = np.tri(T, S, S - T, bool) if mask is None and T < S else mask
    inputs = {"Q": q, "K": k, "V": v} | ({} if seen is None else {"attn_mask": seen})
    return node("Attention", inputs, is_causal=int(seen is None))
