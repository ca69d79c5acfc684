"""What a forked process makes anew. Threads are not copied into it, so a lock that one of them holds is held for ever,
and a thread pool has no threads."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from functools import cached_property as cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801  # as that one is named
        """functools.cached_property as from Python 3.12 on: without a lock, of which 3.11 has one for all objects of a
        class."""

        def __get__(self, thing: Any, owner: Any = None) -> Any:
            if thing is None:
                return self
            value = thing.__dict__[self.attrname] = self.func(thing)
            return value


class Renewed(Protocol):
    """An object with locks or threads of its own."""

    def renew(self) -> None:
        """Make them anew, in a process that has one thread."""


_everybody: WeakSet[Renewed] = WeakSet()


def renew_after_fork(thing: Renewed) -> None:
    """Have `thing.renew()` called in every child that os.fork() makes while there is this object."""
    _everybody.add(thing)


def _in_child() -> None:
    for thing in list(_everybody):
        thing.renew()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_in_child)
