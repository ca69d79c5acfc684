"""Which instructions bytes are multiplied by. That all give the same integers is in test_blocks.py and
test_other_cpus.py; here the forms for ARM are compiled wherever the tests run."""

from __future__ import annotations

import re

import pytest
from llvmlite import binding, ir

from minillama.kernels import dots
from minillama.kernels.llvm import BYTES, INTS

USDOT = "usdot" if binding.llvm_version_info >= (20,) else "sdot"  # LLVM 15 does not come upon it by itself
CPUS = {"generic": "addlp", "cortex-a72": "addlp", "neoverse-n1": "sdot", "apple-m1": "sdot", "neoverse-v1": USDOT}


@pytest.fixture(scope="module", autouse=True)
def compiler_for_arm() -> None:
    binding.initialize_all_targets()
    try:
        binding.Target.from_triple("aarch64")
    except RuntimeError:
        pytest.skip("this LLVM compiles for no ARM")


def instructions(cpu: str, small: bool) -> list[str]:
    """The names of those that a product of 64 bytes becomes."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(INTS, [INTS, BYTES, BYTES]), "product")
    b = ir.IRBuilder(function.append_basic_block())
    b.ret(dots.dot(b, *function.args, small=small))
    machine = binding.Target.from_triple("aarch64").create_target_machine(cpu=cpu)
    return re.findall(r"^\t(\w+)", machine.emit_assembly(binding.parse_assembly(str(module))), re.MULTILINE)


@pytest.mark.parametrize("cpu", CPUS)
def test_the_product_of_an_arm_cpu_is_found_by_its_name(cpu: str) -> None:
    assert dots.arm_dot(cpu, "") == CPUS[cpu]


@pytest.mark.parametrize(("features", "found"), [("+dotprod", "sdot"), ("+dotprod,+i8mm", USDOT), ("+neon", "addlp")])
def test_features_that_are_named_count(features: str, found: str) -> None:
    assert dots.arm_dot("generic", features) == found


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("small", [False, True])
def test_products_for_arm_are_a_few_instructions(cpu: str, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dots, "DOT", CPUS[cpu])
    monkeypatch.setattr(dots, "DOT_BITS", 128)
    names = instructions(cpu, small)
    assert "bl" not in names  # no call of a function
    assert names.count({"addlp": "addp"}.get(CPUS[cpu], CPUS[cpu])) == (8 if CPUS[cpu] == "sdot" and not small else 4)
    assert len(names) < 70  # and none of those for single bytes
