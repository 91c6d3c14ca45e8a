"""Kernel and schedule -> the text of "cpu/direct.c", and how it wants its weight."""

from __future__ import annotations

from math import ceil, prod
from typing import Any, NamedTuple

from convjit.emit.cpu.packing import Packing, taps_of_phases
from convjit.emit.cpu.source import Source, common_variables, name_of
from convjit.emit.render import render
from convjit.geometry import Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.nest import Nest, nest
from convjit.schedule.phases import AxisPhase


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of a direct convolution."""
    loops = nest(kernel)
    geometry = kernel.geometry
    groups, lanes = geometry.window.groups, schedule.number("lanes")
    packed = packing(geometry.window, geometry.weight_shape, schedule)
    parts = _parts(kernel, schedule, loops)
    copy = _copy(loops, schedule, geometry.in_channels)
    copies_all = kernel.dtype != "f32"
    shares = schedule.number("shares_sums") == 1
    block_floats = schedule.number("row_block") * schedule.number("column_block") * schedule.number("vectors") * lanes
    sums_bytes = block_floats * 4 if parts.count > 1 and not shares else 0
    variables = common_variables(kernel, loops) | {
        "out_size": [1 if axis == loops.outermost else extent for axis, extent in enumerate(loops.out_size)],
        "in_extents": _extents(loops.in_size, loops.outermost, "call->in_extent"),
        "out_extents": _extents(loops.out_size, loops.outermost, "call->out_extent"),
        "row_step": loops.in_size[2] * geometry.in_channels if loops.outermost < 2 else 0,
        "plane_step": prod(loops.in_size[1:]) * geometry.in_channels if loops.outermost < 1 else 0,
        "groups": groups,
        "stride": [phases[0].stride for phases in loops.axes],
        "step": [max(phase.step for phase in phases) for phases in loops.axes],
        "period": [phases[0].period for phases in loops.axes],
        "taps": [sum(len(phase.taps) for phase in phases) for phases in loops.axes],
        "phases": [_table(phases) for phases in loops.axes],
        **{name: value for name, value in schedule.choices if name not in ("shares_sums", "terms")},
        "group_width": packed.group_width,
        "tiles": _tiles(geometry.out_channels // groups, packed, lanes),
        "merged": _is_merged(loops, groups),
        "runs_at_once": parts.runs,
        "terms_at_once": parts.terms,
        "is_parted": parts.count > 1,
        "threads_share": shares and parts.count > 1,
        "parts": parts.count,
        "copies": copies_all or loops.reads_outside,
        "copies_all": copies_all,
        "apart": copy.apart,
        "copied_rows": copy.rows,
        "copied_row": copy.row,
        "sums_bytes": sums_bytes,
        "scratch_bytes": sums_bytes + (copy.bytes if copies_all or loops.reads_outside else 0),
    }
    return Source(render("cpu/direct.c", **variables), name_of(kernel))


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How "cpu/direct.c" reads a weight of shape (O, *kernel, C / groups)."""
    out_channels, *kernel, group_channels = weight
    taps = taps_of_phases(window, tuple(kernel))
    lanes, vectors = schedule.number("lanes"), schedule.number("vectors")
    needed = ceil(out_channels / window.groups / lanes)
    last = (needed - 1) % vectors + 1
    floats = sum(map(len, taps)) * window.groups * needed * lanes * group_channels
    return Packing(taps, window.groups, vectors * lanes, last * lanes, needed * lanes, floats)


def _extents(sizes: tuple[int, ...], outermost: int, at_run_time: str) -> list[str]:
    return [at_run_time if axis == outermost else str(size) for axis, size in enumerate(sizes)]


def _table(phases: tuple[AxisPhase, ...]) -> list[str]:
    """The phases of an axis in C: taps, the input position of the first, the taps of all phases before."""
    before = 0
    rows: list[str] = []
    for phase in phases:
        rows.append(f"{{{len(phase.taps)}, {phase.offset}, {before}}}")
        before += len(phase.taps)
    return rows


def _is_merged(loops: Nest, groups: int) -> bool:
    """Do the taps of a row lie side by side in memory?"""
    return groups == 1 and all(phase.step == 1 for phase in loops.axes[2])


class _Parts(NamedTuple):
    """In how many parts the terms of an output are summed; the runs and the terms of a run that each has."""

    count: int
    runs: int
    terms: int


def _parts(kernel: Kernel, schedule: Schedule, loops: Nest) -> _Parts:
    taps_d, taps_h, taps_w = (max(len(phase.taps) for phase in phases) for phases in loops.axes)
    length = kernel.geometry.in_channels // kernel.geometry.window.groups
    runs = taps_d * taps_h
    if _is_merged(loops, kernel.geometry.window.groups):
        length *= taps_w
    else:
        runs *= taps_w
    if runs * length == 0:
        return _Parts(1, 1, 1)
    at_once = schedule.number("terms")
    terms = ceil(length / ceil(length / at_once))
    runs_at_once = max(1, at_once // length)
    runs_at_once = ceil(runs / ceil(runs / runs_at_once))
    return _Parts(ceil(runs / runs_at_once) * ceil(length / terms), runs_at_once, terms)


class _Copy(NamedTuple):
    """The copy of a block's input: are the rows of each tap apart; how many rows has a plane, how many floats a row;
    bytes in all."""

    apart: bool
    rows: int
    row: int
    bytes: int


def _copy(loops: Nest, schedule: Schedule, channels: int) -> _Copy:
    row_block, column_block = schedule.number("row_block"), schedule.number("column_block")
    planes, taps = (max(len(phase.taps) for phase in loops.axes[axis]) for axis in (0, 1))
    high, wide = (
        (block - 1) * loops.axes[axis][0].stride + max(1, *(phase.span for phase in loops.axes[axis]))
        for axis, block in ((1, row_block), (2, column_block))
    )
    apart = taps * row_block < high
    rows = taps * row_block if apart else high
    row = wide * channels
    row += 16 if row % 1024 == 0 else 0
    return _Copy(apart, rows, row, ceil(planes * rows * row * 4 / 64) * 64)


def _tiles(group_outputs: int, packed: Packing, lanes: int) -> list[dict[str, Any]]:
    """The tile functions: one for full blocks of outputs, one for the last block of a group if that is narrower."""
    full = {"name": "tile", "vectors": packed.block_width // lanes, "lanes": lanes}
    last = {"name": "last_tile", "vectors": packed.last_width // lanes, "lanes": (group_outputs - 1) % lanes + 1}
    if group_outputs % packed.block_width == 0:
        return [full]
    return [full, last] if group_outputs > packed.block_width else [last]
