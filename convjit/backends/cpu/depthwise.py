"""Kernel and schedule -> the text of "cpu/depthwise.c"."""

from __future__ import annotations

from convjit.backends.cpu.packing import int_choice
from convjit.backends.cpu.source import Source, common_variables, name_of
from convjit.emit.render import render
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu import depthwise_edges
from convjit.schedule.nest import nest


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of a depthwise convolution."""
    loops = nest(kernel)
    (axes,) = loops.phases
    channels, lanes, tile_columns, tap_chunk = (
        kernel.geometry.in_channels,
        int_choice(schedule, "lanes"),
        int_choice(schedule, "tile_columns"),
        int_choice(schedule, "taps"),
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
        row_block=int_choice(schedule, "row_block"),
        vector_block=int_choice(schedule, "vector_block"),
        tap_chunks=[(first, min(tap_chunk, taps - first)) for first in range(0, taps, tap_chunk)],
        edges=depthwise_edges(loops, tile_columns),
    )
    return Source(text, name_of(kernel), scratch_bytes=0)
