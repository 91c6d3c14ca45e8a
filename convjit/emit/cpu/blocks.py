"""What "cpu/blocks.c" needs to know: blocks of outputs, and the input that they read."""

from __future__ import annotations

from math import ceil, prod
from typing import Any, NamedTuple

from convjit.emit.cpu.source import C_TYPES, common_variables
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.direct import converts
from convjit.schedule.nest import nest
from convjit.schedule.phases import AxisPhase


def block_variables(kernel: Kernel, schedule: Schedule, group_width: int, merged: bool) -> dict[str, Any]:
    """The template variables of a kernel whose `schedule` has tiles and blocks.

    Args:
        group_width: outputs of a group in the packed weight.
        merged: are the taps of a row one run, with all their channels?
    """
    loops = nest(kernel)
    geometry = kernel.geometry
    pairs, compact = schedule.is_set("pairs"), schedule.is_set("compact")
    widens = schedule.is_set("widens")
    copies_all = compact or (converts(kernel.dtype, pairs) and not widens)
    copies = copies_all or loops.reads_outside
    copy = _copy(kernel, schedule)
    return common_variables(kernel, loops) | {
        "lanes": schedule.number("lanes"),
        "tile_rows": schedule.number("tile_rows"),
        "tile_columns": schedule.number("tile_columns"),
        "row_block": schedule.number("row_block"),
        "column_block": schedule.number("column_block"),
        "row_step": loops.in_size[2] * geometry.in_channels if loops.outermost < 2 else 0,
        "plane_step": prod(loops.in_size[1:]) * geometry.in_channels if loops.outermost < 1 else 0,
        "groups": geometry.window.groups,
        "stride": [phases[0].stride for phases in loops.axes],
        "step": [max(phase.step for phase in phases) for phases in loops.axes],
        "period": [phases[0].period for phases in loops.axes],
        "taps": [sum(len(phase.taps) for phase in phases) for phases in loops.axes],
        "phases": [_table(phases) for phases in loops.axes],
        "group_width": group_width,
        "merged": merged,
        "pairs": pairs,
        "element": C_TYPES[kernel.dtype] if pairs else "float",
        "widens": widens,
        "copies": copies,
        "copies_all": copies_all,
        "apart": copy.apart,
        "compact": compact,
        "copied_planes": loops.most_taps[0],
        "copied_rows": copy.rows,
        "copied_row": copy.row,
        "scratch_bytes": copy.bytes if copies else 0,
    }


def copied_row(elements: int) -> int:
    """From one row of a copy to the next: rows a multiple of 4 KB apart would lie in few sets of a cache."""
    return elements + (16 if elements % 1024 == 0 else 0)


def _table(phases: tuple[AxisPhase, ...]) -> list[str]:
    """The phases of an axis in C: taps, the input position of the first, the taps of all phases before."""
    before = 0
    rows: list[str] = []
    for phase in phases:
        rows.append(f"{{{len(phase.taps)}, {phase.offset}, {before}}}")
        before += len(phase.taps)
    return rows


class _Copy(NamedTuple):
    """The copy of a block's input: are the rows of each tap apart; how many rows has a plane, how many elements a row;
    bytes in all."""

    apart: bool
    rows: int
    row: int
    bytes: int


def _copy(kernel: Kernel, schedule: Schedule) -> _Copy:
    loops, geometry = nest(kernel), kernel.geometry
    copies = geometry.window.groups if schedule.is_set("compact") else 1
    planes, taps, _ = loops.most_taps
    row_block = schedule.number("row_block")
    _, high, wide = loops.inputs_of_block(row_block, schedule.number("column_block"))
    apart = taps * row_block < high
    rows = taps * row_block if apart else high
    row = copied_row(wide * geometry.in_channels // copies)
    element_bytes = 2 if schedule.is_set("pairs") else 4
    return _Copy(apart, rows, row, ceil(copies * planes * rows * row * element_bytes / 64) * 64)
