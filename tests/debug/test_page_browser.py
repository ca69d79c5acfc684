"""The page of compare in a browser, where there is one: its script is let run, and filters, chooses and opens."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from minillama.debug.page import render
from tests.debug.markup import Page
from tests.debug.test_page import PROBS, planted

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for found in map(shutil.which, BROWSERS) if found), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

# Uses the page as a reader would, and leaves what it saw in an element
CLICKS = """
const seen = {};
const shown = () => rows.filter((row) => !row.hidden).map((row) => row.dataset.name);
const opened = () => layers.filter((layer) => layer.open && !layer.hidden).map((layer) => layers.indexOf(layer));
const heads = () => [...document.querySelectorAll("[data-head]")].filter((each) => !each.hidden)
  .map((each) => each.dataset.head);
window.onerror = (message) => { seen.error = message; };
seen.start = [shown().length, opened(), heads()];
only.click();
seen.only = [shown(), count.textContent];
only.click();
text.value = " Q_Rope";
text.dispatchEvent(new Event("input"));
seen.text = shown();
head.value = "1";
head.dispatchEvent(new Event("change"));
seen.head = heads();
document.querySelector(".chart a[href='#row-36']").dispatchEvent(new MouseEvent("click", { bubbles: true }));
setTimeout(() => {
  seen.point = [text.value, shown().length, rows[36].closest("details").open, location.hash];
  document.querySelector("button[data-open=no]").click();
  seen.closed = opened();
  show("#row-0"); // where a browser opens nothing by itself
  seen.reopened = opened();
  const told = document.createElement("pre");
  told.textContent = JSON.stringify(seen);
  document.body.append(told);
}, 100);
"""


def opened(file: Path, profile: Path) -> Page:
    """What a browser makes of a page."""
    command = [BROWSER, "--headless", "--disable-gpu", f"--user-data-dir={profile}", "--virtual-time-budget=3000"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # root has none
    done = subprocess.run([*command, "--dump-dom", file.as_uri()], capture_output=True, timeout=120, check=True)
    text = done.stdout.decode()
    return Page(text.replace("<!DOCTYPE html>", "<!doctype html>\n", 1))


def test_the_policy_lets_the_script_run(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(render(planted(), "0.0"), encoding="utf-8")
    found = opened(tmp_path / "page.html", tmp_path / "profile")
    assert [each.attributes.get("hidden", "no") for each in found.find("p", "controls")] == ["no"]
    heads = [each for each in found.find("div") if "data-head" in each.attributes]
    assert ["hidden" in each.attributes for each in heads] == [True, True, False, True]


def test_what_a_reader_clicks(tmp_path: Path) -> None:
    text = re.sub(r"<meta http-equiv.*>\n", "", render(planted(), "0.0"))  # which would not let the clicks run
    text = text.replace("</body>", f"<script>{CLICKS}</script>\n</body>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    (told,) = opened(tmp_path / "page.html", tmp_path / "profile").find("pre")
    assert json.loads(told.text) == {
        "start": [37, [1], ["2"]],
        "only": [[PROBS, "model.layers.1.mlp.up"], "2 of 37"],
        "text": ["model.layers.0.self_attn.q_rope", "model.layers.1.self_attn.q_rope"],
        "head": ["1"],
        "point": ["", 37, True, "#row-36"],
        "closed": [],
        "reopened": [0],
    }
