"""Schedules of `metal/grouped.metal`: groups of too few channels for matrices, and other small sums.

A thread computes a few channels of one group for several neighbours along the last axis, so that weights and inputs
are read less often than by `metal/direct.metal`.
"""

from __future__ import annotations

from math import prod

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import Chip

THREADS = 128
_SUMS = 32
"""Outputs of a thread, at most."""
_SPAN = 32
"""Inputs of a thread's row, at most."""
_THREADS_PER_CORE = 768


def grouped(kernel: Kernel, chip: Chip) -> list[Schedule]:
    """Schedules, best first; none for transposed convolutions.

    Choices: `channels` and `columns` of a thread; `lanes` of a threadgroup along channels, `pixels` along the rest.
    """
    g = kernel.geometry
    if g.window.transposed:
        return []
    filters = g.out_channels // g.window.groups
    channels = next(n for n in (4, 3, 2, 1) if filters % n == 0)
    blocks = g.out_channels // channels
    lanes = min(32, 1 << (blocks - 1).bit_length())
    schedules: list[Schedule] = []
    for columns in (8, 4, 2):
        span = (columns - 1) * g.window.strides[-1] + (g.kernel[-1] - 1) * g.window.kernel_dilation[-1] + 1
        threads = g.batch * prod(g.out_size) // columns * blocks
        busy = threads >= chip.cores * _THREADS_PER_CORE or columns == 2
        if columns * channels <= _SUMS and span <= _SPAN and busy and columns <= g.out_size[-1]:
            choices = (("channels", channels), ("columns", columns), ("lanes", lanes), ("pixels", THREADS // lanes))
            schedules.append(Schedule("metal/grouped.metal", choices))
    return schedules
