"""What a failure says, what is skipped, and that nothing is left behind."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.testing import (
    ConformanceError,
    ConformanceWarning,
    check_attention,
    check_model,
    check_rms_norm,
    check_rope,
    check_sampler,
)
from minillama.testing.adapters import numpy_model
from minillama.testing.checks import PROPERTIES
from minillama.testing.levels import LEVELS
from minillama.testing.running import run, shown

OURS = vars(numpy_model)


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.id)
def test_the_numpy_model_has_every_property(prop: Any) -> None:
    assert run(prop, OURS, LEVELS["float32"]).skipped is None


def failure(fn: Any, check: Any = check_rms_norm, **arguments: Any) -> list[str]:
    with pytest.raises(ConformanceError) as caught:
        check(fn, **arguments)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value).splitlines()


def other_eps(x: Array, weight: Array, eps: float) -> Array:
    return numpy_model.rms_norm(x, weight, 1e-6)


def test_a_failure_names_the_property_the_case_and_the_cause() -> None:
    lines = failure(other_eps)
    assert lines[0].startswith("rms_norm::exact: every row is x / sqrt(mean(x^2) + eps) * weight")
    assert lines[1].startswith("the result[0, 0, 0] is 1.14")
    assert "times what is allowed" in lines[1]
    assert lines[-5] == "smallest case, float32:"
    assert lines[-4].startswith("  x: float32 (1, 1, 2) [[[0.62")  # as small as cases get, two numbers to a row
    assert lines[-2] == "  eps: 1e-05"
    assert lines[-1] == "these are the numbers one gets where eps is 1e-06"


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "min_p"])
def test_a_setting_that_is_left_out_is_named_though_numbers_are_rounded(name: str) -> None:
    """Ids that must have no probability at all get one then, in float32."""

    def plain(logits: Array, settings: Any, seen: list[int]) -> Array:
        p = np.exp(logits - logits.max())
        return p / p.sum()

    prop = next(prop for prop in PROPERTIES if prop.id == f"sampler::{name}")
    with pytest.raises(ConformanceError, match=f"where {name} is left out"):
        run(prop, {"sampler": plain}, LEVELS["float32"])


def test_outcomes_are_short_in_a_session() -> None:
    with pytest.warns(ConformanceWarning):
        told = repr(check_sampler(numpy_model.sampler)[-3:])
    assert told.startswith("[<sampler::frequencies is skipped: there is no function draw>, ")
    assert repr(check_rms_norm(numpy_model.rms_norm)[:1]) == "[<rms_norm::exact holds>]"


def test_it_is_the_same_failure_in_every_run(tmp_path: Path) -> None:
    program = "from minillama.testing import check_rms_norm as c\nc(lambda x, weight, eps: x * weight)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    runs = [
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    assert runs[0].returncode == runs[1].returncode == 1
    assert runs[0].stderr == runs[1].stderr
    assert "\nminillama.testing.running.ConformanceError: rms_norm::exact: " in runs[0].stderr
    assert list(tmp_path.iterdir()) == []  # no folder of hypothesis either


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (lambda x, weight, eps: None, "the result is None and must be an array of numbers"),
        (lambda x, weight, eps: ["a"], "the result is a list and must be an array of numbers"),
        (lambda x, weight, eps: x[0], "the result has the shape (1, 2) and must have (1, 1, 2)"),
        (
            lambda x, weight, eps: x.astype(int),
            "the result is an array of int64 and must be one of real",
        ),
        (lambda x, weight, eps: x + 1j, "the result is an array of complex64 and must be one of real"),
        (lambda x, weight, eps: x * np.nan, "the result[0, 0, 0] is nan and must be 1.14"),
        (lambda x, weight: x, "it raised TypeError: "),
        (lambda x, weight, eps: {}["nothing"], "it raised KeyError: 'nothing'"),
    ],
)
def test_what_is_no_answer_is_said_in_a_line(fn: Any, told: str) -> None:
    lines = failure(fn)
    assert lines[1].startswith(told)
    assert len(lines) < 10


def test_an_exception_is_said_with_its_place() -> None:
    def inner(x: Array) -> Array:
        raise RuntimeError("out of registers")

    def norm(x: Array, weight: Array, eps: float) -> Array:
        return inner(x)

    assert failure(norm)[2].startswith("in inner, test_running.py:")


def test_float64_float16_and_lists_are_numbers_too() -> None:
    check_rms_norm(lambda x, weight, eps: numpy_model.rms_norm(x.astype(np.float64), weight, eps))
    check_rms_norm(lambda x, weight, eps: numpy_model.rms_norm(x, weight, eps).tolist())
    assert "times what is allowed" in failure(lambda *a: numpy_model.rms_norm(*a).astype(np.float16))[1]


def test_arguments_may_be_overwritten() -> None:
    def in_place(x: Array, weight: Array, eps: float) -> Array:
        x /= np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps))
        x *= weight
        weight[:] = np.nan
        return x

    assert [outcome.skipped for outcome in check_rms_norm(in_place)] == [None] * 6


def test_what_is_not_implemented_is_skipped_aloud_and_the_rest_tried() -> None:
    def plain(x: Array, positions: Array, theta: float, scaling: Any) -> Array:
        if scaling:
            raise NotImplementedError("no scaling")
        return numpy_model.rope(x, positions, theta, scaling)

    with pytest.warns(ConformanceWarning, match=r"rope::\w+ is skipped: not implemented: no scaling") as warned:
        outcomes = check_rope(plain)
    assert {o.property.name for o in outcomes if o.skipped} == {"linear", "llama3", "yarn"}
    assert len(warned) == 3


def test_what_is_implemented_in_part_is_tried_where_it_is() -> None:
    def one_row(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
        if len(q) > 1 or mask is not None or q.shape[1] != k.shape[1]:
            raise NotImplementedError("one row, all heads alike")
        return numpy_model.attention(q, k, v, mask) * np.float32(1.001)

    assert failure(one_row, check_attention)[0].startswith("attention::exact: ")


def test_the_cause_must_explain_all_failures() -> None:
    def twice(x: Array, weight: Array, eps: float) -> Array:
        """Right for two numbers a row, with another eps for three, and without a weight for more."""
        if x.shape[-1] == 2:
            return numpy_model.rms_norm(x, weight, eps)
        return other_eps(x, weight if x.shape[-1] == 3 else np.ones_like(weight), eps)

    lines = failure(twice)
    assert any("(1, 1, 3)" in line for line in lines)
    assert not lines[-1].startswith("these are")


def test_a_layout_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match="layout 'pairs' is unknown: use one of halves, interleaved"):
        check_rope(numpy_model.rope, layout="pairs")


def test_the_other_layout_passes_as_itself_and_is_named_as_a_cause() -> None:
    def interleaved(x: Array, positions: Array, theta: float, scaling: Any) -> Array:
        halves = numpy_model.rope(np.concatenate((x[..., ::2], x[..., 1::2]), axis=-1), positions, theta, scaling)
        return np.stack(np.split(halves, 2, axis=-1), axis=-1).reshape(x.shape)

    check_rope(interleaved, layout="interleaved")
    assert failure(interleaved, check_rope)[-1].endswith("where the rotary layout is interleaved")


def test_a_model_case_shows_what_is_not_usual() -> None:
    class Deaf(numpy_model.Model):
        def __call__(self, ids: Array, mask: Array | None = None) -> Array:
            return super().__call__(ids)

    lines = failure(Deaf, check_model)
    assert lines[0].startswith("model::padding: ")
    assert lines[-1] == "these are the numbers one gets where the mask is left out"
    assert any(line.startswith("  config: vocab_size=5, hidden_size=4") for line in lines)
    assert "  weights: 12 arrays" in lines


def test_how_cases_are_shown() -> None:
    assert shown(np.float32([[0.1, -2]])) == "float32 (1, 2) [[0.1, -2.0]]"
    assert shown(np.zeros((3, 3))) == "float64 (3, 3)"
    assert shown(LlamaConfig(vocab_size=7)) == "vocab_size=7"
    assert shown(None) == "None"
