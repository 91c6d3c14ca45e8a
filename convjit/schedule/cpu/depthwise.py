"""Schedules of "cpu/depthwise.c"."""

from __future__ import annotations

from collections import Counter
from math import ceil

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.nest import Nest, nest

MAX_EDGES = 8
"""Functions of their own for the tiles at the edges of a depthwise kernel's rows."""

MAX_SPAN = 96
"""Input columns of a depthwise tile: its code is unrolled over them."""


def schedule(kernel: Kernel, machine: Machine) -> Schedule | None:
    """The schedule of "cpu/depthwise.c" for a kernel, None if it is not that kind of kernel.

    Choices: `lanes` of a vector; `tile_columns` outputs of a row summed in registers; `taps` of a row whose weights
    are in registers; `row_block` rows by `vector_block` vectors of channels done one after the other.
    """
    geometry = kernel.geometry
    loops = nest(kernel)
    if not geometry.in_channels == geometry.out_channels == geometry.window.groups or len(loops.phases) != 1:
        return None
    *_, axis = loops.phases[0]
    taps = ceil(len(axis.taps) / ceil(len(axis.taps) / 7))
    width = loops.out_size[2]
    tile_columns = ceil(width / ceil(width / min(14, machine.registers - 2 - taps)))
    if (tile_columns - 1) * axis.stride + axis.span > MAX_SPAN or len(edges(loops, tile_columns)) > MAX_EDGES:
        return None
    return Schedule(
        "cpu/depthwise.c",
        (
            ("lanes", machine.lanes),
            ("row_block", ceil(loops.out_size[1] / ceil(loops.out_size[1] / 8))),
            ("taps", taps),
            ("tile_columns", tile_columns),
            ("vector_block", 4),
        ),
    )


def candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """The one of `schedule`, if there is one."""
    found = schedule(kernel, machine)
    return [found] if found else []


def edges(loops: Nest, tile_columns: int) -> list[tuple[int, int]]:
    """The first input column of a tile that exists and the first beyond it that does not, for all tiles of a row:
    each pair once, that of the most tiles first."""
    *_, axis = loops.phases[0]
    span = (tile_columns - 1) * axis.stride + axis.span
    pairs: Counter[tuple[int, int]] = Counter()
    for first in range(0, loops.out_size[2], tile_columns):
        start = min(first, loops.out_size[2] - tile_columns) * axis.stride + axis.offset
        pairs[min(max(-start, 0), span), min(max(loops.in_size[2] - start, 0), span)] += 1
    return [pair for pair, _ in pairs.most_common()]
