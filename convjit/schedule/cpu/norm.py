"""Schedules of "cpu/norm.c": pixels one after the other, in units that take some microseconds."""

from __future__ import annotations

from math import prod

from convjit.kernel import Norm
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine

UNIT = 1 << 15
"""Elements of a unit, about: 5 to 10 us."""

MOST_ROWS = 256
"""Of a unit: longer sums lose digits."""

WIDTH = 64
"""Channels whose blocks are joined at a time, at least."""


def schedule(kernel: Norm, machine: Machine) -> Schedule:
    """The schedule of "cpu/norm.c" for a kernel.

    Choices: `lanes` of a vector; `row_block` pixels are work by themselves, of which `vectors` vectors are summed at a
    time; the statistics of `width` channels are joined at a time.
    """
    channels = kernel.shape[-1]
    choices = {"lanes": machine.lanes, "row_block": min(MOST_ROWS, max(1, UNIT // channels))}
    if not kernel.is_by_row:
        group = channels if kernel.interleaved else channels // kernel.groups
        choices["vectors"] = 4 if machine.registers > 16 else 2
        choices["width"] = max(1, min(WIDTH, channels) // group) * group
    return Schedule("cpu/norm.c", tuple(choices.items()))


def useful_threads(kernel: Norm) -> int:
    """How many threads are worth waking."""
    return max(1, prod(kernel.shape) // UNIT)
