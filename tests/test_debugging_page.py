"""What docs/debugging.md shows works: its C function writes what NumPy reads, its Python runs, its rules are rules."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minillama.debug.dumps import open_dump
from minillama.debug.mapping import read_mapping
from tests.tiny import ROOT

PAGE = (ROOT / "docs" / "debugging.md").read_text(encoding="utf-8")
MAIN = """
int main(void) {
    float x[6] = {0.5f, -1, 2, 3, 4, 1e-8f};
    dump("model.layers.0.input_norm", x, 2, 3);
    dump("pos12.l3.q", x, 1, 6);
    return 0;
}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_c_function_writes_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump.c").write_text(blocks("c")[0] + MAIN)
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", "dump.out", "dump.c"], cwd=tmp_path, check=True)
    subprocess.run(["./dump.out"], cwd=tmp_path, check=True)
    dump = open_dump(tmp_path / "dump")
    wanted = np.array([0.5, -1, 2, 3, 4, 1e-8], np.float32)
    np.testing.assert_array_equal(dump["model.layers.0.input_norm"], wanted.reshape(2, 3))
    np.testing.assert_array_equal(dump["pos12.l3.q"], wanted[None])


def test_the_python_is_python_and_what_needs_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    python = blocks("python")
    assert len(python) >= 4
    for text in python:
        ast.parse(text)
        if "minillama.debug.record" in text:
            exec(text, {})
    assert [array.shape for array in open_dump(tmp_path / "probs.safetensors").tensors.values()] == [
        (1, 4, 4, 4),
        (1, 4, 1, 7),
    ]


def test_the_jax_example(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    text = next(text for text in blocks("python") if "import jax" in text)
    space: dict[str, object] = {}
    exec(text, space)
    rng = np.random.default_rng(0)
    shapes = {"input_norm": (2, 8), "gate": (2, 12, 8), "up": (2, 12, 8), "down": (2, 8, 12)}
    layers = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    ids = np.array([[1, 5, 3]])
    space["save"](tmp_path / "dump.npz", ids, rng.standard_normal((1, 3, 8)).astype(np.float32), layers)  # type: ignore[operator]
    dump = open_dump(tmp_path / "dump.npz")
    assert dump.input_ids[0].tolist() == ids.tolist()
    assert dump["model.layers.1.mlp.up"].shape == (1, 3, 12)
    assert len(dump) == 2 * 4 + 1


def test_the_rules_are_rules(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "mine.toml").write_text(text)
    assert [rule.layout for rule in read_mapping(str(tmp_path / "mine.toml"))] == ["interleaved"]


def test_every_link_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        assert (ROOT / "docs" / file).exists() if file else anchor in anchors, target
