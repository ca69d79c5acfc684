"""The threads that run a pass together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from minillama.forking import renew_after_fork

log = logging.getLogger("minillama")


class Team:
    """So many threads, the caller's among them. The others are started when they are first needed."""

    def __init__(self, threads: int):
        self.threads = threads
        self._others: list[ThreadPoolExecutor] | None = None  # of one thread each
        renew_after_fork(self)

    def renew(self) -> None:
        """Forget the threads, which a forked process lacks."""
        self._others = None

    def run(self, kernel: Callable[..., None], arguments: tuple[object, ...], release: Callable[[], None]) -> None:
        """Run kernel(thread, threads, *arguments) in all threads at the same time.

        release: called if this thread is interrupted, perhaps before it was at work. The others must not wait for it
        then.
        """
        others = self._started()
        threads = 1 + len(others)
        running: list[Future[None]] = []
        try:
            for thread, other in enumerate(others, 1):
                running.append(other.submit(kernel, thread, threads, *arguments))
            kernel(0, threads, *arguments)
        except BaseException:
            release()
            raise
        finally:  # go on only when the others have written what they write
            try:
                wait(running)
            finally:
                wait(running)

    def _started(self) -> list[ThreadPoolExecutor]:
        if self._others is None:
            others: list[ThreadPoolExecutor] = []
            try:
                while len(others) < self.threads - 1:
                    other = ThreadPoolExecutor(1, thread_name_prefix="minillama")
                    other.submit(int)  # starts its thread
                    others.append(other)
            except RuntimeError as error:  # the system has a limit
                log.warning("%d of %d threads compute: %s", 1 + len(others), self.threads, error)
            self._others = others
        return self._others
