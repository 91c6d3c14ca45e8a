"""Schedules of "cpu/pool_gradient.c": an image's windows one after the other, some channels of them."""

from __future__ import annotations

from math import ceil, prod

from convjit.kernel import PoolGradient
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine

UNIT = 1 << 14
"""Elements of windows that are worth a thread's attention."""

_VECTORS = 2
"""Of channels of a unit: lines of the cache side by side come sooner."""


def schedule(kernel: PoolGradient, machine: Machine) -> Schedule:
    """The schedule of "cpu/pool_gradient.c" for a kernel.

    Choices: `lanes` of a vector; `channel_block` channels of an image are work by themselves.
    """
    vectors = min(_VECTORS, ceil(kernel.geometry.in_channels / machine.lanes))
    return Schedule("cpu/pool_gradient.c", (("channel_block", vectors * machine.lanes), ("lanes", machine.lanes)))


def useful_threads(kernel: PoolGradient) -> int:
    """How many threads are worth waking."""
    return max(1, prod(kernel.geometry.out_shape) * prod(kernel.geometry.kernel) // UNIT)
