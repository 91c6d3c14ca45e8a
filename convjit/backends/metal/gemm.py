"""The weight of `metal/gemm.metal`: 8x8 matrices, in the order in which simdgroups read them."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from convjit.geometry import Window
from convjit.schedule import Schedule
from convjit.schedule.metal.tile import FRAGMENT, LANES, Tile
from convjit.schedule.phases import kernel_elements, phases


def pack(window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
    """`weight` as one row of matrices of 8 input by 8 output channels, each as its 32 lanes hold it.

    In the order phase, group, block of output channels, step of input channels, tap, 8 input channels, matrix.
    """
    tile = Tile.of(schedule)
    filters, *kernel, channels = weight.shape
    flat = weight.reshape(window.groups, filters // window.groups, -1, channels)
    flat = mx.pad(flat, [(0, 0), (0, -flat.shape[1] % tile.block_n), (0, 0), (0, -channels % FRAGMENT)])
    packed: list[mx.array] = []
    for phase in phases(window, tuple(kernel)):
        if elements := kernel_elements(phase, tuple(kernel)):
            packed.append(_steps(mx.take(flat, mx.array(elements), axis=2), tile))
    if len(packed) > 1 or not packed:
        return mx.concatenate([p.reshape(-1) for p in packed] or [mx.zeros(FRAGMENT, weight.dtype)])
    return packed[0].reshape(-1)


def _steps(weight: mx.array, tile: Tile) -> mx.array:
    """Matrices of one phase: (groups, filters, taps, channels) -> (groups, blocks, ...)."""
    groups, filters, taps, channels = weight.shape
    blocks = filters // tile.block_n
    steps: list[mx.array] = []
    for first in range(0, channels, tile.channels):
        step = weight[..., first : first + tile.channels]
        matrices = step.reshape(
            groups, blocks, tile.block_n // FRAGMENT, FRAGMENT, taps, step.shape[-1] // FRAGMENT, FRAGMENT
        )
        # group, block, tap, 8 channels, matrix; in a matrix channels are rows and filters columns.
        matrices = matrices.transpose(0, 1, 4, 5, 2, 6, 3).reshape(groups, blocks, -1, FRAGMENT * FRAGMENT)
        steps.append(mx.take(matrices, lane_order(), axis=3).reshape(groups, blocks, -1))
    return mx.concatenate(steps, axis=2)


def lane_order() -> mx.array:
    """The elements of an 8x8 matrix, row-major, in the order of the lanes that hold them, two neighbours each."""
    lane = np.arange(LANES)
    row = (lane // 4 & 4) + lane // 2 % 4
    column = (lane // 4 & 2) * 2 + lane % 2 * 2
    return mx.array(np.stack([row * FRAGMENT + column, row * FRAGMENT + column + 1], axis=1).reshape(-1))
