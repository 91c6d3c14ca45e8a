"""The work of `metal/depthwise.metal`."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, prod

from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.depthwise import Axis, Grid, Patch, axes_of, inputs_of, patch_counts
from convjit.schedule.metal.work.launch import Work, array_bytes, extra_bytes, inside, result_bytes


def work(kernel: Kernel, schedule: Schedule) -> tuple[Work, ...]:
    """A thread reads each input row of its patch once, or once for each chunk of taps, and weights as often."""
    g, size = kernel.geometry, DTYPES[kernel.dtype]
    patch = Patch.of(schedule)
    axes = depth, height, width = axes_of(kernel)
    counts = patch_counts(axes, patch.rows, patch.columns)
    planes = sum(_planes(depth, grid) for grid in depth.grids)
    rows = sum(_positions(height, grid, patch.rows, grid.taps) for grid in height.grids)
    weight_rows = counts[1] * sum(grid.taps for grid in height.grids)
    weight_columns = counts[2] * sum(grid.taps for grid in width.grids)
    columns = sum(
        _positions(width, _chunk(grid, first, taps, width.step), patch.columns, taps)
        for grid in width.grids
        for first, taps in _chunks(grid, patch)
    )
    blocks = g.batch * g.out_channels // patch.channels
    inputs = blocks * inputs_of(kernel, patch.channels) * planes * rows * columns
    weight_planes = counts[0] * sum(grid.taps for grid in depth.grids) if patch.rolling else planes
    weights = blocks * patch.channels * weight_planes * weight_rows * weight_columns
    products = planes * sum(_products(height, grid, patch) for grid in height.grids) * weight_columns * patch.columns
    threads = blocks * prod(counts) * prod(len(axis.grids) for axis in axes)
    return (
        Work(
            bytes_read=(inputs + weights) * size + extra_bytes(kernel, prod(g.out_shape), threads * patch.channels),
            bytes_written=result_bytes(kernel),
            bytes_once=array_bytes(kernel),
            multiply_adds=blocks * patch.channels * products,
            on_matrices=False,
            threadgroups=ceil(g.out_channels // patch.channels / patch.lanes)
            * ceil(prod(counts) / patch.patches)
            * g.batch
            * prod(len(axis.grids) for axis in axes),
            threads=patch.lanes * patch.patches,
        ),
    )


def _products(height: Axis, grid: Grid, patch: Patch) -> int:
    """Kernel rows that meet rows of sums, in all patches; a rolling thread also adds to its neighbours' sums."""
    between, patches = patch.rows * height.stride * height.step, ceil(height.outputs / patch.rows)
    met = 0
    for n in range((patch.rows - 1) * height.stride + grid.taps):
        sums = [n - row * height.stride for row in range(patch.rows)]
        of_row = sum(0 <= tap < grid.taps for tap in sums)
        if patch.rolling:
            of_row = ceil((grid.taps - n % height.stride) / height.stride)
        met += max(of_row, 0) * inside(grid.offset + n * height.step, between, patches, height.in_size)
    return met


def _planes(depth: Axis, grid: Grid) -> int:
    """Input planes that the outputs of a grid read."""
    return sum(
        inside(grid.offset + tap * depth.step, depth.stride * depth.step, depth.outputs, depth.in_size)
        for tap in range(grid.taps)
    )


def _chunks(grid: Grid, patch: Patch) -> Iterator[tuple[int, int]]:
    """First tap and number of taps of each part of a kernel row."""
    for first in range(0, grid.taps, patch.taps):
        yield first, min(patch.taps, grid.taps - first)


def _chunk(grid: Grid, first: int, taps: int, step: int) -> Grid:
    return Grid(grid.first, grid.offset + first * step, taps, grid.start + first)


def _positions(axis: Axis, grid: Grid, extent: int, taps: int) -> int:
    """Input positions that all patches of so many outputs read along an axis; those that no tap needs are left out."""
    if not taps:
        return 0
    needed = [n for n in range((extent - 1) * axis.stride + taps) if n % axis.stride < taps or axis.stride <= taps]
    start, between = grid.offset, extent * axis.stride * axis.step
    patches = ceil(axis.outputs / extent)
    return sum(inside(start + n * axis.step, between, patches, axis.in_size) for n in needed)
