"""One launch in numbers, and what those of all templates are made of."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from convjit.kernel import DTYPES, Kernel
from convjit.schedule.nest import Nest
from convjit.schedule.phases import AxisPhase

_CONSTANT = 8
"""MLX hands arrays of fewer elements to a kernel in the address space `constant`."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one launch does, all its threads together.

    Attributes:
        bytes_read, bytes_written: of device memory, by the accesses of all threads; most reads are served by caches.
        bytes_once: bytes of all arrays, each once: what memory has to move at least.
        multiply_adds: issued, those of padding included.
        on_matrices: are they simdgroup_matrix's?
        threadgroups: that have something to do.
        threads: of a threadgroup.
    """

    bytes_read: int
    bytes_written: int
    bytes_once: int
    multiply_adds: int
    on_matrices: bool
    threadgroups: int
    threads: int


def inside(first: int, stride: int, number: int, extent: int) -> int:
    """How many of `number` positions first, first + stride, ... lie in 0 .. extent - 1."""
    low = max(0, ceil(-first / stride))
    high = min(number, (extent - 1 - first) // stride + 1)
    return max(0, high - low)


def taps_inside(phases: tuple[AxisPhase, ...], in_size: int, out_size: int) -> int:
    """Taps of all outputs of an axis that meet elements of the input."""
    return sum(
        inside(phase.offset + tap * phase.step, phase.stride, phase.outputs(out_size), in_size)
        for phase in phases
        for tap in range(len(phase.taps))
    )


def all_taps_inside(loops: Nest) -> int:
    """The same of a whole image."""
    return prod(taps_inside(*axis) for axis in zip(loops.axes, loops.in_size, loops.out_size, strict=True))


def result_bytes(kernel: Kernel) -> int:
    """Of all results."""
    return prod(kernel.geometry.out_shape) * sum(DTYPES[dtype] for dtype in kernel.result_dtypes)


def array_bytes(kernel: Kernel) -> int:
    """Of input, weight, extras and results, each once."""
    g, size = kernel.geometry, DTYPES[kernel.dtype]
    extras = sum(prod(e.shape) * DTYPES[e.dtype] for e in kernel.extras)
    return (prod(g.in_shape) + prod(g.weight_shape)) * size + extras + result_bytes(kernel)


def extra_bytes(kernel: Kernel, elements: int, by_channel: int) -> int:
    """What an epilogue reads of the extras.

    Args:
        kernel: whose epilogue.
        elements: how many are read of an extra.
        by_channel: the same, if it varies by channel only.
    """
    total = 0
    for extra in kernel.extras:
        if prod(extra.shape) < _CONSTANT:
            continue
        is_by_channel = prod(extra.shape[:-1]) == 1
        total += DTYPES[extra.dtype] * (by_channel if is_by_channel else elements)
    return total
