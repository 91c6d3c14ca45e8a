"""Any convolution as plain ones: no input dilation, no flip, taps in the order of the input.

Along an axis, output o reads position o * stride - pad + k * kernel_dilation of the dilated input, which holds an
element where it is a multiple of the input dilation d. Which taps k meet elements repeats every
d / gcd(stride, d) outputs. The outputs of one such phase are a plain convolution with few of the taps; with no
input dilation there is one phase. A kernel's phases are the products of those of its axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import gcd

from convjit.geometry import Window


@dataclass(frozen=True, slots=True)
class AxisPhase:
    """Output number q of this phase is output `first + q * period` of the axis, and its tap number t reads input
    `offset + q * stride + t * step`, where there is one.

    Attributes:
        taps: the kernel element of each tap; empty if the outputs of this phase meet only zeros.
    """

    first: int
    period: int
    taps: tuple[int, ...]
    offset: int
    stride: int
    step: int

    def outputs(self, extent: int) -> int:
        """How many of the outputs of an axis of this extent are in this phase."""
        return max(0, -((self.first - extent) // self.period))

    def last_read(self, extent: int) -> int:
        """The input position of the last tap of the last output."""
        return self.offset + (self.outputs(extent) - 1) * self.stride + (len(self.taps) - 1) * self.step

    @property
    def span(self) -> int:
        """How many input positions the taps of an output reach over."""
        return (len(self.taps) - 1) * self.step + 1 if self.taps else 0


Phase = tuple[AxisPhase, ...]


def phases_of_axes(window: Window, kernel: tuple[int, ...]) -> list[list[AxisPhase]]:
    """The phases of each spatial axis. They depend on neither extents nor channels."""
    axes = zip(kernel, window.strides, window.pad_lo, window.kernel_dilation, window.input_dilation, strict=True)
    return [_axis_phases(*axis, window.flip) for axis in axes]


def phases(window: Window, kernel: tuple[int, ...]) -> list[Phase]:
    """The phases of a kernel, each a phase of every axis; the last axis changes fastest."""
    return list(product(*phases_of_axes(window, kernel)))


def _axis_phases(
    kernel: int, stride: int, pad: int, kernel_dilation: int, input_dilation: int, flip: bool
) -> list[AxisPhase]:
    """The phases of one axis, in the order of their first outputs."""
    period = input_dilation // gcd(stride, input_dilation)
    common = gcd(kernel_dilation, input_dilation)
    every = input_dilation // common  # of the taps meets an element
    inverse = pow(kernel_dilation // common, -1, every)
    found: list[AxisPhase] = []
    for first in range(period):
        start = first * stride - pad
        met = range(-start // common * inverse % every, kernel, every) if start % common == 0 else range(0)
        found.append(
            AxisPhase(
                first,
                period,
                taps=tuple(kernel - 1 - k if flip else k for k in met),
                offset=(start + met[0] * kernel_dilation) // input_dilation if met else 0,
                stride=stride * period // input_dilation,
                step=kernel_dilation // common if len(met) > 1 else 1,
            )
        )
    return found


def kernel_elements(phase: Phase, kernel: tuple[int, ...]) -> list[int]:
    """Where the taps of a phase lie in the flattened kernel, last axis fastest."""
    elements = [0]
    for axis, extent in zip(phase, kernel, strict=True):
        elements = [e * extent + tap for e in elements for tap in axis.taps]
    return elements
