"""pytest --pyargs minillama.testing.suite, in a folder and process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minillama.testing.checks import PROPERTIES

ADAPTER = """
from minillama.testing.adapters import numpy_model

def rms_norm(x, weight, eps):
    return numpy_model.rms_norm(x, weight, 1e-6)

def rope(x, positions, theta, scaling):
    if scaling:
        raise NotImplementedError("no " + scaling["rope_type"] + " scaling")
    return numpy_model.rope(x, positions, theta, scaling)
"""
COUNTING = """
from pathlib import Path

def mlp(*arguments):
    with Path("calls").open("a") as calls:
        calls.write("1")
    return numpy_model.mlp(*arguments)
"""


def suite(folder: Path, *arguments: str) -> tuple[int, str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "minillama.testing.plugin", "-p", "no:cacheprovider", "--pyargs"]
    done = subprocess.run(
        [*command, "minillama.testing.suite", "-q", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_ours_passes_from_any_folder_and_leaves_nothing(tmp_path: Path) -> None:
    status, told = suite(tmp_path, "--impl", "minillama.testing.adapters.numpy_model")
    assert status == 0, told
    assert f"{len(PROPERTIES)} passed in" in told
    assert list(tmp_path.iterdir()) == []


def test_failures_and_skips_of_an_adapter_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ADAPTER)
    status, told = suite(tmp_path, "--impl", "mine", "-rs", "-k", "rms_norm or rope or mlp")
    assert status == 1
    assert "test_holds[rms_norm::eps]" in told
    assert told.count("these are the numbers one gets where eps is 1e-06") >= 2
    assert "Traceback" not in told
    assert "During handling" not in told
    assert re.search(r"SKIPPED \[1\] .*: not implemented: no llama3 scaling", told)
    assert re.search(r"SKIPPED \[3\] .*: there is no function mlp", told)


def test_one_property_at_a_level_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ADAPTER)
    status, told = suite(tmp_path, "--impl", "mine", "--level", "bf16", "-k", "rms_norm::exact", "-v")
    assert status == 0, told  # in bfloat16 an ordinary row does not tell 1e-5 from 1e-6
    assert "1 passed" in told


def test_no_more_cases_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ADAPTER + COUNTING)
    status, told = suite(tmp_path, "--impl", "mine", "-k", "mlp::exact", "--examples", "3")
    assert (status, (tmp_path / "calls").read_text()) == (0, "111"), told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name the module whose functions are to be tested, as in --impl mypkg.adapter"),
        (("--impl", "nowhere.adapter"), "--impl nowhere.adapter cannot be imported: ModuleNotFoundError: No module"),
        (
            ("--impl", "mypkg/adapter.py"),
            "--impl names a module, as in mypkg.adapter, and not a file: mypkg/adapter.py",
        ),
        (("--impl", "broken"), "--impl broken cannot be imported: ZeroDivisionError: division by zero"),
        (("--impl", "math"), "math has none of the functions rms_norm, rope, attention, kv_cache"),
        (("--impl", "mine", "--level", "fp8"), "level 'fp8' is unknown: use one of float32, bf16, quantized"),
        (
            ("--impl", "bare"),
            "minillama.testing needs hypothesis, which is not installed: run `pip install hypothesis pytest`",
        ),
        (("--impl", "mine", "--examples", "0"), "--examples must be 1 or more, not 0"),
        (("--impl", "sideways"), "layout 'sideways' is unknown: use one of halves, interleaved"),
    ],
)
def test_what_cannot_be_tested_is_said_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    (tmp_path / "mine.py").write_text(ADAPTER)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "bare.py").write_text("import sys\nsys.modules['hypothesis'] = None\n" + ADAPTER)
    (tmp_path / "sideways.py").write_text(ADAPTER + "layout = 'sideways'\n")
    status, said = suite(tmp_path, *arguments)
    assert status == 4
    assert said.strip().startswith(f"ERROR: {told}")
    assert len(said.strip().splitlines()) == 1


def test_without_hypothesis_one_is_told_what_to_install(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['hypothesis'] = None; from minillama.testing import check_rope"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: minillama.testing needs hypothesis, which is not installed: "
        "run `pip install hypothesis pytest`"
    )


def test_checks_need_no_pytest(tmp_path: Path) -> None:
    program = (
        "import sys; from minillama.testing import check_rms_norm; from minillama.testing.adapters import numpy_model;"
        "check_rms_norm(numpy_model.rms_norm); assert 'pytest' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
