"""Kernel and schedule -> the text of "cpu/depthwise.c", and how it wants its weight."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from convjit.emit.cpu.packing import Packing, taps_of_phases
from convjit.emit.cpu.source import C_TYPES, Source, common_variables, name_of
from convjit.emit.render import render
from convjit.geometry import Window
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.depthwise import edges, used_lanes, windows
from convjit.schedule.nest import Nest, nest

_CACHE_LINE = 16
"""Floats."""

_CROWDED = 128
"""Floats: taps whose weights are a multiple of it apart lie in few sets of a first-level cache."""


def source(kernel: Kernel, schedule: Schedule) -> Source:
    """The C text of a convolution with few channels a group."""
    geometry, loops = kernel.geometry, nest(kernel)
    window = geometry.window
    lanes, copies = schedule.number("lanes"), bool(schedule.number("copies"))
    packed = packing(window, geometry.weight_shape, schedule)
    group_channels = geometry.in_channels // window.groups
    phase_weights = accumulate((len(taps) * group_channels * packed.block_width for taps in packed.taps), initial=0)
    patterns = list(dict.fromkeys(windows(geometry, lanes)))
    text = render(
        "cpu/depthwise.c",
        **_at_run_time(common_variables(kernel, loops), loops),
        **(dict(schedule.choices) | {"rolls": schedule.is_set("rolls")}),
        s_type="float" if copies else C_TYPES[kernel.dtype],
        s_dtype="f32" if copies else kernel.dtype,
        stride=[axes[0].stride for axes in loops.axes],
        step=[max(axis.step for axis in axes) for axes in loops.axes],
        period=[axes[0].period for axes in loops.axes],
        most_taps=loops.most_taps,
        deep=loops.outermost == 0,
        group_channels=group_channels,
        group_outputs=geometry.out_channels // window.groups,
        used_lanes=used_lanes(geometry, lanes),
        weight_width=packed.block_width,
        copy_size=loops.inputs_of_block(schedule.number("row_block"), schedule.number("column_block")),
        patterns=patterns if patterns != [tuple(range(lanes))] else [],
        pattern_of=[patterns.index(lanes_of_groups) for lanes_of_groups in windows(geometry, lanes)],
        phases=[
            {
                "first": tuple(axis.first for axis in phase),
                "offset": tuple(axis.offset for axis in phase),
                "taps": tuple(len(axis.taps) for axis in phase),
                "weights": weights,
            }
            for phase, weights in zip(loops.phases, phase_weights, strict=False)
        ],
        edges=edges(loops, schedule.number("tile_columns"), copies),
    )
    return Source(text, name_of(kernel))


def _at_run_time(variables: dict[str, Any], loops: Nest) -> dict[str, Any]:
    """The width is in the text, even where it is the outermost axis: tiles at its edges have functions of their own."""
    if loops.outermost < 2:
        return variables
    sizes = {"in_size": loops.in_size, "out_size": loops.out_size}
    return variables | sizes | {"in_extents": loops.in_size, "out_extents": loops.out_size}


def packing(window: Window, weight: tuple[int, ...], schedule: Schedule) -> Packing:
    """How "cpu/depthwise.c" reads a weight of shape (O, *kernel, C / groups): [phase][tap][channel][output]."""
    out_channels, *kernel, group_channels = weight
    taps = taps_of_phases(window, tuple(kernel))
    width = out_channels + (_CACHE_LINE if out_channels % _CROWDED == 0 else 0)
    return Packing(taps, 1, width, width, width, sum(map(len, taps)) * group_channels * width)
