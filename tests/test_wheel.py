"""The wheel, installed by itself into a fresh environment, tells a story and hands out the course from any folder."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from minillama.notebooks import course_files

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode and "CI" not in os.environ and "NewConnectionError" in done.stdout + done.stderr:
        pytest.skip("needs a package index to build and install from")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_in_a_fresh_environment(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("minillama-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    run(python, "-m", "pip", "install", wheel, cwd=tmp_path)

    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    place = run(python, "-c", "import minillama; print(minillama.tale_model())", cwd=elsewhere)
    assert Path(place.strip()).is_relative_to(tmp_path / "env")
    story = run(python, "-m", "minillama.generate", "--temperature", "0", "--max-new-tokens", "20", cwd=elsewhere)
    assert story.startswith("Once upon a time")
    assert len(story.split()) > 12

    run(python, "-m", "minillama.trace", "--prompt", "The fox", "--out", "a.safetensors", cwd=elsewhere)
    run(python, "-m", "minillama.compare", "a.safetensors", "a.safetensors", "--html", "report.html", cwd=elsewhere)
    assert (elsewhere / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")

    run(python, "-m", "minillama.notebooks", "course", "--no-open", cwd=elsewhere)
    copied = {file.relative_to(elsewhere / "course") for file in (elsewhere / "course").rglob("*") if file.is_file()}
    assert copied == {Path(name) for name in course_files()}
