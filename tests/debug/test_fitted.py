"""Hypotheses that are read off the data: parts, rows, positions and ids, planted in a trace of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.debug import Trace, record
from minillama.debug.comparison import Finding, compare
from minillama.debug.diagnosis import diagnose
from minillama.debug.hypotheses.rope import turned
from minillama.debug.report import table
from minillama.llama import LlamaForCausalLM
from minillama.model.ops import softmax
from minillama.model.rope_scaling import inverse_frequencies
from minillama.weights.parameters import Parameters
from tests.tiny import ROPES, random_weights, tiny_config

IDS = [1, 30, 17, 4, 12, 30, 5, 22]
CONFIG = tiny_config()
MODEL = LlamaForCausalLM(CONFIG, random_weights(CONFIG, seed=3), dtype="float32")
Edit = Callable[[Array], Array]
Q, K, EMBED, LAYER = "self_attn.q_rope", "self_attn.k_rope", "model.embed_tokens", "model.layers.1."


@pytest.fixture(scope="module")
def ours() -> Trace:
    with record(MODEL) as trace:
        out = MODEL([IDS[:6]], use_cache=True)
        for token in IDS[6:]:
            out = MODEL([[token]], past_key_values=out.past_key_values, use_cache=True)
    return trace


def diagnosed(ours: Trace, changed: dict[str, Edit]) -> list[Finding]:
    theirs = Trace({name: changed.get(name, np.array)(array) for name, array in ours.tensors.items()}, ours.input_ids)
    result = compare(ours, theirs)
    result.findings = diagnose(result, Parameters(MODEL.weights.tensors, CONFIG, np.float64), CONFIG)
    assert result.first is not None
    assert result.first.name == next(iter(changed))
    return result.findings


def zero(*where: slice | int | list[int]) -> Edit:
    def edit(x: Array) -> Array:
        x = np.array(x)
        x[(slice(None), *where)] = 0
        return x

    return edit


def late(x: Array) -> Array:
    return np.concatenate((x[..., :12], np.roll(x, 1, axis=1)[..., 12:]), axis=-1)


def stale(x: Array) -> Array:
    """Rows of probabilities in one buffer, which is not cleared between them: the last head's are left in the next."""
    left = np.concatenate((np.zeros_like(x[:, :1]), x[:, :-1]), axis=1)[:, :, -1:]
    return np.where(np.tri(*x.shape[-2:], dtype=bool), x, left)


def turned_to(*positions: int) -> Edit:
    """Undo the rotation of step 0 and do another."""
    inv_freq = inverse_frequencies(CONFIG, np.asarray(1))

    def edit(x: Array) -> Array:
        own = np.arange(len(positions))[None]
        return np.asarray(turned(x, np.array([positions]) - own, inv_freq), np.float32)

    return edit


