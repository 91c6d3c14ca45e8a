"""Schedules of "cpu/pool.c": outputs one after the other, in units that take some microseconds."""

from __future__ import annotations

from math import ceil, prod

from convjit.kernel import Pool
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.cpu.tiles import equal_size

UNIT = 1 << 16
"""Elements of the windows of a unit, about: 5 to 10 us."""

_VECTORS = 4
"""Of channels at a time: a maximum waits for the one before."""


def schedule(kernel: Pool, machine: Machine) -> Schedule:
    """The schedule of "cpu/pool.c" for a kernel.

    Choices: `lanes` of a vector; `pixel_block` outputs of any image, one after the other, `channel_block` channels of
    them, are work by themselves.
    """
    channels = kernel.geometry.out_channels
    vectors = ceil(channels / machine.lanes)
    most = max(_VECTORS, UNIT // kernel.terms // machine.lanes)
    channel_block = equal_size(vectors, most) * machine.lanes
    pixel_block = max(1, UNIT // (kernel.terms * channels))
    row = kernel.geometry.out_size[-1]
    if kernel.geometry.rank > 1 and pixel_block > row:
        pixel_block -= pixel_block % row
    choices = {"channel_block": channel_block, "lanes": machine.lanes, "pixel_block": pixel_block, "vectors": _VECTORS}
    return Schedule("cpu/pool.c", tuple(choices.items()))


def useful_threads(kernel: Pool) -> int:
    """How many threads are worth waking."""
    return max(1, prod(kernel.geometry.out_shape) * kernel.terms // UNIT)
