"""Kernels compiled for other CPUs: without AVX-512, four-wide products of bytes, or an instruction for float16."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from minillama.kernels.dots import DOT
from minillama.kernels.llvm import FEATURES
from minillama.layout import QUANTIZED
from tests.kernels.products import FORMS, digest

X86 = platform.machine().lower() in ("x86_64", "amd64")
only_x86 = pytest.mark.skipif(not X86, reason="names a CPU of another kind")
ROOT = Path(__file__).parents[2]


def digests_for(cpu: str, features: str, cache: Path, *forms: str) -> dict[str, str]:
    """What products.py prints on that CPU, by format."""
    env = os.environ | {
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(cache),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.kernels.products", *forms]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


# One of each kind of numbers and of scales; the others are compiled in long trials
SOME = ("f32", "bf16z", "q8_0", "q4_0", "q5_k", "q6_k")
OTHERS = tuple(form for form in FORMS if form not in SOME)


@only_x86
@pytest.mark.parametrize("forms", [SOME, pytest.param(OTHERS, marks=pytest.mark.long)], ids=["some", "others"])
def test_avx2_gives_the_same_bits(forms: tuple[str, ...], tmp_path: Path) -> None:
    assert digests_for("x86-64-v3", "+avx2,+fma,+f16c", tmp_path, *forms) == {form: digest(form) for form in forms}


AVX512 = "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma,+f16c"


@pytest.mark.skipif("avx512f" not in FEATURES, reason="needs a CPU with AVX-512")
@pytest.mark.parametrize("cpu", ["x86-64-v4", "znver4"])
def test_each_number_of_streams_gives_the_same_bits(cpu: str, tmp_path: Path) -> None:
    """AMD's CPUs read fewer than others."""
    assert digests_for(cpu, AVX512, tmp_path, *SOME) == {form: digest(form) for form in SOME}


@pytest.mark.parametrize(
    ("needed", "cpu", "features"),
    [
        ("avx512vnni", "x86-64-v4", f"{AVX512},+avx512vnni"),
        ("avxvnni", "x86-64-v3", "+avx2,+fma,+f16c,+avxvnni"),
    ],
    ids=["AVX-512", "AVX2"],
)
def test_the_product_of_bytes_gives_the_same_bits(needed: str, cpu: str, features: str, tmp_path: Path) -> None:
    """By the special instruction at both widths, those that this CPU has; by none, see above."""
    if needed not in FEATURES:
        pytest.skip(f"needs a CPU with {needed}")
    forms = [form for form in SOME if form in QUANTIZED]
    assert digests_for(cpu, features, tmp_path, *forms) == {form: digest(form) for form in forms}


@pytest.mark.skipif(DOT not in ("sdot", "usdot"), reason="names a CPU of another kind")
def test_arm_with_products_of_signed_bytes_alone_gives_the_same_bits(tmp_path: Path) -> None:
    assert digests_for("neoverse-n1", "", tmp_path, "q8_0", "q4_0") == {form: digest(form) for form in ("q8_0", "q4_0")}


def test_without_any_feature_floats_have_the_same_bits(tmp_path: Path) -> None:
    forms = ("f32", "bf16")
    assert digests_for("generic", "", tmp_path, *forms) == {form: digest(form) for form in forms}


@pytest.mark.parametrize("form", ["f16", "q8_0", "q4_k"])
def test_without_any_feature_float16_can_be_read(form: str, tmp_path: Path) -> None:
    assert digests_for("generic", "", tmp_path, form) == {form: digest(form)}
