"""Kernel and schedule -> the text of "cpu/dot.c", and how it wants its weight."""

from __future__ import annotations

from convjit.emit.cpu.blocks import block_variables
from convjit.emit.cpu.packing import Packing, taps_of_phases
from convjit.emit.cpu.source import Source, name_of
from convjit.emit.render import render
from convjit.geometry import Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.dot import is_merged
from convjit.schedule.nest import nest


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of a direct convolution with few output channels."""
    geometry, loops, lanes = kernel.geometry, nest(kernel), schedule.number("lanes")
    merged = is_merged(loops, geometry.in_channels, lanes)
    length = geometry.in_channels * (len(loops.axes[2][0].taps) if merged else 1)
    variables = block_variables(kernel, schedule, geometry.out_channels, merged)
    return Source(render("cpu/dot.c", **variables, last_terms=length % lanes), name_of(kernel))


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How "cpu/dot.c" reads a weight of shape (O, *kernel, C): each output by itself."""
    out_channels, *kernel, channels = weight
    taps = taps_of_phases(window, tuple(kernel))
    return Packing(taps, 1, 1, 1, out_channels, sum(map(len, taps)) * out_channels * channels)
