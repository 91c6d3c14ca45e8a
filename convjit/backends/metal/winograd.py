"""The weight of `metal/winograd`: transformed, as 8x8 matrices in the order in which simdgroups read them."""

from __future__ import annotations

from math import prod

import mlx.core as mx

from convjit.backends.metal.direct import mirrored
from convjit.backends.metal.gemm import lane_order
from convjit.bilinear import algorithm
from convjit.geometry import Window
from convjit.schedule import Schedule
from convjit.schedule.metal.tile import FRAGMENT
from convjit.schedule.metal.winograd import tiles_of


def pack(window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
    """`weight` in the order block of output channels, position, 8 terms (taps, then input channels), matrix.

    In a matrix, terms are rows and output channels columns. Transforms are done in float32 and rounded once.
    """
    filters, *kernel, channels = weight.shape
    values = mirrored(window, weight.astype(mx.float32))
    values = values.reshape(filters, *(1,) * (3 - window.rank), *kernel, channels)
    tiles = tiles_of(schedule)
    for axis, tile in enumerate(tiles, 1):
        if tile > 1:
            values = _transform(values, axis, tile)
    # Positions of the transformed axes first, then the taps of the others, channels, filters.
    order = sorted(range(1, 4), key=lambda axis: tiles[axis - 1] == 1)
    positions = [values.shape[axis] for axis in order if tiles[axis - 1] > 1]
    values = mx.pad(values.transpose(*order, 4, 0), [(0, 0)] * 3 + [(0, -channels % FRAGMENT), (0, 0)])
    return _matrices(values.reshape(prod(positions), -1, filters), schedule).astype(weight.dtype)


def _transform(values: mx.array, axis: int, tile: int) -> mx.array:
    """G times the taps along an axis. Sums of products, one by one: a matrix product may have fewer digits on a GPU."""
    taps = mx.split(values, values.shape[axis], axis)
    rows = [
        sum((float(factor) * tap for factor, tap in zip(row, taps, strict=True) if factor), mx.zeros_like(taps[0]))
        for row in algorithm(tile).weights
    ]
    return mx.concatenate(rows, axis)


def _matrices(values: mx.array, schedule: Schedule) -> mx.array:
    """(positions, terms, filters) -> (blocks, positions, terms / 8, matrices of a block, 64)."""
    block = FRAGMENT * schedule.number("tiles_n") * schedule.number("simdgroups")
    values = mx.pad(values, [(0, 0), (0, 0), (0, -values.shape[2] % block)])
    positions, terms, filters = values.shape
    values = values.reshape(positions, terms // FRAGMENT, FRAGMENT, filters // block, block // FRAGMENT, FRAGMENT)
    matrices = values.transpose(3, 0, 1, 4, 2, 5).reshape(filters // block, positions, -1, FRAGMENT * FRAGMENT)
    return mx.contiguous(mx.take(matrices, lane_order(), axis=3))
