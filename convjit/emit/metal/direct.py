"""A convolution by `metal/direct.metal`: any geometry; a thread sums a few channels of one pixel."""

from __future__ import annotations

from math import gcd, prod
from typing import Any

from convjit.emit.metal.dispatch import Dispatch, by_threads, padded
from convjit.emit.metal.indexing import pixel_positions, row_major, shifted
from convjit.emit.metal.variables import epilogue_variables, geometry_variables
from convjit.geometry import Geometry
from convjit.kernel import Kernel
from convjit.schedule import Schedule

MAX_CHAIN = 1024
"""The most products that are summed one after the other in fp32; longer sums are made of partial ones."""


def dispatches(kernel: Kernel, schedule: Schedule) -> tuple[Dispatch, ...]:
    """One kernel; its grid is channel blocks, pixels, images."""
    variables = _variables(kernel.any_batch(), schedule)
    return by_threads(kernel, schedule, variables, prod(kernel.geometry.out_size))


def _variables(kernel: Kernel, schedule: Schedule) -> dict[str, Any]:
    """Numbers, and the index expressions that depend on the geometry."""
    g = kernel.geometry
    groups = g.window.groups
    group_channels = g.in_channels // groups
    channels = schedule.number("channels")
    names = _axis_names(g.rank)
    axes = [axis_variables(g, i) for i in range(g.rank)]
    terms = prod(g.kernel) * group_channels
    first_channel = f" + first_channel / {g.out_channels // groups} * {group_channels}" if groups > 1 else ""
    tap = row_major([f"k_{a['name']}" if a["kernel"] > 1 else None for a in axes], g.kernel)
    return {
        **geometry_variables(kernel),
        "axes": axes,
        "out_positions": pixel_positions(g.out_size, names),
        "group_channels": group_channels,
        "channels": channels,
        "zeros": ", ".join(["0.0f"] * channels),
        "chain": min(MAX_CHAIN, group_channels) if terms > MAX_CHAIN else 0,
        "input_offset": row_major([f"in_{a['name']}" for a in axes], g.in_size, g.in_channels) + first_channel,
        "weight_offset": f"{tap} * {group_channels * g.out_channels} + first_channel" if tap else "first_channel",
        **epilogue_variables(kernel, g.out_size, [e.shape[1:-1] for e in kernel.extras]),
    }


def axis_variables(g: Geometry, i: int) -> dict[str, Any]:
    """One spatial axis: which taps meet elements of the input, where they read, and when that is outside of it.

    `start` is where the first tap reads, in elements of the dilated input, as in `Window`. With an input dilation d and
    a kernel dilation e, taps k = first, first + step, ... meet elements: the solutions of start + k e = 0 modulo d.
    """
    w = g.window
    name = _axis_names(g.rank)[i]
    spread, dilation = w.input_dilation[i], w.kernel_dilation[i]
    start = f"out_{name}" + (f" * {w.strides[i]}" if w.strides[i] > 1 else "") if g.out_size[i] > 1 else "0"
    start = shifted(start, -w.pad_lo[i])
    common = gcd(spread, dilation)
    step = spread // common
    last = (g.out_size[i] - 1) * w.strides[i] + (g.kernel[i] - 1) * dilation - w.pad_lo[i]
    tests = [
        (f"in_{name} < 0", w.pad_lo[i] > 0),
        (f"in_{name} >= {g.in_size[i]}", last >= (g.in_size[i] - 1) * spread + 1),
    ]
    outside = " || ".join(test for test, possible in tests if possible)
    reach = f"k_{name}" + (f" * {dilation}" if dilation > 1 else "")
    position = f"start_{name} + {reach}" if g.kernel[i] > 1 else f"start_{name}"
    # A multiple of d that makes -start positive, so that the remainder is one.
    above = padded(max(last, 1), spread)
    return {
        "name": name,
        "kernel": g.kernel[i],
        "start": start,
        "in_position": f"({position}) / {spread}" if spread > 1 else position,
        "met": f"start_{name} % {common} == 0" if common > 1 else "",
        "first": _first_tap(name, above, common, step, dilation) if spread > 1 else "0",
        "step": step,
        "outside": outside,
        "loop": g.kernel[i] > 1 or bool(outside) or spread > 1,
    }


def _first_tap(name: str, above: int, common: int, step: int, dilation: int) -> str:
    """The least k >= 0 with start + k * dilation = 0 modulo step * common, where there is one."""
    if step == 1:
        return "0"
    inverse = pow(dilation // common, -1, step)
    negated = f"({above} - start_{name})" + (f" / {common}" if common > 1 else "")
    return f"{negated} % {step}" + (f" * {inverse} % {step}" if inverse > 1 else "")


def _axis_names(rank: int) -> str:
    return "dhw"[3 - rank :]
