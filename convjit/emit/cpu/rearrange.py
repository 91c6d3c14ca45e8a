"""The text of "cpu/rearrange.c", and the numbers that tell it what to do: one text serves all arrays of a size."""

from __future__ import annotations

from math import ceil, prod

from convjit.emit.cpu.source import Source
from convjit.emit.render import render
from convjit.kernel import DTYPES, Rearrange
from convjit.kernel.rearrange import MOST_AXES, Part
from convjit.schedule import Schedule

_LONG_RUN = 4
"""Elements that lie side by side in both arrays: from so many on, no other axis is a better row."""


def source(kernel: Rearrange, schedule: Schedule) -> Source:
    """The C text of a rearrangement; `kernel` is one of `Rearrange.any_batch`."""
    size = DTYPES[kernel.dtype]
    name = f"rearrange_{8 * size}"
    return Source(render("cpu/rearrange.c", name=name, bits=8 * size, axes=MOST_AXES), name)


def numbers(kernel: Rearrange, schedule: Schedule) -> list[int]:
    """What the text reads first, `header` and a `part` for each of the kernel's: see the template."""
    unit, parts = max(1, schedule.number("unit") // DTYPES[kernel.dtype]), list[int]()
    units = 0
    for part in map(_by_rows, kernel.parts):
        *outer, columns = part.shape
        rows = prod(outer)
        rows_of_unit = max(1, unit // columns)
        ones = (1,) * (MOST_AXES - len(part.shape))
        parts += [units, rows, rows_of_unit, part.source, part.target]
        parts += [*ones, *part.shape, *ones, *part.source_strides, *ones, *part.target_strides]
        units += ceil(rows / rows_of_unit)
    return [units, len(kernel.parts), *parts]


def _by_rows(part: Part) -> Part:
    """The same part with the axis last that makes the best rows, the others as they are in the result."""
    part = part.collapsed()
    axes = sorted(zip(part.shape, part.source_strides, part.target_strides, strict=True), key=lambda axis: -axis[2])
    row = max(range(len(axes)), key=lambda n: (axes[n][1:] == (1, 1) and axes[n][0] >= _LONG_RUN, axes[n][0]))
    shape, sources, targets = zip(*axes[:row], *axes[row + 1 :], axes[row], strict=True)
    return Part(shape, part.source, sources, part.target, targets)
