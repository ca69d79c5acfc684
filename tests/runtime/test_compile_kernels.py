"""Of compile_kernels, which runtime/__init__.py has: the wait for the kernels is explained, if there is one."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from minillama import runtime


class Slow:
    """A model whose kernels are compiled when the wait has been explained, or at once."""

    form = "q8_0"

    def __init__(self, caplog: pytest.LogCaptureFixture, explained: bool, fails: bool = False):
        self.caplog, self.explained, self.fails = caplog, explained, fails

    def compile(self) -> None:
        while self.explained and not self.caplog.messages:
            time.sleep(0.001)
        if self.fails:
            raise ValueError("no memory for it")


def told(caplog: pytest.LogCaptureFixture, model: Any) -> list[str]:
    caplog.set_level(logging.INFO, "minillama")
    runtime.compile_kernels(model)
    return caplog.messages


def test_the_wait_for_the_kernels_is_explained(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr(runtime, "SOON", 0)
    said = "compiling the kernels for q8_0, which this machine does once: 10 to 20 seconds"
    assert told(caplog, Slow(caplog, explained=True)) == [said]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_said_where_they_are_there_already(
    fails: bool, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """Not later either: the thread that would say it ends long before."""
    monkeypatch.setattr(runtime, "SOON", 3600)
    try:
        told(caplog, Slow(caplog, explained=False, fails=fails))
    except ValueError:
        assert fails
    for timer in (thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)):
        timer.join(10)
        assert not timer.is_alive()
    assert caplog.messages == []
