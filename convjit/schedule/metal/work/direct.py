"""The work of `metal/direct.metal`."""

from __future__ import annotations

from math import ceil, prod

from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.work.launch import Work, all_taps_inside, array_bytes, extra_bytes, result_bytes
from convjit.schedule.nest import nest


def work(kernel: Kernel, schedule: Schedule) -> tuple[Work, ...]:
    """For each tap that meets the input, a thread reads an element of it, and a weight for each of its channels."""
    g, outputs = kernel.geometry, prod(kernel.geometry.out_shape)
    channels, lanes, pixels = (schedule.number(name) for name in ("channels", "lanes", "pixels"))
    blocks = g.out_channels // channels
    terms = g.batch * blocks * all_taps_inside(nest(kernel)) * (g.in_channels // g.window.groups)
    return (
        Work(
            bytes_read=terms * (1 + channels) * DTYPES[kernel.dtype] + extra_bytes(kernel, outputs, outputs),
            bytes_written=result_bytes(kernel),
            bytes_once=array_bytes(kernel),
            multiply_adds=terms * channels,
            on_matrices=False,
            threadgroups=ceil(blocks / lanes) * ceil(prod(g.out_size) / pixels) * g.batch,
            threads=lanes * pixels,
        ),
    )
