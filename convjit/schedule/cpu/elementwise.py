"""Schedules of "cpu/elementwise.c": rows of vectors, in units that stay in the first-level cache."""

from __future__ import annotations

from math import ceil, prod

from convjit.kernel import Elementwise
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine

UNIT = 8192
"""Elements of a unit, about: 32 kB of each operand."""

MOST_COLUMNS = 1024

LEAST_ROWS = 32
"""Of a unit: the sums of all units take a part of memory that is so many times smaller than an operand."""

ELEMENTS_PER_THREAD = 16 << 10
"""A thread that does fewer is not worth waking."""


def schedule(kernel: Elementwise, machine: Machine) -> Schedule:
    """The schedule of "cpu/elementwise.c" for a kernel.

    Choices: `lanes` of a vector; `row_block` rows, `column_block` wide, are work by themselves. What has one axis is
    one long row.
    """
    shape = kernel.any_batch().shape
    columns = UNIT if len(shape) == 1 else min(MOST_COLUMNS, ceil(shape[-1] / machine.lanes) * machine.lanes)
    rows = 1 if len(shape) == 1 else max(LEAST_ROWS, UNIT // columns)
    choices = {"column_block": columns, "lanes": machine.lanes, "row_block": rows}
    return Schedule("cpu/elementwise.c", tuple(choices.items()))


def useful_threads(kernel: Elementwise) -> int:
    """How many threads are worth waking."""
    return max(1, prod(kernel.shape) // ELEMENTS_PER_THREAD)
