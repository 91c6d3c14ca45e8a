"""What a kernel proves itself on: itself for less work.

Apart from `check`, which knows the rest about each kind of kernel: verdicts are looked up by these shapes, in processes
that need no NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil, gcd, prod
from typing import Any

from convjit.kernel import (
    DTYPES,
    AnyKernel,
    Elementwise,
    Kernel,
    Norm,
    Part,
    Pool,
    PoolGradient,
    Rearrange,
    Softmax,
)
from convjit.schedule import Schedule

_BLOCK_OF_PIXELS = ("row_block", "column_block", "segments", "pixels", "chains")
"""Choices whose product, of those that a schedule has, is the pixels that show how a weight gradient takes them."""


def for_proof(kernel: AnyKernel, schedule: Schedule) -> AnyKernel:
    """The same kernel for as few images or rows as show every way it treats them."""
    return _OF_KIND[type(kernel)](kernel, schedule)


def _of_few_images(kernel: Kernel, schedule: Schedule) -> Kernel:
    """The same convolution for a full tile of images and one more; where they are summed, two blocks a part."""
    choices = dict(schedule.choices)
    tile = int(choices.get("images", 1))
    if kernel.operation == "weight_gradient":
        pixels = prod(int(choices.get(name, 1)) for name in _BLOCK_OF_PIXELS)
        tile = ceil(2 * schedule.number("parts") * pixels / prod(kernel.geometry.out_size))
    batch = min(kernel.geometry.batch, tile + 1)
    extras = tuple(replace(e, shape=(min(e.shape[0], batch), *e.shape[1:])) for e in kernel.extras)
    return replace(kernel, geometry=replace(kernel.geometry, batch=batch), extras=extras)


def _of_few_rows(kernel: Elementwise, schedule: Schedule) -> Elementwise:
    """The same kernel, collapsed, for two units and a remainder as it has it: all ways in which it treats elements.

    Where so many threads share the sums of units, for one unit more than there are of them.
    """
    same = kernel.collapsed()
    if len(same.shape) == 1:
        unit, inner = schedule.number("column_block"), 1
    else:
        unit, inner = schedule.number("row_block"), prod(same.shape[1:-1])
    period = unit // gcd(unit, inner)
    units = 1 + int(dict(schedule.choices).get("parts", 1))
    extent = period * ceil(units * unit / (inner * period)) + same.shape[0] % period
    extent = min(same.shape[0], max(2, extent))
    shape = (extent, *same.shape[1:])
    return replace(
        same,
        shape=shape,
        operands=tuple(replace(o, shape=(min(o.shape[0], extent), *o.shape[1:])) for o in same.operands),
        results=tuple(replace(r, shape=shape[-1:] if r.is_sum else shape) for r in same.results),
    )


def _of_few_pixels(kernel: Norm, schedule: Schedule) -> Norm:
    """The same kernel, collapsed, for two images of two units and a remainder each, as far as its extras allow."""
    same = kernel.collapsed()
    outermost, *inner, _ = same.shape
    block, pixels = schedule.number("row_block"), same.pixels
    if pixels > 1 and not inner:
        few = min(pixels, 2 * block + pixels % block)
        return same.of_extent(min(same.images, 2) * few, few)
    rows = prod(inner)
    if rows % pixels:
        return same  # its outermost axis is part of an image
    return same.of_extent(min(outermost, 2 * max(block, pixels) // rows + 2), pixels)


def _of_two_images(kernel: Pool | PoolGradient, schedule: Schedule) -> Pool | PoolGradient:
    return kernel.of_batch(min(kernel.geometry.batch, 2))


def _of_two_blocks(kernel: Softmax, schedule: Schedule) -> Softmax:
    return kernel.of_rows(min(kernel.rows, 2 * schedule.number("row_block") + 1))


def _of_every_way(kernel: Rearrange, schedule: Schedule) -> Rearrange:
    """One for all, as they share a text: rows that are copied, in more than one unit, gathered, scattered, repeated."""
    rows, odd = schedule.number("unit") // (16 * DTYPES[kernel.dtype]) + 3, 300
    parts = (
        Part((rows, 16), 5, (24, 1), 0, (24, 1)),
        Part((rows, 5), 0, (1, rows), 16, (24, 1)),
        Part((rows, 3), 0, (0, 1), 21, (24, 1)),
        Part((odd,), 1, (2,), 24 * rows, (1,)),
    )
    return Rearrange((24 * rows + odd,), kernel.dtype, ((rows, 24), (5, rows), (3,), (odd, 2)), parts)


_OF_KIND: dict[type[AnyKernel], Callable[[Any, Schedule], AnyKernel]] = {
    Elementwise: _of_few_rows,
    Kernel: _of_few_images,
    Norm: _of_few_pixels,
    Pool: _of_two_images,
    PoolGradient: _of_two_images,
    Rearrange: _of_every_way,
    Softmax: _of_two_blocks,
}
