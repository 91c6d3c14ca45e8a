"""How to run a kernel on Metal: which template, which tile."""

from __future__ import annotations

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.direct import direct


def choose(kernel: Kernel) -> Schedule:
    """The schedule that should be the fastest."""
    return direct(kernel)
