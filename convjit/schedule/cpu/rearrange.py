"""Schedules of "cpu/rearrange.c": rows one after the other, in units that take some microseconds."""

from __future__ import annotations

from convjit.kernel import Rearrange
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine

UNIT = 1 << 15
"""Bytes of a unit, about: 5 us."""


def schedule(kernel: Rearrange, machine: Machine) -> Schedule:
    """The schedule of "cpu/rearrange.c" for a kernel.

    Choices: `unit` bytes of the result are work by themselves.
    """
    return Schedule("cpu/rearrange.c", (("unit", UNIT),))


def useful_threads(kernel: Rearrange) -> int:
    """How many threads are worth waking."""
    return max(1, kernel.bytes // (2 * UNIT))
