"""Which engine and number format a model gets: as asked for, or as memory allows."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from minillama import engines
from minillama.engines import (
    LARGE,
    cache_format,
    check_engine,
    checked_cache_format,
    checked_format,
    choose,
    cores,
    memory_needed,
)
from minillama.llama import LlamaForCausalLM
from minillama.weights.names import EMBED_TOKENS, LM_HEAD
from tests.tiny import tiny_config


def stored(dtype: str, rows: int = LARGE // 50) -> dict[str, Any]:
    """Of a model with a table and a head of rows x 100 numbers each, nothing but what is asked for to choose."""
    return {name: SimpleNamespace(dtype=dtype, shape=(rows, 100)) for name in (EMBED_TOKENS, LM_HEAD)}


def chosen(
    engine: str, form: str, tensors: dict[str, Any], compat: str | None = None, **config: Any
) -> tuple[str, str]:
    return choose(engine, form, compat, tiny_config(**config), tensors, "here")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """So many bytes of memory are free."""

    def set_to(size: float) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(size)))

    set_to(1e15)
    return set_to


@pytest.mark.parametrize(
    ("name", "form"),
    [("auto", "auto"), (None, "auto"), ("float64", "f64"), (np.float16, "f16"), ("bfloat16", "bf16"), ("q4_0", "q4_0")],
)
def test_formats_have_two_names(name: Any, form: str) -> None:
    assert checked_format(name) == form


def test_an_unknown_format() -> None:
    known = "auto, f64, f32, f16, bf16, bf16z, q8_0, q4_0"
    with pytest.raises(ValueError, match=f"dtype must be one of {known}, not 'q5_1'"):
        checked_format("q5_1")


@pytest.mark.parametrize(
    ("engine", "form", "compat", "message"),
    [
        ("abacus", "auto", None, "engine must be one of auto, numpy, numba, not 'abacus'"),
        ("numba", "f64", None, "engine 'numba' has no float64"),
        ("numpy", "q8_0", None, "engine 'numpy' computes in f32 or f64: use engine 'numba' for q8_0"),
        ("numba", "auto", "hf5", "compat 'hf5' is a way of engine 'numpy'"),
        ("auto", "bf16", "hf4", "compat 'hf4' is a way of engine 'numpy'"),
    ],
)
def test_what_does_not_go_together(engine: str, form: str, compat: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_engine(engine, form, compat)


def test_auto_takes_numba_for_large_models_that_it_can_run(free: Any) -> None:
    large, small = stored("BF16"), stored("BF16", rows=50)
    assert chosen("auto", "auto", large) == ("numba", "bf16")
    assert chosen("auto", "f32", large) == ("numba", "f32")
    assert chosen("auto", "auto", small) == ("numpy", "f32")
    assert chosen("auto", "q8_0", small) == ("numba", "q8_0")
    assert chosen("auto", "f64", large) == ("numpy", "f64")
    assert chosen("auto", "auto", large, compat="hf5") == ("numpy", "f32")
    assert chosen("auto", "auto", large, hidden_act=np.tanh) == ("numpy", "f32")
    assert chosen("numba", "auto", small) == ("numba", "bf16")
    assert chosen("numpy", "auto", large) == ("numpy", "f32")


def test_numba_does_not_know_every_activation(free: Any) -> None:
    with pytest.raises(ValueError, match="engine 'numba' has no hidden_act <ufunc 'tanh'>, a function: use engine 'nu"):
        chosen("numba", "auto", stored("BF16"), hidden_act=np.tanh)


def test_the_smallest_format_that_is_needed(free: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tensors = stored("BF16")
    own, twelve, eight, four = (memory_needed(form, tensors) for form in ("bf16", "bf16z", "q8_0", "q4_0"))
    assert (own, twelve, eight, four) == (
        LARGE * 2 * 2,
        LARGE * 2 * 12.1 / 8,
        LARGE * 2 * 8.5 / 8,
        LARGE * 2 * 4.5 / 8,
    )  # the table is not among them
    for room, form, words in (
        (own, "bf16", "weights in bf16, 0.2 GB"),
        (
            own - 1,
            "q8_0",
            "weights in q8_0, 0.1 GB, as bf16 does not fit the memory free; bf16z would, with 0.2, and loses nothing",
        ),
        (twelve - 1, "q8_0", "weights in q8_0, 0.1 GB, as bf16 does not fit the memory free"),
        (eight - 1, "q4_0", "weights in q4_0, 0.1 GB, as bf16 does not fit the memory free"),
    ):
        free(room)
        assert chosen("numba", "auto", tensors) == ("numba", form)
        assert caplog.records[-1].getMessage() == words
        assert (caplog.records[-1].levelno > logging.INFO) == (form != "bf16")
    for room, words in (
        (twelve, r"bf16z would do with 0\.2, and loses nothing"),
        (eight, r"q8_0 would do with 0\.1"),
        (eight - 1, r"q4_0 would do with 0\.1"),
    ):
        free(room)
        with pytest.raises(MemoryError, match=rf"needs 0\.2 GB of memory in bf16 .* free: {words}$"):
            chosen("numba", "bf16", tensors)


@pytest.mark.parametrize(
    ("form", "needed"), [("auto", r"225\.0 GB of memory in q4_0"), ("bf16", r"800\.0 GB of .* bf16")]
)
def test_what_would_fit_where_nothing_does(form: str, needed: str, free: Any) -> None:
    free(45e9)
    said = (
        rf"here needs {needed} and 45\.0 GB are free: q4_0 would do with 180\.0 GB more, and a model of up to 80\.0 b"
    )
    with pytest.raises(MemoryError, match=said):
        chosen("numba", form, stored("BF16", rows=4 * 10**9))


def test_what_is_quantized_stays_so(free: Any) -> None:
    assert chosen("numba", "auto", stored("Q8_0")) == ("numba", "q8_0")


def test_there_is_a_core() -> None:
    assert cores() >= 1


def test_what_keys_and_values_are_cached_in() -> None:
    assert [cache_format("auto", form, LARGE) for form in ("f32", "bf16", "q4_0")] == ["f32", "f16", "f16"]
    assert cache_format("auto", "q8_0", LARGE - 1) == "f32"
    assert cache_format("bf16", "f32", 1) == "bf16"
    assert (checked_cache_format("bfloat16"), checked_cache_format(None)) == ("bf16", "auto")
    with pytest.raises(ValueError, match="cache_dtype must be one of auto, f32, f16, bf16, not 'q8_0'"):
        checked_cache_format("q8_0")


maybe_compiled = engines.maybe_compiled  # before tests/conftest.py has it say no


def test_kernels_that_may_have_been_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr("minillama.kernels.__file__", str(tmp_path / "__init__.py"))
    assert not maybe_compiled()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "decoder._kept.locals.forward-1.py311.nbi").touch()
    assert maybe_compiled()
    monkeypatch.setattr("minillama.kernels.__file__", str(tmp_path / "none" / "__init__.py"))  # as if not writable
    assert maybe_compiled()
    monkeypatch.setattr("minillama.kernels.__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "__pycache__" / "decoder._kept.locals.forward-1.py311.nbi").unlink()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert maybe_compiled()


def test_kernels_that_cannot_run(free: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine auto is NumPy then, and numba is refused when it is needed."""
    assert engines.kernels_trouble() is None
    assert chosen("auto", "auto", stored("BF16")) == ("numba", "bf16")
    model = LlamaForCausalLM(tiny_config(), engine="numba")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)  # as if it, or NumPy beside it, were of another version
        assert chosen("auto", "auto", stored("BF16")) == ("numpy", "f32")
        why = "Numba cannot be used here (import of numba halted; None in sys.modules), install it again"
        assert caplog.messages[-1] == f"engine numpy runs, which is slower: {why}"
        assert chosen("auto", "auto", stored("F32", rows=10)) == ("numpy", "f32")
        with pytest.raises(ValueError, match=re.escape(f"engine 'numba' cannot run: {why}, or use engine 'numpy'")):
            model([[1, 2]])
    with monkeypatch.context() as patch:
        patch.setattr("numba.core.config.DISABLE_JIT", 1)
        with pytest.raises(ValueError, match="NUMBA_DISABLE_JIT is set, unset it for engine numba, or use"):
            model.generate([[1, 2]], max_new_tokens=1)
