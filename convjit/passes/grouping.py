"""Which elements of an array are reduced together, seen through reshapes and transposes.

Reshapes keep elements in their order, so an array of any shape is the same list of runs: 2x64x4x4 of which axes 1 and 3
are reduced is 2 kept, 64 reduced, 4 kept, 4 reduced, and so is 2x8x8x16 behind the reshape that made it. A transpose
puts the runs of its axes in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from math import prod
from typing import NamedTuple

from xdsl.ir import SSAValue

from convjit.ir.mlx import PrimitiveOp, is_primitive
from convjit.ir.types import shape_of
from convjit.passes.axes import inverse
from convjit.passes.moves import RESHAPES


class Run(NamedTuple):
    """Neighbours in row-major order, `extent` times as many as there are elements in the runs behind."""

    extent: int
    reduced: bool


class View(NamedTuple):
    """A shape as images, pixels, groups and channels of a group: pixels, and channels of a group, are reduced.

    `interleaved` channels of a group lie `groups` apart; others are neighbours.
    """

    images: int
    pixels: int
    groups: int
    channels: int
    interleaved: bool

    @property
    def is_by_row(self) -> bool:
        return self.pixels == self.groups == 1


class Grouping(NamedTuple):
    """What is reduced: `input`, seen as `view`; `steps` bring it into the order in which the program reduces it."""

    input: SSAValue
    steps: tuple[PrimitiveOp, ...]
    view: View


def grouping(value: SSAValue, axes: Sequence[int], *, by_row: bool) -> Grouping | None:
    """How an array can be seen of which `axes` are reduced; itself, if not what it was transposed or split from.

    Args:
        value: the array.
        axes: of it, those that are reduced.
        by_row: whether only rows of channels will do.
    """
    runs = _merged(Run(n, axis in axes) for axis, n in enumerate(shape_of(value.type)))
    found: Grouping | None = None
    steps: list[PrimitiveOp] = []
    is_transposed = False
    while True:
        shape = shape_of(value.type)
        view = _view(runs, shape)
        is_better = found is None or is_transposed or shape[-1] != shape_of(found.input.type)[-1]
        if view is not None and is_better and (view.is_by_row or not by_row):
            found, is_transposed = Grouping(value, tuple(reversed(steps)), view), False
        step = value.owner
        if is_primitive(step, "Transpose"):
            parts = _of_axes(runs, shape)
            if parts is None:
                return found
            runs = _merged(chain(*(parts[axis] for axis in inverse(step.python_arguments[0]))))
            is_transposed = True
        elif not is_primitive(step, *RESHAPES):
            return found
        steps.append(step)
        value = step.operands[0]


def _merged(runs: Iterable[Run]) -> list[Run]:
    """Neighbours that are both reduced, or both kept, as one run; without those of one element."""
    merged: list[Run] = []
    for run in runs:
        if run.extent == 1:
            continue
        before = merged.pop() if merged and merged[-1].reduced == run.reduced else Run(1, run.reduced)
        merged.append(Run(before.extent * run.extent, run.reduced))
    return merged


def _of_axes(runs: Sequence[Run], shape: tuple[int, ...]) -> list[list[Run]] | None:
    """The runs of each axis of an array of this shape; None where an axis ends within a run at no whole number."""
    rest = list(reversed(runs))
    parts: list[list[Run]] = []
    for extent in shape:
        part: list[Run] = []
        while extent > 1:
            run = rest.pop()
            if run.extent % extent and extent % run.extent:
                return None
            taken = min(run.extent, extent)
            part.append(Run(taken, run.reduced))
            if run.extent > taken:
                rest.append(Run(run.extent // taken, run.reduced))
            extent //= taken
        parts.append(part)
    return parts


def _view(runs: Sequence[Run], shape: tuple[int, ...]) -> View | None:
    parts = _of_axes(runs, shape)
    if parts is None or not shape:
        return None
    outer, last = _merged(chain(*parts[:-1])), parts[-1]
    if [run.reduced for run in outer] not in ([], [False], [True], [False, True]) or len(last) > 2:
        return None
    images, pixels = (prod(run.extent for run in outer if run.reduced == reduced) for reduced in (False, True))
    groups, channels = (prod(run.extent for run in last if run.reduced == reduced) for reduced in (False, True))
    if pixels == 1 and groups > 1:
        return None
    return View(images, pixels, groups, channels, interleaved=[run.reduced for run in last] == [True, False])
