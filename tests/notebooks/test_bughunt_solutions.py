"""What the solutions of the bug hunt say decides each case does (of mutants 2 and 3 the notebook asserts it itself)."""

import sys
from functools import cache as once
from typing import Any

import numpy as np

from minillama import LlamaForCausalLM, tale_model
from minillama.model.attention import grouped_context, merge_heads
from minillama.model.heads import cross_entropy
from minillama.model.norm import rms_norm
from minillama.model.ops import softmax
from minillama.model.rope import rotate
from tests.notebooks.running import COURSE

sys.path.append(str(COURSE))  # as in a notebook, whose folder is on the path

from bughunt import TEXT, TOLERANCE, error, healthy, mutant, record

IN, ATTENTION, MLP = "model.layers.0.", "model.layers.0.self_attn.", "model.layers.0.mlp."
IDS = np.array([healthy().encode(TEXT)])


@once
def run(number: int = 0) -> dict[str, np.ndarray]:
    """All intermediates of a mutant, or of the healthy model."""
    return record(mutant(number) if number else healthy(), IDS)


@once
def weights() -> Any:
    return LlamaForCausalLM.from_pretrained(tale_model()).weights


def same(x: np.ndarray, right: np.ndarray) -> bool:
    return error(x, right) < TOLERANCE


def angles(theta: float = 10_000.0, sign: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin at every position of TEXT, (1, T, K/2)."""
    turns = np.arange(IDS.shape[1])[None, :, None] * theta ** (-np.arange(0, 1, 2 / 64))
    return np.cos(turns).astype(np.float32), sign * np.sin(turns).astype(np.float32)


def test_tokenizer_loss_and_sampling() -> None:
    assert mutant(4).encode(TEXT)[:2] == [1, 1]
    assert np.isclose(mutant(5).loss(IDS), cross_entropy(run()["logits"][0], IDS[0]), rtol=1e-6, atol=0)
    assert mutant(8).decode(IDS[0]) == "".join(healthy().decode([index]) for index in IDS[0])
    z, few = run()["logits"][0, -1], np.array([2.0, -2, 1])
    assert np.allclose(mutant(13).probabilities(z, temperature=0.5), mutant(13).probabilities(z), rtol=1e-9, atol=0)
    plain, penalized = softmax(few)[1], healthy().probabilities(few, range(3), 1.3)[1]
    assert mutant(18).probabilities(few, range(3), 1.3)[1] > plain > penalized
    kept, right = (model.probabilities(z, top_p=0.9) for model in (mutant(25), healthy()))
    assert np.flatnonzero((right > 0) & (kept == 0)).tolist() == [np.where(right > 0, right, 2).argmin()]


def test_norms() -> None:
    ratio = run(9)[IN + "input_norm"] / run()[IN + "input_norm"]
    assert (ratio > 1 / 16).all()
    assert np.allclose(ratio, 1 / 16, rtol=1e-3, atol=0)
    means = [np.abs((run(number)[IN + "input_norm"] / weights().layers[0].input_norm).mean(-1)) for number in (22, 0)]
    assert means[0].max() < 1e-6 < 1e-3 < means[1].min()
    x = run()["model.embed_tokens"].astype(float)
    square = (x**2).mean(-1)

    def divisor(number: int) -> np.ndarray:
        """What the mutant divided each token by, from its own norm and the healthy one."""
        ratios = run()[IN + "input_norm"] / run(number)[IN + "input_norm"].astype(float)
        return np.median(ratios, axis=-1) * np.sqrt(square + 1e-5)

    assert np.allclose(divisor(28) ** 2 - square, 1e-6, rtol=0.02, atol=0)
    assert np.allclose(divisor(30) - np.sqrt(square), 1e-5, rtol=0.02, atol=0)
    assert same(run(14)["model.norm"], run()["model.layers.5.output"])
    old = rms_norm(run()["model.embed_tokens"], weights().layers[0].post_attention_norm, 1e-5)
    assert same(run(26)[IN + "post_attention_norm"], old)


def test_rotary() -> None:
    q, k = run()[ATTENTION + "q_proj"], run()[ATTENTION + "k_proj"]
    halves = np.concatenate((q[..., ::2], q[..., 1::2]), axis=-1)  # neighbours laid out as the healthy pairs are
    turned = np.stack(np.split(rotate(halves, *angles()), 2, axis=-1), axis=-1).reshape(q.shape)
    assert same(run(12)[ATTENTION + "q_rope"], turned)
    assert same(run(19)[ATTENTION + "q_rope"], rotate(q, *angles(500_000.0)))
    assert same(run(27)[ATTENTION + "q_rope"], rotate(q, *angles(sign=-1)))
    context = merge_heads(grouped_context(run()[ATTENTION + "probs"], rotate(run()[ATTENTION + "v_proj"], *angles())))
    assert same(run(23)[ATTENTION + "context"], context)
    assert same(np.sort(run(29)[ATTENTION + "k_proj"], axis=None), np.sort(k, axis=None))


def test_attention() -> None:
    scores = run()[ATTENTION + "scores"]
    assert same(run(1)[ATTENTION + "scores"], 8 * scores)
    assert same(run(16)[ATTENTION + "scores"], scores / 2)
    assert [same(run(21)[ATTENTION + "scores"][:, h], scores[:, h]) for h in range(4)] == [True, False, False, True]
    probs = run(7)[ATTENTION + "probs"]
    assert np.diagonal(probs, axis1=2, axis2=3).max() == 0
    assert np.allclose(probs.sum(-1)[..., 1:], 1, atol=1e-5)
    assert probs[:, :, 0].max() == 0
    assert (np.diagonal(run(17)[ATTENTION + "probs"], 1, 2, 3) > 0).all()
    assert np.triu(run(17)[ATTENTION + "probs"], 2).max() == 0
    assert np.allclose(run(24)[ATTENTION + "probs"].sum(-2), 1, atol=1e-5)
    assert same(run(15)[ATTENTION + "o_proj"], run()[ATTENTION + "context"] @ weights().layers[0].o_proj)
    assert same(run(6)[IN + "residual"], run()[ATTENTION + "o_proj"])


def test_network_and_stack() -> None:
    assert same(run(10)[MLP + "gate"], run()[MLP + "up"])
    assert same(run(10)[MLP + "up"], run()[MLP + "gate"])
    assert not [name for name in run(11) if "layers.5" in name]
    likeness = np.corrcoef(run(20)["logits"].ravel(), run()["logits"].ravel())[0, 1]
    assert abs(likeness) < 0.05  # two unrelated matrices; 80,000 numbers, of which those of a token hang together
