"""A convolution by `metal/grouped.metal`: a thread sums a few channels of several neighbouring outputs."""

from __future__ import annotations

from math import prod
from typing import Any

from convjit.emit.metal.direct import axis_variables
from convjit.emit.metal.dispatch import Dispatch, by_threads
from convjit.emit.metal.indexing import pixel_positions, row_major, shifted
from convjit.emit.metal.variables import epilogue_variables, geometry_variables
from convjit.geometry import Geometry
from convjit.kernel import Kernel
from convjit.schedule import Schedule


def dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel; its grid is channel blocks, rows by blocks of columns, images."""
    variables = _variables(kernel.any_batch(), schedule)
    return by_threads(kernel, schedule, variables, variables["strips"])


def _variables(kernel: Kernel, schedule: Schedule) -> dict[str, Any]:
    g, w = kernel.geometry, kernel.geometry.window
    group_channels = g.in_channels // w.groups
    channels, columns = schedule.number("channels"), schedule.number("columns")
    strips = (*g.out_size[:-1], -(-g.out_size[-1] // columns))
    axes = [axis_variables(g, i) for i in range(g.rank)]
    *outer, _ = axes
    names = "dhw"[3 - g.rank :]
    group = f" + first_channel / {g.out_channels // w.groups} * {group_channels}" if w.groups > 1 else ""
    tap = row_major([f"k_{a['name']}" if a["kernel"] > 1 else None for a in axes], g.kernel)
    return {
        **geometry_variables(kernel),
        "outer": outer,
        "kernel_width": g.kernel[-1],
        "strips": prod(strips),
        "positions": [
            ("first_w", f"({position}) * {columns}") if name == "w" else (f"out_{name}", position)
            for name, position in _positions(strips, names)
        ],
        "column": "first_w + j" if strips[-1] > 1 else "j",
        "start": _start(g, strips[-1] > 1),
        "span": (columns - 1) * w.strides[-1] + (g.kernel[-1] - 1) * w.kernel_dilation[-1] + 1,
        "stride": w.strides[-1],
        "dilation": w.kernel_dilation[-1],
        "tests": _tests(g, strips[-1] * columns),
        "ragged": g.out_size[-1] % columns != 0,
        "out_width": g.out_size[-1],
        "channels": channels,
        "columns": columns,
        "group_channels": group_channels,
        "row_offset": row_major([*(f"in_{a['name']}" for a in outer), "in_w"], g.in_size, g.in_channels) + group,
        "weight_offset": f"({tap} * {group_channels} + c) * {g.out_channels}" if tap else f"c * {g.out_channels}",
        "pixel": row_major(
            [*(f"out_{a['name']}" if n > 1 else None for a, n in zip(outer, g.out_size, strict=False)), "out_w"],
            g.out_size,
        ),
        **epilogue_variables(kernel, g.out_size, [e.shape[1:-1] for e in kernel.extras]),
    }


def _positions(strips: tuple[int, ...], names: str) -> list[tuple[str, str]]:
    return [(name, position.replace("pixel", "strip")) for name, position in pixel_positions(strips, names)]


def _start(g: Geometry, several: bool) -> str:
    """Where the first tap of the strip's first column reads."""
    w = g.window
    start = f"first_w * {w.strides[-1]}" if several and w.strides[-1] > 1 else "first_w" if several else "0"
    return shifted(start, -w.pad_lo[-1])


def _tests(g: Geometry, columns: int) -> list[str]:
    """When column j of the strip's inputs is outside: only tests that can be true."""
    w = g.window
    last = (columns - 1) * w.strides[-1] + (g.kernel[-1] - 1) * w.kernel_dilation[-1] - w.pad_lo[-1]
    tests = ["in_w + j < 0"] * (w.pad_lo[-1] > 0)
    return tests + [f"in_w + j >= {g.in_size[-1]}"] * (last >= g.in_size[-1])
