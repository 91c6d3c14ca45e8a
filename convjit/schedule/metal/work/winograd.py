"""The work of `metal/winograd`: transform the input, multiply, transform the products."""

from __future__ import annotations

from math import ceil, prod

from convjit.bilinear import TAPS
from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.winograd import Winograd
from convjit.schedule.metal.work.launch import Work, array_bytes, extra_bytes, inside, result_bytes, taps_inside

_TRANSFORM_THREADS = 128
_ADDS = 4
"""Additions for each value and axis of a transform, about."""


def work(kernel: Kernel, schedule: Schedule) -> tuple[Work, ...]:
    """Between the launches lie the transformed input, in the storage type, and the products, in float32."""
    g, size = kernel.geometry, DTYPES[kernel.dtype]
    plan = Winograd.of(g, schedule)
    rows = plan.blocks_m * plan.block_m
    transformed = rows * plan.positions * plan.terms * size
    weights = plan.blocks_n * plan.block_n * plan.positions * plan.terms * size
    products = rows * plan.positions * plan.padded_filters * 4
    input_bytes, arrays = prod(g.in_shape) * size, array_bytes(kernel)
    tiles = g.batch * prod(plan.tile_counts)
    channels = 2 * ceil(g.out_channels / 2) if max(plan.tiles) == 2 else g.out_channels
    read = g.batch * g.in_channels * prod(_read(plan, i) for i in range(3)) * size
    return (
        _transform(read, transformed, input_bytes + transformed, rows * plan.terms * plan.positions),
        Work(
            bytes_read=plan.blocks_n * transformed + plan.blocks_m * weights,
            bytes_written=products,
            bytes_once=transformed + weights + products,
            multiply_adds=plan.multiply_adds,
            on_matrices=True,
            threadgroups=plan.blocks_m * plan.blocks_n * plan.positions,
            threads=plan.threads,
        ),
        _transform(
            tiles * channels * plan.positions * 4 + extra_bytes(kernel, prod(g.out_shape), tiles * channels),
            result_bytes(kernel),
            products + arrays - input_bytes,
            tiles * channels * plan.positions,
        ),
    )


def _transform(read: int, written: int, once: int, values: int) -> Work:
    return Work(read, written, once, _ADDS * values, False, ceil(values / 16 / _TRANSFORM_THREADS), _TRANSFORM_THREADS)


def _read(plan: Winograd, i: int) -> int:
    """Input positions that all tiles along an axis read."""
    axis, tile = plan.axes[i], plan.tiles[i]
    if tile == 1:
        return taps_inside((axis,), plan.in_size[i], plan.out_size[i])
    return sum(
        inside(axis.offset + position, tile, plan.tile_counts[i], plan.in_size[i])
        for position in range(tile + TAPS - 1)
    )
