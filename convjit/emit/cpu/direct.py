"""Kernel and schedule -> the text of "cpu/direct.c", and how it wants its weight."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

from convjit.emit.cpu.packing import Packing, taps_of_phases
from convjit.emit.cpu.source import Source, common_variables, name_of
from convjit.emit.render import render
from convjit.geometry import Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.nest import Nest, nest

MAX_CHAIN = 4600
"""Terms in one chain of additions: beyond that, single precision loses digits that a user would miss."""


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of a direct convolution."""
    geometry = kernel.geometry
    window = geometry.window
    loops = nest(kernel)
    packed = packing(window, geometry.weight_shape, schedule)
    row_block, column_block = schedule.number("row_block"), schedule.number("column_block")
    scratch_size = _scratch_size(loops, row_block, column_block)
    copies = loops.reads_outside or kernel.dtype != "f32"
    scratch_bytes = ceil(prod(scratch_size) * geometry.in_channels * 4 / 64) * 64 if copies else 0
    longest = max(map(len, packed.taps)) * geometry.in_channels // window.groups
    text = render(
        "cpu/direct.c",
        **common_variables(kernel, loops),
        groups=window.groups,
        stride=[axis.stride for axis in loops.phases[0]],
        period=[axis.period for axis in loops.phases[0]],
        lanes=schedule.number("lanes"),
        vectors=schedule.number("vectors"),
        tile_rows=schedule.number("tile_rows"),
        tile_columns=schedule.number("tile_columns"),
        row_block=row_block,
        column_block=column_block,
        last_vectors=packed.last_width // schedule.number("lanes"),
        last_lanes=(geometry.out_channels // window.groups - 1) % schedule.number("lanes") + 1,
        tiles=_tiles(geometry.out_channels // window.groups, packed, schedule.number("lanes")),
        copies=copies,
        scratch_size=scratch_size,
        scratch_bytes=scratch_bytes,
        chain=2048 if longest > MAX_CHAIN else 0,
        phases=_phases(kernel, schedule, loops, packed, scratch_size if copies else loops.in_size, copies),
        splits=schedule.number("splits"),
        channels_first=prod(geometry.weight_shape) > prod(geometry.in_shape[1:]),
    )
    return Source(text, name_of(kernel))


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How "cpu/direct.c" reads a weight of shape (O, *kernel, C / groups)."""
    out_channels, *kernel, group_channels = weight
    taps = taps_of_phases(window, tuple(kernel))
    lanes, vectors = schedule.number("lanes"), schedule.number("vectors")
    needed = ceil(out_channels / window.groups / lanes)
    last = (needed - 1) % vectors + 1
    floats = sum(map(len, taps)) * window.groups * needed * lanes * group_channels
    return Packing(taps, window.groups, vectors * lanes, last * lanes, needed * lanes, floats)


def _scratch_size(loops: Nest, row_block: int, column_block: int) -> tuple[int, int, int]:
    """Planes, rows and columns of the input of a block of outputs, in any phase."""
    _, stride_h, stride_w = (axis.stride for axis in loops.phases[0])
    planes = max(len(phase[0].taps) for phase in loops.phases)
    high, wide = (max(phase[axis].span for phase in loops.phases) for axis in (1, 2))
    return planes, (row_block - 1) * stride_h + high, (column_block - 1) * stride_w + wide


def _tiles(group_outputs: int, packed: Packing, lanes: int) -> list[dict[str, Any]]:
    """The tile functions: one for full blocks of outputs, one for the last block of a group if that is narrower."""
    full = {"name": "tile", "vectors": packed.block_width // lanes, "lanes": lanes}
    last = {"name": "last_tile", "vectors": packed.last_width // lanes, "lanes": (group_outputs - 1) % lanes + 1}
    if group_outputs % packed.block_width == 0:
        return [full]
    return [full, last] if group_outputs > packed.block_width else [last]


def _phases(
    kernel: Kernel, schedule: Schedule, loops: Nest, packed: Packing, extents: tuple[int, int, int], copies: bool
) -> list[dict[str, Any]]:
    """The table of phases: `extents` are those of what the tiles read, the scratch memory or the input."""
    geometry = kernel.geometry
    groups, channels = geometry.window.groups, geometry.in_channels
    row_step = extents[2] * channels
    plane_step = extents[1] * row_step
    weights = 0
    table: list[dict[str, Any]] = []
    for phase, taps in zip(loops.phases, packed.taps, strict=True):
        depth, height, width = phase
        beside = width.step == 1 and groups == 1  # the taps of a row are one run
        run_columns = min(1, len(width.taps)) if beside else len(width.taps)
        offsets = [
            d * (plane_step if copies else plane_step * depth.step)
            + h * height.step * row_step
            + w * width.step * channels
            for d in range(len(depth.taps))
            for h in range(len(height.taps))
            for w in range(run_columns)
        ]
        outputs = loops.outputs(phase)
        if prod(outputs):
            table.append(
                {
                    "places": outputs[0]
                    * ceil(outputs[1] / schedule.number("row_block"))
                    * ceil(outputs[2] / schedule.number("column_block")),
                    "outputs": outputs,
                    "first": [axis.first for axis in phase],
                    "offset": [axis.offset for axis in phase],
                    "planes": len(depth.taps),
                    "plane_step": depth.step,
                    "span": [height.span, width.span],
                    "offsets": offsets,
                    "run_length": len(width.taps) * channels if beside else channels // groups,
                    "weights": weights,
                    "taps": len(taps),
                }
            )
        weights += len(taps) * groups * packed.group_width * channels // groups
    return table
