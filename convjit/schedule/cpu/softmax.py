"""Schedules of "cpu/softmax.c": rows one after the other, in units that take some microseconds."""

from __future__ import annotations

from math import prod

from convjit.kernel import Softmax
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine

UNIT = 1 << 13
"""Elements of a unit, about: 5 to 10 us."""


def schedule(kernel: Softmax, machine: Machine) -> Schedule:
    """The schedule of "cpu/softmax.c" for a kernel.

    Choices: `lanes` of a vector; `row_block` rows are work by themselves.
    """
    return Schedule("cpu/softmax.c", (("lanes", machine.lanes), ("row_block", max(1, UNIT // kernel.shape[-1]))))


def useful_threads(kernel: Softmax) -> int:
    """How many threads are worth waking."""
    return max(1, prod(kernel.shape) // UNIT)