ROWS = np.random.default_rng(1).permutation(20)  # of gate_proj
CASES: dict[str, tuple[dict[str, Edit], str]] = {
    "a head": ({LAYER + "self_attn.v_proj": zero(1)}, "head 1 of self_attn.v_proj is zero"),
    "a token": ({LAYER + "mlp.up": zero(3)}, "token 3 of mlp.up is zero"),
    "a head of a token": ({LAYER + "self_attn.q_proj": zero(2, 4)}, "token 4 of head 2 of self_attn.q_proj is zero"),
    "a tile": ({LAYER + "mlp.down": zero(slice(None), slice(12, 16))},
               "numbers 12 to 15, the last 4, of mlp.down are zero"),
    "some": ({LAYER + "mlp.down": zero(slice(None), [1, 5])}, "numbers 1, 5 of mlp.down are zero"),
    "a row of the table": ({EMBED: zero([1, 5])}, "row 30 of model.embed_tokens is zero"),
    "a stale slice": ({LAYER + "self_attn.o_proj": late},
                      "numbers 12 to 15, the last 4, of self_attn.o_proj are one token late"),
    "a part of another size": ({LAYER + "mlp.gate": lambda x: x * np.repeat([1, 3], [13, 7]).astype(np.float32)},
                               "numbers 13 to 19, the last 7, of mlp.gate are multiplied by 3"),
    "rows": ({LAYER + "mlp.gate": lambda x: x[..., ROWS]}, "rows of gate_proj are in another order"),
    "other tokens": ({EMBED: lambda x: x[:, [0, 2, 2, 4]]},
                     "the ids [[1, 17, 17, 12]] and not [[1, 30, 17, 4, 12, 30]]"),
    "keys left over": ({LAYER + "self_attn.probs": stale}, "map them with future"),
    "ids": ({EMBED: lambda x: x[:, [0, 2, 2, 3, 4, 2]]}, "id 30 finds the row of 17; 2 of 6 tokens"),
    "positions": ({LAYER + Q: turned_to(4, 5, 6, 7, 8, 9), LAYER + K: turned_to(4, 5, 6, 7, 8, 9)},
                  "rope: positions begin at 4 and not 0"),
    "positions of queries": ({LAYER + Q: turned_to(4, 5, 6, 7, 8, 9)}, "rope, of queries only: positions begin at 4"),
    "one position": ({LAYER + K: turned_to(0, 1, 2, 3, 4, 9)}, "rope, of keys only: token 5 has position 9 and not 5"),
    "dropout": ({LAYER + "mlp.act": lambda x: x * (np.random.default_rng(2).random(x.shape) > 0.2) / np.float32(0.8)},
                "dropout is on: some of mlp.act are zero, and all others multiplied by 1.25"),
    "an overflow": ({LAYER + "mlp.down": lambda x: np.where(np.abs(x) > 0.5, np.inf, x)},
                    "an overflow of all beyond 0.4"),
    "a later call": ({"step.2." + LAYER + Q: lambda x: turned_to(3)(x)}, "positions are 3 too high: 10 and not 7"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_off_the_data_is_named(name: str, ours: Trace) -> None:
    changed, cause = CASES[name]
    found = diagnosed(ours, changed)
    assert found[0].reproduced
    assert any(cause in finding.cause for finding in found), found


def test_features_of_the_embedding_are_not_taken_for_tokens(ours: Trace) -> None:
    """There may be more of them."""
    found = diagnosed(ours, {EMBED: zero(slice(None), [2, 3, 9])})
    assert found[0].cause == "numbers 2, 3, 9 of model.embed_tokens are zero"
    noisy = np.random.default_rng(3).standard_normal((1, 6, 3)).astype(np.float32)
    found = diagnosed(ours, {EMBED: lambda x: np.concatenate((x[..., :-3], x[..., -3:] + noisy), axis=-1)})
    assert not found[0].reproduced


def test_a_factor_of_one_number_explains_nothing(ours: Trace) -> None:
    found = diagnosed(ours, {LAYER + "mlp.down": lambda x: x + 3 * (np.arange(x.size) == 20).reshape(x.shape)})
    assert [finding.cause for finding in found] == ["only number 4 of token 1 of mlp.down differ"]
    assert not found[0].reproduced


@pytest.mark.parametrize("name", ["self_attn.scores", "self_attn.probs", "self_attn.context", "output"])
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_keys_that_have_no_one_tensor_stop_nothing(kind: str, name: str) -> None:
    config = tiny_config(**ROPES[kind])
    model = LlamaForCausalLM(config, random_weights(config, seed=3), dtype="float32")
    with record(model) as ours:
        model([IDS])
    theirs = replace(ours, tensors={**ours.tensors, LAYER + name: ours[LAYER + name] * np.float32(1.5)})
    result = compare(ours, theirs)
    found = diagnose(result, Parameters(model.weights.tensors, config, np.float64), config)
    assert (found[0].target, found[0].reproduced) == (LAYER + name, True)


def test_a_part_that_nothing_explains_is_told_and_no_cause(ours: Trace) -> None:
    noise = np.random.default_rng(4).standard_normal((1, 6, 16)).astype(np.float32)
    name = LAYER + "mlp.down"
    theirs = replace(ours, tensors={**ours.tensors, name: ours[name] + noise * (np.arange(16) > 11)})
    result = compare(ours, theirs)
    result.findings = diagnose(result, Parameters(MODEL.weights.tensors, CONFIG, np.float64), CONFIG)
    assert not any(finding.reproduced for finding in result.findings)
    told = table(result).splitlines()
    assert told[-len(result.findings) - 1] == "diagnosis: none of the hypotheses gives these numbers"
    assert told[-len(result.findings)] == "  only numbers 12 to 15, the last 4, of mlp.down differ"


def test_a_fault_of_a_part_is_named(ours: Trace) -> None:
    """The rest of a loop over vectors, which lacks the activation."""

    def rest(x: Array) -> Array:
        x = np.array(x)
        x[:, 5, 8:] = (ours[LAYER + "mlp.gate"] * ours[LAYER + "mlp.up"])[:, 5, 8:]
        return x

    found = diagnosed(ours, {LAYER + "mlp.act": rest})
    part = "numbers 8 to 19, the last 12, of token 5 of mlp.act, and nowhere else"
    assert [(finding.cause, finding.reproduced) for finding in found] == [(f"{part}: there is no activation", True)]


def test_a_head_that_is_not_turned_is_not_one_that_turns_slowly(ours: Trace) -> None:
    """Exponents that go on from head to head turn the second by so little that it is nearly the same."""
    edit: Edit = lambda x: np.concatenate((x[:, :1], ours[LAYER + "self_attn.k_proj"][:, 1:]), axis=1)  # noqa: E731
    found = diagnosed(ours, {LAYER + K: edit})
    assert found[0].reproduced
    assert found[0].cause.startswith("tokens 1 to 5, the last 5, of head 1 of self_attn.k_rope, and nowhere else: rope")
    assert found[0].key == "rope.missing"


def test_a_tensor_that_is_written_too_late_is_told_from_a_wrong_one(ours: Trace) -> None:
    for name, later in (("self_attn.q_proj", Q), ("residual", "output")):
        found = diagnosed(ours, {LAYER + name: lambda x, later=later: ours[LAYER + later]})  # type: ignore[misc]
        assert found[0].cause == f"what is called {name} is {later}, which is right: it is written too late"


def test_small_numbers_are_not_taken_for_other_small_ones(ours: Trace) -> None:
    """Of a softmax over a row that is much too long, say: nearer to zeros than to ours."""
    small = 1e-3 * np.random.default_rng(3).random(ours[LAYER + "self_attn.probs"].shape).astype(np.float32)
    assert not any(f.reproduced for f in diagnosed(ours, {LAYER + "self_attn.probs": lambda x: small}))


def test_a_tied_head_is_told_from_another_input_of_it() -> None:
    config = tiny_config(tie_word_embeddings=True)
    model = LlamaForCausalLM(config, random_weights(config, seed=3), dtype="float32")
    with record(model) as ours:
        model([IDS])
    rng = np.random.default_rng(6)
    head, other = random_weights(config, seed=3)["model.embed_tokens.weight"], rng.standard_normal((37, 16))
    for x, matrix, key in ((ours["model.norm"], other, "not_tied"), (rng.standard_normal((1, 8, 16)), head, "input")):
        theirs = replace(ours, tensors={**ours.tensors, "logits": np.asarray(x @ matrix.T, np.float32)})
        found = diagnose(compare(ours, theirs), Parameters(model.weights.tensors, config, np.float64), config)
        assert [finding.key for finding in found] == [f"head.{key}"]


def test_logits_of_the_last_token_are_compared_with_ours_of_it(ours: Trace) -> None:
    last = replace(ours, tensors={**ours.tensors, "logits": ours["logits"][:, -1:]})
    assert compare(ours, last).equal
    assert diagnosed(ours, {"logits": lambda x: x[:, -1:] / 4})[0].cause == "logits are multiplied by 1/sqrt(D)"


def test_keys_left_over_that_are_averaged_are_told_from_those_that_nothing_reads(ours: Trace) -> None:
    probs, context = LAYER + "self_attn.probs", LAYER + "self_attn.context"

    def averaged(_: Array) -> Array:
        values = np.repeat(ours[LAYER + "self_attn.v_proj"], 2, axis=1)
        return (stale(ours[probs]) @ values).swapaxes(1, 2).reshape(1, 6, -1)

    found = diagnosed(ours, {probs: stale, context: averaged})
    assert [finding.key for finding in found] == ["attention.left_over"]
    assert [finding.key for finding in diagnosed(ours, {probs: stale})] == ["attention.left_over_unread"]


def test_what_has_nothing_to_do_with_ours_is_not_called_nearly_zero(ours: Trace) -> None:
    noise = np.random.default_rng(7).standard_normal((1, 6, 16)).astype(np.float32)
    found = diagnosed(ours, {LAYER + "mlp.down": lambda x: noise * np.abs(x).mean()})
    assert [finding.key for finding in found] == ["weight.not_loaded"]


def masked_softmax(x: Array) -> Array:
    T, S = x.shape[-2:]
    return softmax(np.where(np.tri(T, S, S - T, dtype=bool), x, -np.inf))


def test_the_scale_of_scores_is_read_off_probabilities(ours: Trace) -> None:
    """Of any factor; one that has a name is told by it."""
    scores, root = ours[LAYER + "self_attn.scores"], np.sqrt(CONFIG.head_dim)
    for factor, said in (
        (0.6, f"scores are divided by {root / 0.6:.5g}, not by sqrt(K), which is {root:.5g}"),
        (np.log(2), "the softmax is of powers of 2"),
    ):
        edit: Edit = lambda x, factor=factor: masked_softmax(factor * scores)  # type: ignore[misc]  # noqa: E731
        first = diagnosed(ours, {LAYER + "self_attn.probs": edit})[0]
        assert (first.cause, first.reproduced) == (said, True)
