"""Schedules of `metal/tensor_ops.metal`, for chips with tensor operations: from the M5 on.

Unverified: no kernel of this template has run on a device. The API is Apple's documented one, tiles are those that
public code found right and fast on an M5, and what that code found wrong is left out here. So `choose` does not know
this template; it is a candidate where it is `available`, and has to prove itself on the device like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import Chip
from convjit.schedule.nest import Nest, nest

TEMPLATE = "metal/tensor_ops.metal"

_GENERATION, _MACOS = 17, (26, 3)
"""The first GPU that has matrix units for these operations, and the first macOS whose compiler MLX trusts with them."""

_CHANNELS = 32
"""Input channels below which reports of what the operation computes contradict each other."""


@dataclass(frozen=True)
class TensorTile:
    """What a threadgroup computes: `columns` x `rows` pixels by `block_n` output channels, by `simdgroups`."""

    block_n: int
    columns: int
    rows: int
    simdgroups: int

    @classmethod
    def of(cls, schedule: Schedule) -> TensorTile:
        return cls(**{f.name: schedule.number(f.name) for f in fields(cls)})

    def schedule(self) -> Schedule:
        return Schedule(TEMPLATE, tuple(sorted((f.name, getattr(self, f.name)) for f in fields(self))))

    def blocks(self, kernel: Kernel) -> tuple[int, int, int]:
        """Threadgroups along output channels, columns and rows."""
        _, height, width = nest(kernel).out_size
        return ceil(kernel.geometry.out_channels / self.block_n), ceil(width / self.columns), ceil(height / self.rows)


_PLANES = tuple(
    TensorTile(*tile) for tile in ((128, 8, 8, 4), (64, 16, 8, 4), (64, 8, 8, 2), (32, 16, 8, 4), (32, 8, 8, 2))
)
_ROWS = tuple(TensorTile(*tile) for tile in ((128, 64, 1, 4), (64, 128, 1, 4), (64, 64, 1, 2), (32, 32, 1, 2)))
"""Of outputs of one row. Shorter ones, of fewer than 16 pixels a simdgroup, gave wrong results on an M5."""


def available(chip: Chip, macos: tuple[int, ...]) -> bool:
    """May this template be tried?

    Args:
        chip: to run on.
        macos: the version of the system, such as (26, 3); empty on others.
    """
    return chip.generation >= _GENERATION and macos >= _MACOS


def tensor_ops(kernel: Kernel, chip: Chip, count: int = 1) -> list[Schedule]:
    """The best `count` schedules, best first; none if the kernel is not one for tensor operations.

    They take half-precision inputs of 32 channels and more, one group, and no transposed convolutions; of kernels of an
    even size with dilation it is not certain where they begin.
    """
    geometry = kernel.geometry
    loops = nest(kernel)
    if kernel.dtype == "f32" or geometry.window.groups > 1 or len(loops.phases) > 1:
        return []
    planar = [axes[0] for axes in loops.axes[1:]]
    if geometry.in_channels < _CHANNELS or any(len(axis.taps) % 2 == 0 and axis.step > 1 for axis in planar):
        return []
    tiles = sorted(_ROWS if loops.out_size[1] == 1 else _PLANES, key=lambda tile: _cost(tile, kernel, loops, chip))
    return [tile.schedule() for tile in tiles[:count]]


def _cost(tile: TensorTile, kernel: Kernel, loops: Nest, chip: Chip) -> float:
    """Outputs computed, those outside of the image too; more where threadgroups are too few for all cores."""
    filters, columns, rows = tile.blocks(kernel)
    blocks = filters * columns * rows * loops.out_size[0] * kernel.geometry.batch
    outputs = tile.block_n * tile.columns * tile.rows
    return outputs * max(blocks, 2 * chip.cores) * (1 + 16 / tile.block_n + 16 / (tile.columns * tile.rows))
