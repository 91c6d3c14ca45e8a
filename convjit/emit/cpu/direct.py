"""Kernel and schedule -> the text of "cpu/direct.c", and how it wants its weight."""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

from convjit.emit.cpu.blocks import block_variables
from convjit.emit.cpu.packing import Packing, taps_of_phases
from convjit.emit.cpu.source import Source, name_of
from convjit.emit.render import render
from convjit.geometry import Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.fold import folded
from convjit.schedule.cpu.tiles import equal_size
from convjit.schedule.nest import Nest, nest

SHORT = 250
"""Statements of the epilogue of a tile, if it is written out."""


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of a direct convolution."""
    geometry = kernel.geometry
    packed = packing(geometry.window, geometry.weight_shape, schedule)
    if schedule.is_set("folds") and (plain := folded(kernel)):
        return _source(plain, schedule, packed, fold=geometry.window.input_dilation[-1])
    return _source(kernel, schedule, packed, fold=1)


def _source(kernel: Kernel, schedule: Schedule, packed: Packing, fold: int) -> Source:
    """`fold`: outputs of a row that are channels of one."""
    geometry, loops = kernel.geometry, nest(kernel)
    groups, lanes, vectors = geometry.window.groups, schedule.number("lanes"), schedule.number("vectors")
    pixels = schedule.number("tile_rows") * schedule.number("tile_columns")
    # the taps of a row lie side by side in memory
    merged = (groups == 1 or schedule.is_set("compact")) and all(phase.step == 1 for phase in loops.axes[2])
    step = 2 if schedule.is_set("pairs") else 1
    parts = _parts(loops, geometry.in_channels // groups, merged, schedule.number("terms"), step)
    threads_share = parts.number > 1 and schedule.number("shares_sums") == 1
    sums = schedule.number("row_block") * schedule.number("column_block") * vectors * lanes
    sums_bytes = sums * 4 if parts.number > 1 and not threads_share else 0
    variables = block_variables(kernel, schedule, packed.group_width, merged)
    if loops.outermost == 2 and fold > 1:
        variables["out_extents"][2] += f" / {fold}"
    variables |= {
        "vectors": vectors,
        "splits": schedule.number("splits"),
        "weights_first": schedule.number("weights_first"),
        "streams": loops.most_taps == (1, 1, 1),
        "is_short": len(variables["statements"]) * pixels * vectors <= SHORT,
        "tiles": _tiles(geometry.out_channels // groups, packed, lanes),
        "runs_at_once": parts.runs,
        "terms_at_once": parts.terms,
        "is_parted": parts.number > 1,
        "threads_share": threads_share,
        "parts": parts.number,
        "sums_bytes": sums_bytes,
        "scratch_bytes": sums_bytes + variables["scratch_bytes"],
    }
    return Source(render("cpu/direct.c", **variables), name_of(kernel))


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How "cpu/direct.c" reads a weight of shape (O, *kernel, C / groups)."""
    out_channels, *kernel, group_channels = weight
    taps, shape = taps_of_phases(window, tuple(kernel)), None
    if schedule.is_set("folds"):
        out_channels = window.input_dilation[-1]
        taps, shape = taps[::out_channels], (out_channels, 1, group_channels)
    lanes, vectors = schedule.number("lanes"), schedule.number("vectors")
    needed = ceil(out_channels / window.groups / lanes)
    last = (needed - 1) % vectors + 1
    pairs = schedule.is_set("pairs")
    floats = sum(map(len, taps)) * window.groups * needed * lanes * group_channels // (2 if pairs else 1)
    return Packing(taps, window.groups, vectors * lanes, last * lanes, needed * lanes, floats, shape=shape, pairs=pairs)


class _Parts(NamedTuple):
    """In how many parts the terms of an output are summed; the runs, and the terms of a run, that each has."""

    number: int
    runs: int
    terms: int


def _parts(loops: Nest, channels: int, merged: bool, at_once: int, step: int) -> _Parts:
    taps_d, taps_h, taps_w = loops.most_taps
    length = channels * taps_w if merged else channels
    runs = taps_d * taps_h if merged else taps_d * taps_h * taps_w
    terms = ceil(equal_size(length, at_once) / step) * step
    runs_at_once = equal_size(runs, max(1, at_once // length))
    return _Parts(ceil(runs / runs_at_once) * ceil(length / terms), runs_at_once, terms)


def _tiles(group_outputs: int, packed: Packing, lanes: int) -> list[dict[str, Any]]:
    """The tile functions: one for full blocks of outputs, one for the last block of a group if that is narrower."""
    full = {"name": "tile", "vectors": packed.block_width // lanes, "lanes": lanes}
    last = {"name": "last_tile", "vectors": packed.last_width // lanes, "lanes": (group_outputs - 1) % lanes + 1}
    if group_outputs % packed.block_width == 0:
        return [full]
    return [full, last] if group_outputs > packed.block_width else [last]
