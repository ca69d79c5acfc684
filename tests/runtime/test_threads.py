from __future__ import annotations

import logging
import threading

import pytest

from minillama.runtime.threads import Team


def work_of(team: Team) -> list[tuple[int, int]]:
    """Which threads a kernel is called for."""
    calls: list[tuple[int, int]] = []
    team.run(lambda thread, threads, to: to.append((thread, threads)), (calls,), lambda: None)
    return sorted(calls)


def test_all_threads_are_called() -> None:
    assert work_of(Team(1)) == [(0, 1)]
    team = Team(3)
    assert work_of(team) == work_of(team) == [(0, 3), (1, 3), (2, 3)]


def test_they_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=10)
    Team(3).run(lambda *_: meeting.wait(), (), lambda: None)
    assert not meeting.broken


def test_a_thread_that_fails_frees_the_others() -> None:
    freed = threading.Event()

    def kernel(thread: int, threads: int) -> None:
        if thread == 0:
            raise KeyboardInterrupt
        assert freed.wait(10)

    with pytest.raises(KeyboardInterrupt):
        Team(2).run(kernel, (), freed.set)
    assert freed.is_set()


def test_a_system_that_has_no_more_threads(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "minillama")
    started, start = [], threading.Thread.start

    def few(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    team = Team(5)
    assert work_of(team) == work_of(team) == [(0, 3), (1, 3), (2, 3)]
    assert caplog.messages == ["3 of 5 threads compute: can't start new thread"]
    team.renew()
    started.clear()
    assert len(work_of(team)) == 3
