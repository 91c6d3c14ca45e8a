"""Schedules of "cpu/dot.c": few output channels."""

from __future__ import annotations

from math import ceil

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.nest import Nest, nest

BLOCK_COLUMNS, BLOCK_ROWS, BLOCK_PIXELS = 48, 4, 256
"""Outputs of a row that a block has, about; its rows, at least; its outputs, about, where rows are short."""

ADDING_UP = 3
"""What it takes to add up the lanes of an output, in multiply-adds."""

FINISHING = 8
"""What it takes to finish a pixel."""


def schedule(kernel: Kernel, machine: Machine) -> Schedule | None:
    """The schedule of "cpu/dot.c" for a kernel, None where vectors of outputs are better."""
    geometry, loops = kernel.geometry, nest(kernel)
    outputs, lanes = geometry.out_channels, machine.lanes
    channels = geometry.in_channels
    runs, length = 1, channels
    for axis, phases in enumerate(loops.axes):
        taps = max(len(phase.taps) for phase in phases)
        if axis == 2 and is_merged(loops, channels, lanes):
            length *= taps
        else:
            runs *= taps
    loads = 1 / outputs + outputs / max(outputs, machine.registers - 2 - outputs)  # for each multiply-add
    along_terms = outputs * (runs * ceil(length / lanes) * (1 + loads / 2) + ADDING_UP) + FINISHING
    along_outputs = runs * length * ceil(outputs / lanes)
    return fitting(kernel, machine) if along_terms < along_outputs else None


def candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """The one there is for a kernel of few outputs, be it quick or slow."""
    few = kernel.geometry.out_channels <= machine.lanes // 2
    return [found] if few and (found := fitting(kernel, machine)) else []


def fitting(kernel: Kernel, machine: Machine) -> Schedule | None:
    """The schedule of "cpu/dot.c", None if it cannot run the kernel.

    Choices: `lanes` of a vector; `tile_columns` outputs of a row summed in registers; `row_block` x `column_block`
    outputs that are work by themselves.
    """
    loops, outputs, lanes = nest(kernel), kernel.geometry.out_channels, machine.lanes
    if kernel.geometry.window.groups > 1 or outputs > (machine.registers - 2) // 2:
        return None
    tile_columns = min(loops.least_outputs[2], (machine.registers - 2 - outputs) // outputs)
    while lanes > 4 and kernel.geometry.in_channels <= lanes // 2:
        lanes //= 2
    choices = {
        "column_block": tile_columns * max(1, BLOCK_COLUMNS // tile_columns),
        "lanes": lanes,
        "row_block": max(BLOCK_ROWS, BLOCK_PIXELS // loops.least_outputs[2]),
        "tile_columns": tile_columns,
        "tile_rows": 1,
    }
    return Schedule("cpu/dot.c", tuple(choices.items()))


def is_merged(loops: Nest, channels: int, lanes: int) -> bool:
    """Are the taps of a row one run? They lie side by side in memory, and each run ends in the same lane."""
    taps = {len(phase.taps) for phase in loops.axes[2]}
    return all(phase.step == 1 for phase in loops.axes[2]) and (len(taps) == 1 or channels % lanes == 0)
