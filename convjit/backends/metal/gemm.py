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
    for _ in range(tile.folded):
        last = max(axis for axis, extent in enumerate(kernel) if extent > 1)
        channels, kernel[last] = channels * kernel[last], 1
    taps = weight.reshape(window.groups, filters // window.groups, -1, channels)
    packed: list[mx.array] = []
    for phase in phases(window, tuple(kernel)):
        if elements := kernel_elements(phase, tuple(kernel)):
            packed.append(_matrices(mx.take(taps, mx.array(elements), axis=2), tile.block_n, tile.channels))
    return mx.concatenate(packed) if packed else mx.zeros(FRAGMENT, weight.dtype)


def pack_dense(window: Window, schedule: Schedule, weight: mx.array) -> mx.array:
    """The weight of `metal/stem.metal`: all taps of all channels are the rows of the matrices."""
    filters, *kernel, channels = weight.shape
    (phase,) = phases(window, tuple(kernel))
    taps = mx.take(weight.reshape(filters, -1, channels), mx.array(kernel_elements(phase, tuple(kernel))), axis=1)
    terms = taps.reshape(1, filters, 1, -1)
    return _matrices(terms, Tile.of(schedule).block_n, -(-terms.shape[-1] // FRAGMENT) * FRAGMENT)


def _matrices(weight: mx.array, block_n: int, channels_a_step: int) -> mx.array:
    """The matrices of one phase: (groups, filters, taps, channels) -> one row."""
    filters, channels = weight.shape[1], weight.shape[3]
    weight = mx.pad(weight, [(0, 0), (0, -filters % block_n), (0, 0), (0, -channels % FRAGMENT)])
    groups, filters, taps, channels = weight.shape
    steps: list[mx.array] = []
    for first in range(0, channels, channels_a_step):
        step = weight[..., first : first + channels_a_step]
        step = step.reshape(groups, filters // block_n, block_n // FRAGMENT, FRAGMENT, taps, -1, FRAGMENT)
        # group, block, tap, 8 channels, matrix; in a matrix channels are rows and filters columns.
        step = step.transpose(0, 1, 4, 5, 2, 6, 3).reshape(groups, filters // block_n, -1, FRAGMENT * FRAGMENT)
        steps.append(mx.take(step, lane_order(), axis=3).reshape(groups, filters // block_n, -1))
    return mx.concatenate(steps, axis=2).reshape(-1)


def lane_order() -> mx.array:
    """The elements of an 8x8 matrix, row-major, in the order of the lanes that hold them, two neighbours each."""
    lane = np.arange(LANES)
    row = (lane // 4 & 4) + lane // 2 % 4
    column = (lane // 4 & 2) * 2 + lane % 2 * 2
    return mx.array(np.stack([row * FRAGMENT + column, row * FRAGMENT + column + 1], axis=1).reshape(-1))
