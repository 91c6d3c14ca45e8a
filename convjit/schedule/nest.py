"""A convolution as a nest of three loops, whatever its rank: the form that CPU templates are written for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

from convjit.kernel import Kernel
from convjit.schedule.phases import AxisPhase, Phase, phases_of_axes


@dataclass(frozen=True, slots=True)
class Nest:
    """Loops over depth, height and width; axes that a kernel lacks have extent 1.

    Neighbouring axes with a kernel of 1 and stride 1 are one axis, the last: a pointwise convolution is one long row.

    Attributes:
        in_size: extents of the input.
        out_size: extents of the output.
        axes: the phases of each axis.
        phases: its plain convolutions, in the order of `phases.phases` of its window.
        extras: extents of the extras along the three axes, each 1 or the output's.
        outermost: the first axis that the kernel has, 0 to 2: its extents are run-time values, as the batch is.
    """

    in_size: tuple[int, int, int]
    out_size: tuple[int, int, int]
    axes: tuple[tuple[AxisPhase, ...], ...]
    phases: tuple[Phase, ...]
    extras: tuple[tuple[int, int, int], ...]
    outermost: int

    @property
    def reads_outside(self) -> bool:
        """Does any tap of any output fall into the padding?"""
        return any(
            axis.taps and axis.outputs(out) and (axis.offset < 0 or axis.last_read(out) >= extent)
            for phase in self.phases
            for axis, extent, out in zip(phase, self.in_size, self.out_size, strict=True)
        )

    def outputs(self, phase: Phase) -> tuple[int, ...]:
        """The extents of the outputs of one phase."""
        return tuple(axis.outputs(out) for axis, out in zip(phase, self.out_size, strict=True))

    @property
    def most_taps(self) -> tuple[int, int, int]:
        """Taps along each axis, in the phase that has most of them, at least one."""
        depth, height, width = (max(1, *(len(phase.taps) for phase in phases)) for phases in self.axes)
        return depth, height, width

    def inputs_of_block(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Planes, rows and columns of the input that a block of outputs of any phase reaches over."""
        extents = zip((1, rows, columns), self.axes, strict=True)
        planes, high, wide = ((n - 1) * axes[0].stride + max(1, *(axis.span for axis in axes)) for n, axes in extents)
        return planes, high, wide

    @property
    def least_outputs(self) -> tuple[int, ...]:
        """The least extents of the outputs of a phase, of those that have outputs."""
        extents = [self.outputs(phase) for phase in self.phases]
        return tuple(map(min, zip(*(e for e in extents if prod(e)), strict=True)))


TRIVIAL = AxisPhase(first=0, period=1, taps=(0,), offset=0, stride=1, step=1)
"""Of an axis that a kernel lacks, or whose kernel is 1."""


@lru_cache(maxsize=256)
def nest(kernel: Kernel) -> Nest:
    """The loops of a kernel."""
    geometry = kernel.geometry
    phases_of = phases_of_axes(geometry.window, geometry.kernel)
    ins, outs = list(geometry.in_size), list(geometry.out_size)
    extras = [list(e.shape[1:-1]) for e in kernel.extras]
    while len(ins) > 1 and ins[-2:] == outs[-2:] and phases_of[-2:] == [[TRIVIAL]] * 2 and _uniform(extras, outs):
        for extents in (ins, outs, *extras):
            extents[-2:] = [extents[-2] * extents[-1]]
        phases_of.pop()
    outermost = 3 - len(ins)
    for extents in (ins, outs, *extras):
        extents[:0] = [1] * (3 - len(extents))
    phases_of[:0] = [[TRIVIAL]] * (3 - len(phases_of))
    axes = tuple(map(tuple, phases_of))
    return Nest(_three(ins), _three(outs), axes, tuple(product(*axes)), tuple(map(_three, extras)), outermost)


def _uniform(extras: list[list[int]], outs: list[int]) -> bool:
    """Is each extra either broadcast along both of the last two axes, or along none?"""
    return all(e[-2:] in ([1, 1], outs[-2:]) for e in extras)


def _three(extents: list[int]) -> tuple[int, int, int]:
    depth, height, width = extents
    return depth, height, width
