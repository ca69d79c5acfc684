"""Other implementations' names and layouts as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.debug.mapping import SHIPPED, Rule, factor_of, in_our_layout, mapped, read_mapping
from minillama.debug.names import LAYER, place, sizes
from minillama.debug.traces import Trace
from tests.tiny import tiny_config

CONFIG = tiny_config()  # D 16, F 20, H 4, G 2, K 6, V 37
SIZES = sizes(CONFIG)
T = 5


def numbered(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_merged_axes_are_split_and_moved() -> None:
    theirs = numbered(T, 24)
    ours = in_our_layout(theirs, Rule("q", "q", "T (H K)"), "self_attn.q_proj", SIZES)
    assert ours.shape == (1, 4, T, 6)
    assert all(ours[0, h, t, k] == theirs[t, h * 6 + k] for h in range(4) for t in range(T) for k in range(6))


def test_axes_are_moved_and_merged() -> None:
    theirs = numbered(4, 6, T)
    ours = in_our_layout(theirs, Rule("c", "c", "H K T"), "self_attn.context", SIZES)
    assert all(ours[0, t, h * 6 + k] == theirs[h, k, t] for h in range(4) for t in range(T) for k in range(6))


def test_neighbours_become_halves() -> None:
    theirs = numbered(T, 2, 6)
    ours = in_our_layout(theirs, Rule("k", "k", "T G K", layout="interleaved"), "self_attn.k_rope", SIZES)
    np.testing.assert_array_equal(ours[0, :, :, 1], theirs[:, :, 2].T)
    np.testing.assert_array_equal(ours[0, :, :, 3], theirs[:, :, 1].T)


def test_a_batch_may_be_there_or_not() -> None:
    rule = Rule("x", "x")
    np.testing.assert_array_equal(in_our_layout(numbered(T, 16), rule, "output", SIZES), numbered(1, T, 16))
    np.testing.assert_array_equal(in_our_layout(numbered(3, T, 16), rule, "output", SIZES), numbered(3, T, 16))
    merged = Rule("q", "q", "T (H K)")
    assert in_our_layout(numbered(3, T, 24), merged, "self_attn.q_proj", SIZES).shape == (3, 4, T, 6)


def test_heads_side_by_side_or_one_under_the_other_need_no_rule() -> None:
    """As C has them: (T, H K) is what a product leaves, (H T, S) what is written head after head as rows."""
    plain = Rule("q", "q")
    for local, letter in (("self_attn.q_rope", "H"), ("self_attn.v_proj", "G")):
        heads = SIZES[letter]
        side = numbered(T, heads * 6)
        wanted = in_our_layout(side, Rule("q", "q", f"T ({letter} K)"), local, SIZES)
        np.testing.assert_array_equal(in_our_layout(side, plain, local, SIZES), wanted)
        np.testing.assert_array_equal(in_our_layout(side[None], plain, local, SIZES), wanted)
        rows = numbered(heads * T, 6)
        np.testing.assert_array_equal(in_our_layout(rows, plain, local, SIZES), rows.reshape(1, heads, T, 6))
        np.testing.assert_array_equal(in_our_layout(wanted[0], plain, local, SIZES), wanted)
    probs = numbered(4 * T, T)
    np.testing.assert_array_equal(in_our_layout(probs, plain, "self_attn.probs", SIZES), probs.reshape(1, 4, T, T))
    one = sizes(tiny_config(num_attention_heads=1, num_key_value_heads=1))
    assert in_our_layout(numbered(T, one["K"]), plain, "self_attn.q_rope", one).shape == (1, 1, T, one["K"])


def test_keys_that_nobody_means() -> None:
    theirs = numbered(4, T, 9) + 1
    padded = in_our_layout(theirs, Rule("p", "p", "H T S", future="padding"), "self_attn.probs", SIZES)
    np.testing.assert_array_equal(padded[0], theirs[..., :T])
    garbage = in_our_layout(theirs, Rule("p", "p", "H T S", future="garbage"), "self_attn.probs", SIZES)
    np.testing.assert_array_equal(garbage[0], np.tril(theirs[..., :T]))


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("1/sqrt(K)", 6**-0.5), ("2.5*D", 40), ("sqrt(D) / H", 1.0), ("1/K/2", 1 / 12)]
)
def test_factors(text: str, value: float) -> None:
    assert factor_of(text, SIZES) == pytest.approx(value)
    ours = in_our_layout(numbered(T, 16), Rule("x", "x", times=text), "output", SIZES)
    np.testing.assert_allclose(ours[0], numbered(T, 16) * value, rtol=1e-6)  # rounded once in float32


@pytest.mark.parametrize("text", ["", "K", "sqrt", "1/sqrt(Q)", "1 +K", "1*", "__import__('os')", "1/0x"])
def test_what_is_no_factor(text: str) -> None:
    if text == "K":
        assert factor_of(text, SIZES) == 6
    else:
        with pytest.raises(ValueError, match="times must be"):
            factor_of(text, SIZES)


@pytest.mark.parametrize("shape", [(24,), (1, 24), (1, 1, 24)])
def test_one_array_a_position_is_stacked_in_their_order(shape: tuple[int, ...]) -> None:
    tensors = {f"pos{t}.l1.q": numbered(*shape) + 100 * t for t in (10, 2, 0, 1, *range(3, 10))}
    rules = [Rule("pos{t}.l{layer}.q", "model.layers.{layer}.self_attn.q_rope", "(H K)")]
    ours = mapped(Trace(tensors), rules, CONFIG)["model.layers.1.self_attn.q_rope"]
    assert ours.shape == (1, 4, 11, 6)
    np.testing.assert_array_equal(ours[0, 0, :, 0], np.arange(11) * 100)


def test_positions_beyond_the_text_are_left_out_and_none_before_may_lack() -> None:
    rules = [Rule("pos{t}.l{layer}.x", "model.layers.{layer}.output", "D")]
    tensors = {f"pos{t}.l0.x": numbered(16) + 100 * t for t in (0, 1, 2, 4)}
    cut = mapped(Trace(tensors), rules, CONFIG, tokens=3)["model.layers.0.output"]
    np.testing.assert_array_equal(cut[0, :, 0], [0, 100, 200])
    whole = mapped(Trace(tensors, source="dump"), rules, CONFIG)
    with pytest.raises(ValueError, match=r"dump has no pos3\.l0\.x, and has that of position 4"):
        whole["model.layers.0.output"]


def test_the_names_of_later_calls_keep_what_says_so() -> None:
    rules = [Rule("h-{layer}", "model.layers.{layer}.output"), Rule("out", "logits")]
    ours = mapped(
        Trace({"step.2.h-1": numbered(1, 16), "step.1.out": numbered(1, 37), "out": numbered(T, 37)}), rules, CONFIG
    )
    assert set(ours.tensors) == {"step.2.model.layers.1.output", "logits", "step.1.logits"}
    assert ours["step.2.model.layers.1.output"].shape == (1, 1, 16)


def test_names_of_ours_stay_and_others_are_left_out() -> None:
    trace = Trace({"model.norm": numbered(T, 16), "rope.cos": numbered(3), "h.3": numbered(1, T, 16)})
    ours = mapped(trace, [Rule("h.{layer}", "model.layers.{layer}.output")], CONFIG)
    assert list(ours.tensors) == ["model.layers.3.output", "model.norm"]


def test_numbers_of_our_names_may_have_zeros_before() -> None:
    trace = Trace({"step.02.model.layers.01.output": numbered(T, 16)})
    assert set(mapped(trace, [], tiny_config()).tensors) == {"step.2.model.layers.1.output"}


@pytest.mark.parametrize(
    ("rule", "shape", "complaint"),
    [
        ({"axes": "T (H K)"}, (T, 25), "H = 4, K = 6"),
        ({"axes": "T (H K)"}, (T,), r"\(5,\) is not \(T \(H K\)\)"),
        ({"axes": "T (G K)"}, (T, 12), "are not those of self_attn.q_proj"),
        ({}, (1, 3, T, 6), "is not"),
        ({}, (4 * T + 1, 6), r"is not \(B H T K\): H = 4, T = 5; say with --map"),
    ],
)
def test_what_does_not_fit_is_said(rule: dict[str, Any], shape: tuple[int, ...], complaint: str) -> None:
    name = "model.layers.0.self_attn.q_proj"
    trace = mapped(Trace({"q": numbered(*shape)}, source="dump.npz"), [Rule("q", name, **rule)], CONFIG)
    with pytest.raises(ValueError, match=complaint) as caught:
        trace[name]
    assert "dump.npz: q cannot be model.layers.0.self_attn.q_proj" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not toml", "is not a mapping"),
        ('[[rule]]\nsource = "x"\nname = "model.layers.{layer}.query"', "not a name of docs/notation.md"),
        ('[[rule]]\nsource = "x"\nname = "logits"\nlayout = "woven"', "halves or interleaved"),
        ('[[rule]]\nsource = "x"\nname = "logits"\ntimes = "1+1"', "times must be"),
        ('[[rule]]\nsource = "x"', "name"),
        ("rule = 3", "is not a mapping"),
        ('[[rules]]\nsource = "x"\nname = "logits"', "it has rules, and not"),
        ("", "it has nothing, and not"),
    ],
)
def test_files_that_are_no_mapping(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_mapping(str(file))
    assert str(file) in str(caught.value)


def test_unknown_names_of_mappings() -> None:
    with pytest.raises(
        ValueError, match=r"llamafile is neither a mapping nor a file: .* llama.cpp, llama2c, transformers"
    ):
        read_mapping("llamafile")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_mappings_reach_all_but_what_their_programs_have_not(name: str) -> None:
    reached = {place(rule.name.replace("{layer}", "0")).local for rule in read_mapping(name)}  # type: ignore[union-attr]
    missing = {
        # what modules are called as here, and what capture() calls so
        "transformers": {"self_attn.q_rope", "self_attn.k_rope", "self_attn.scores", "self_attn.probs"}
        | {"self_attn.o_proj"},
        "llama2c": {"self_attn.q_proj", "self_attn.k_proj", "self_attn.scores"},
        "llama.cpp": set(),
    }
    assert set(LAYER) - reached == missing[name]
