"""Kernel and schedule -> the text of "cpu/depthwise.c"."""

from __future__ import annotations

from convjit.emit.cpu.packing import Packing, taps_of_phases
from convjit.emit.cpu.source import Source, common_variables, name_of
from convjit.emit.render import render
from convjit.geometry import Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.depthwise import edges
from convjit.schedule.nest import nest


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of a depthwise convolution."""
    loops = nest(kernel)
    (axes,) = loops.phases
    channels, lanes, tile_columns, tap_chunk = (
        kernel.geometry.in_channels,
        schedule.number("lanes"),
        schedule.number("tile_columns"),
        schedule.number("taps"),
    )
    taps = len(axes[2].taps)
    text = render(
        "cpu/depthwise.c",
        **common_variables(kernel, loops),
        kernel=[len(axis.taps) for axis in axes],
        stride=[axis.stride for axis in axes],
        step=[axis.step for axis in axes],
        offset=[axis.offset for axis in axes],
        lanes=lanes,
        used_lanes=min(lanes, channels),
        tile_columns=tile_columns,
        row_block=schedule.number("row_block"),
        vector_block=schedule.number("vector_block"),
        tap_chunks=[(first, min(tap_chunk, taps - first)) for first in range(0, taps, tap_chunk)],
        edges=edges(loops, tile_columns),
    )
    return Source(text, name_of(kernel))


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How "cpu/depthwise.c" reads a weight of shape (O, *kernel, 1)."""
    out_channels, *kernel, _ = weight
    taps = taps_of_phases(window, tuple(kernel))
    return Packing(taps, 1, out_channels, out_channels, out_channels, sum(map(len, taps)) * out_channels)
