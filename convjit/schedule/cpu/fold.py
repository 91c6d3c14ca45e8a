"""Transposed convolutions to one output channel: the phases of the last axis as output channels of a plain one.

Outputs q * s to q * s + s - 1 of a row, where s is the stride, read the same inputs, if the kernel is a multiple of s
long and the padding lies so. In memory they are what s channels of one output would be.
"""

from __future__ import annotations

from dataclasses import replace

from convjit.geometry import Geometry
from convjit.kernel import Extra, Kernel
from convjit.schedule.nest import nest
from convjit.schedule.phases import phases_of_axes


def folded(kernel: Kernel) -> Kernel | None:
    """The plain convolution, whose results have the same elements in the same order; None if there is none.

    Output channel p has the kernel elements p, p + s, ...: the weight is read by another order, see `Packing.shape`.
    """
    geometry, window = kernel.geometry, kernel.geometry.window
    stride, extent = window.input_dilation[-1], geometry.out_size[-1]
    if geometry.out_channels > 1 or stride == 1 or window.strides[-1] > 1 or window.kernel_dilation[-1] > 1:
        return None
    first, *others = phases_of_axes(window, geometry.kernel)[-1]
    alike = all(
        p.offset == first.offset and p.taps == tuple(tap + n for tap in first.taps) for n, p in enumerate(others, 1)
    )
    if not alike or not first.taps or extent % stride:
        return None
    low = -first.offset
    high = extent // stride - geometry.in_size[-1] - low + len(first.taps) - 1
    plain = replace(
        window,
        pad_lo=(*window.pad_lo[:-1], low),
        pad_hi=(*window.pad_hi[:-1], high),
        input_dilation=(*window.input_dilation[:-1], 1),
    )
    found = replace(
        kernel,
        geometry=Geometry(
            geometry.batch,
            geometry.in_size,
            geometry.in_channels,
            stride,
            (*geometry.kernel[:-1], len(first.taps)),
            plain,
        ),
        extras=tuple(_folded_extra(extra, stride) for extra in kernel.extras),
    )
    return found if nest(found).outermost == nest(kernel).outermost else None


def _folded_extra(extra: Extra, stride: int) -> Extra:
    *outer, width, _ = extra.shape
    return extra if width == 1 else replace(extra, shape=(*outer, width // stride, stride))
