"""onnx's own test cases for the operations that a LLaMA is made of: inputs, attributes and outputs of single nodes.

A case whose node does something no LLaMA does is skipped with the reason; an attribute that nobody here has heard of
fails. Needs onnx (1.19 or later: until then its reference paired queries and keys of a group wrongly), and neither
torch nor transformers.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.model.attention import grouped_context, grouped_scores, merge_heads, split_heads, visible_keys
from minillama.model.cache import KVCache
from minillama.model.norm import rms_norm
from minillama.model.ops import softmax
from minillama.model.rope import rotate
from minillama.weights.names import halves_to_interleaved, interleaved_to_halves

onnx = pytest.importorskip("onnx", reason="needs the oracle extra")
pytestmark = pytest.mark.oracle

# Ours computes in float64 here, so what is left is the rounding of onnx's reference, in the type of the case: 2^-24,
# 2^-11 and 2^-8 a number. A dozen of them in a row, on numbers about 1, stay below these.
TOLERANCE = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}
KNOWN = {
    "RMSNormalization": {"axis", "epsilon"},
    "RotaryEmbedding": {"interleaved", "num_heads", "rotary_embedding_dim"},
    "Attention": {
        *("is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap"),
        *("left_window_size", "right_window_size", "softmax_precision"),
    },
}


class Case:
    """A model of one node with one set of inputs and outputs, both by the names the operation gives them."""

    def __init__(self, case: Any, inputs: list[str], outputs: list[str]):
        (node,) = case.model.graph.node
        self.name, self.op = case.name, node.op_type
        self.attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        given, expected = map(list, case.data_sets[0])
        self.dtype = str(given[0].dtype)
        self.inputs = self._named(node.input, inputs, given)
        self.outputs = self._named(node.output, outputs, expected)

    @staticmethod
    def _named(used: Any, names: list[str], values: list[Array]) -> dict[str, Array]:
        present = [name for name, here in zip(names, used, strict=False) if here]  # an absent one is an empty name
        widened = [v if v.dtype.kind in "bi" else v.astype(np.float64) for v in values]
        return dict(zip(present, widened, strict=True))

    def why_not(self) -> str | None:
        """What the node does that no LLaMA does, if anything."""
        of = self.attributes.get
        if of("rotary_embedding_dim"):
            return "rotates a part of each head: a LLaMA rotates all of it"
        if of("softcap"):
            return "caps the scores by a hyperbolic tangent"
        if of("left_window_size", -1) >= 0 or of("right_window_size", -1) >= 0:
            return "sees a window of keys: a LLaMA sees all that came before"
        mask = self.inputs.get("attn_mask")
        if mask is not None and mask.dtype != bool and not np.isin(mask, (0, -np.inf)).all():
            return "adds numbers to the scores: a LLaMA's mask only forbids keys"
        return None


def collect() -> Iterator[Any]:
    with warnings.catch_warnings():  # of the other operations, while their cases are made
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    names = {
        "RMSNormalization": (["X", "W"], ["Y"]),
        "RotaryEmbedding": (["X", "cos", "sin", "positions"], ["Y"]),
        "Attention": (
            ["Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"],
            ["Y", "present_key", "present_value", "qk_matmul_output"],
        ),
    }
    for case in found:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in names:  # others spell the same operation out in many nodes
            yield Case(case, *names[nodes[0].op_type])


CASES = list(collect())


def rms_normalization(case: Case) -> dict[str, Array]:
    """Over the last axes from `axis` on: one long axis is the same."""
    x, weight = case.inputs["X"], case.inputs["W"]
    rows = x.reshape(*x.shape[: case.attributes.get("axis", -1) % x.ndim], -1)
    return {"Y": rms_norm(rows, weight.reshape(-1), case.attributes.get("epsilon", 1e-5)).reshape(x.shape)}


def rotary_embedding(case: Case) -> dict[str, Array]:
    """Interleaved pairs are brought into halves as a checkpoint's are, by reordering the components of each head."""
    x, positions = case.inputs["X"], case.inputs.get("positions")
    cos, sin = (case.inputs[name] if positions is None else case.inputs[name][positions] for name in ("cos", "sin"))
    heads = case.attributes.get("num_heads") or x.shape[1]
    flat = x if x.ndim == 3 else merge_heads(x)  # (B, T, heads K)
    rows = flat.reshape(-1, flat.shape[-1]).T  # (heads K, B T), as the rows of a projection
    if case.attributes.get("interleaved"):
        rows = interleaved_to_halves(rows, heads)
    y = merge_heads(rotate(split_heads(rows.T.reshape(flat.shape), flat.shape[-1] // heads), cos, sin))
    if case.attributes.get("interleaved"):
        y = halves_to_interleaved(y.reshape(-1, y.shape[-1]).T, heads).T.reshape(flat.shape)
    return {"Y": y if x.ndim == 3 else split_heads(y, x.shape[-1])}


def attention(case: Case) -> dict[str, Array]:
    of = case.attributes.get
    q, k, v = (case.inputs[name] for name in "QKV")
    three_axes = q.ndim == 3
    if three_axes:
        q = split_heads(q, q.shape[2] // of("q_num_heads"))
        k, v = (split_heads(x, x.shape[2] // of("kv_num_heads")) for x in (k, v))
    cache, past = KVCache(1), 0
    if "past_key" in case.inputs:
        cache.append(0, case.inputs["past_key"], case.inputs["past_value"])
        past = case.inputs["past_key"].shape[2]
    k, v = cache.append(0, k, v)  # (B, G, S, K)
    (B, _, T, K), S = q.shape, k.shape[2]

    # How many keys there are up to the last query: those of a row may end earlier than the array does
    lengths = case.inputs.get("nonpad_kv_seqlen", np.full(B, past + T))
    visible = np.ones((B, 1, T, S), bool)
    if of("is_causal"):
        visible[:] = False
        for row, length in enumerate(lengths.tolist()):
            visible[row, 0, :, :length] = visible_keys(T, length)[0, 0, :, :S]
    elif "nonpad_kv_seqlen" in case.inputs:
        visible &= (np.arange(S) < lengths[:, None])[:, None, None]
    mask = case.inputs.get("attn_mask")
    if mask is not None:
        allowed = mask if mask.dtype == bool else mask == 0
        missing = S - allowed.shape[-1]  # keys that the mask does not mention may not be seen
        visible = visible & np.pad(allowed, [(0, 0)] * (allowed.ndim - 1) + [(0, missing)])

    scores = grouped_scores(q, k) * (of("scale") or 1 / np.sqrt(K))
    probs = softmax(np.where(visible, scores, -np.inf))
    y = grouped_context(probs, v)
    modes = [scores, scores, np.where(visible, scores, -np.inf), probs]  # mode 1 is after a cap, and there is none
    return {
        "Y": merge_heads(y) if three_axes else y,
        "present_key": k,
        "present_value": v,
        "qk_matmul_output": modes[of("qk_matmul_output_mode", 0)],
    }


OURS = {"RMSNormalization": rms_normalization, "RotaryEmbedding": rotary_embedding, "Attention": attention}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_node(case: Case) -> None:
    assert set(case.attributes) <= KNOWN[case.op]
    reason = case.why_not()
    if reason is not None:
        pytest.skip(reason)
    ours = OURS[case.op](case)
    for name, expected in case.outputs.items():
        assert ours[name].shape == expected.shape
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=TOLERANCE[case.dtype], err_msg=name)


@pytest.mark.parametrize(("op", "at_least"), [("RMSNormalization", 19), ("RotaryEmbedding", 5), ("Attention", 23)])
def test_enough_cases_apply(op: str, at_least: int) -> None:
    """As many as onnx 1.19 has; later versions have more."""
    applied = [case for case in CASES if case.op == op and case.why_not() is None]
    assert len(applied) >= at_least
