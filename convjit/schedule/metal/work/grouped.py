"""The work of `metal/grouped.metal`."""

from __future__ import annotations

from math import ceil, prod

from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.work.launch import Work, array_bytes, extra_bytes, inside, result_bytes, taps_inside
from convjit.schedule.phases import phases_of_axes


def work(kernel: Kernel, schedule: Schedule) -> tuple[Work, ...]:
    """For each row of the kernel that meets the input and each channel, a thread reads a row of inputs, and weights."""
    g, w, outputs = kernel.geometry, kernel.geometry.window, prod(kernel.geometry.out_shape)
    channels, columns, lanes, pixels = (schedule.number(n) for n in ("channels", "columns", "lanes", "pixels"))
    blocks, strips = g.out_channels // channels, ceil(g.out_size[-1] / columns)
    axes = zip(phases_of_axes(w, g.kernel), g.in_size, g.out_size, strict=True)
    rows = prod([taps_inside(tuple(phases), *sizes) for phases, *sizes in axes][:-1])
    rows *= g.batch * blocks * (g.in_channels // w.groups)
    span = (columns - 1) * w.strides[-1] + (g.kernel[-1] - 1) * w.kernel_dilation[-1] + 1
    firsts = (strip * columns * w.strides[-1] - w.pad_lo[-1] for strip in range(strips))
    values = sum(inside(first, 1, span, g.in_size[-1]) for first in firsts)
    weights = strips * g.kernel[-1] * channels
    return (
        Work(
            bytes_read=rows * (values + weights) * DTYPES[kernel.dtype] + extra_bytes(kernel, outputs, outputs),
            bytes_written=result_bytes(kernel),
            bytes_once=array_bytes(kernel),
            multiply_adds=rows * weights * columns,
            on_matrices=False,
            threadgroups=ceil(blocks / lanes) * ceil(prod(g.out_size[:-1]) * strips / pixels) * g.batch,
            threads=lanes * pixels,
        ),
    )
