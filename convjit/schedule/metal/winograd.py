"""Schedules of `metal/winograd`, three kernels: transform tiles of the input, multiply, transform tiles of the output.

Never chosen by default. F(4x4, 3x3) multiplies a quarter as often as a direct convolution, F(2x2, 3x3) 4/9 as often.
What that costs, measured against float64 with 16 to 256 channels, errors relative to the largest result:

- F2 in float32 errs by 2e-7 to 8e-7, as a direct convolution does, F4 by 5e-7 to 2.4e-6; F2 with transforms rounded to
  float16 by 5e-4 to 8e-4, to bfloat16 by 4e-3 to 6e-3: one or two units of the result's last place.
- An input that is not finite spoils the same 9 pixels as in a direct convolution with F2, where infinities may become
  NaN; with F4 it spoils 16 to 25, those of its tile. Likewise a huge input leaves its rounding error with the others of
  its tile: 1e30 beside ones makes them wrong, though finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

from convjit.bilinear import TAPS, Algorithm, algorithm
from convjit.geometry import Geometry, Window
from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import Chip
from convjit.schedule.metal.cores import BARRIER_CYCLES, GIGAHERTZ, LOAD_CYCLES, MAX_SUMS, MMA_CYCLES
from convjit.schedule.metal.tile import FRAGMENT, LANES
from convjit.schedule.phases import AxisPhase, phases_of_axes

TEMPLATE = "metal/winograd"

MAX_CHAIN = 4608
"""Products summed one after the other in fp32, at most: longer sums are left to templates that split them."""


@dataclass(frozen=True)
class Winograd:
    """What the three kernels do. Tiles are rows of matrices, products of taps and channels are summed, outputs columns.

    Axes with a tile above 1 are transformed. The taps of the others are summed like channels.

    Attributes:
        geometry: the convolution.
        tiles: outputs of a tile along depth, height and width.
        simdgroups: of a threadgroup that multiplies, along output channels.
        tiles_m, tiles_n: 8x8 matrices that a simdgroup sums, along tiles and along output channels.
    """

    geometry: Geometry
    tiles: tuple[int, int, int]
    simdgroups: int
    tiles_m: int
    tiles_n: int

    @classmethod
    def of(cls, geometry: Geometry, schedule: Schedule) -> Winograd:
        """The plan of a schedule of `metal/winograd`."""
        return cls(
            geometry,
            tiles_of(schedule),
            schedule.number("simdgroups"),
            schedule.number("tiles_m"),
            schedule.number("tiles_n"),
        )

    def schedule(self) -> Schedule:
        """Its choices."""
        tiles = (("tile_d", self.tiles[0]), ("tile_h", self.tiles[1]), ("tile_w", self.tiles[2]))
        matrices = (("tiles_m", self.tiles_m), ("tiles_n", self.tiles_n))
        return Schedule(TEMPLATE, tuple(sorted((("simdgroups", self.simdgroups), *tiles, *matrices))))

    @cached_property
    def axes(self) -> tuple[AxisPhase, ...]:
        """Depth, height and width: how outputs read the input."""
        return _axes(self.geometry)

    @property
    def in_size(self) -> tuple[int, ...]:
        return _three(self.geometry.in_size)

    @property
    def out_size(self) -> tuple[int, ...]:
        return _three(self.geometry.out_size)

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """Of each axis; F(1, 1) for those that are not transformed."""
        return tuple(algorithm(tile) for tile in self.tiles)

    @property
    def positions(self) -> int:
        """Values that a tile is transformed to: so many products of matrices."""
        return prod(a.positions for a in self.algorithms)

    @property
    def summed_taps(self) -> tuple[int, ...]:
        """Taps of the axes that are not transformed, 1 for the others."""
        return tuple(1 if tile > 1 else len(axis.taps) for tile, axis in zip(self.tiles, self.axes, strict=True))

    @property
    def padded_channels(self) -> int:
        """Input channels in whole matrices."""
        return ceil(self.geometry.in_channels / FRAGMENT) * FRAGMENT

    @property
    def terms(self) -> int:
        """Products of a sum: input channels times the taps that are not transformed."""
        return prod(self.summed_taps) * self.padded_channels

    @property
    def step(self) -> int:
        """Terms in threadgroup memory at a time."""
        return next(n for n in (32, 16, FRAGMENT) if self.terms % n == 0)

    @property
    def tile_counts(self) -> tuple[int, ...]:
        """Tiles of an image along each axis."""
        return tuple(ceil(n / tile) for n, tile in zip(self.out_size, self.tiles, strict=True))

    @property
    def block_m(self) -> int:
        """Tiles of a threadgroup that multiplies."""
        return FRAGMENT * self.tiles_m

    @property
    def block_n(self) -> int:
        """Output channels of a threadgroup that multiplies."""
        return FRAGMENT * self.tiles_n * self.simdgroups

    @property
    def blocks_m(self) -> int:
        return ceil(self.geometry.batch * prod(self.tile_counts) / self.block_m)

    @property
    def blocks_n(self) -> int:
        return ceil(self.geometry.out_channels / self.block_n)

    @property
    def padded_filters(self) -> int:
        """Output channels in whole matrices."""
        return ceil(self.geometry.out_channels / FRAGMENT) * FRAGMENT

    @property
    def threads(self) -> int:
        """Of a threadgroup that multiplies."""
        return LANES * self.simdgroups

    @property
    def multiply_adds(self) -> int:
        """Issued by the matrices, padding included."""
        return self.positions * self.blocks_m * self.block_m * self.blocks_n * self.block_n * self.terms


def tiles_of(schedule: Schedule) -> tuple[int, int, int]:
    """The outputs of a tile along depth, height and width."""
    return schedule.number("tile_d"), schedule.number("tile_h"), schedule.number("tile_w")


def winograd(kernel: Kernel, chip: Chip, tile: int, count: int = 1) -> list[Schedule]:
    """The best `count` schedules with F(tile, 3) along the last two axes that it fits, best first.

    Args:
        kernel: what to compute.
        chip: what to compute it on.
        tile: 2 or 4. With half storage transforms are rounded to it: by 4 they would lose too much, and by 2 they are
            good enough for results that are rounded as well.
        count: how many schedules.

    Returns:
        An empty list if the kernel is not for this: no axis has three taps, stride 1 and no dilation, there are groups,
        sums are too long, or the numbers too short for the tile.
    """
    geometry = kernel.geometry
    if geometry.window.groups > 1 or geometry.window.transposed:
        return []
    if kernel.dtype != "f32" and (tile > 2 or "f32" in kernel.result_dtypes):
        return []
    fits = [i for i, axis in enumerate(_axes(geometry)) if _fits(axis) and _three(geometry.out_size)[i] > 1][-2:]
    if not fits:
        return []
    tiles = (tile if 0 in fits else 1, tile if 1 in fits else 1, tile if 2 in fits else 1)
    plans = [
        Winograd(geometry, tiles, simdgroups, tiles_m, tiles_n)
        for simdgroups in (4, 2)
        for tiles_n in (1, 2, 4)
        for tiles_m in range(1, min(8, MAX_SUMS // tiles_n) + 1)
    ]
    if plans[0].terms > MAX_CHAIN:
        return []
    plans.sort(key=lambda plan: _seconds(plan, chip, DTYPES[kernel.dtype]))
    return [plan.schedule() for plan in plans[:count]]


def _fits(axis: AxisPhase) -> bool:
    return len(axis.taps) == TAPS and axis.stride == axis.step == 1


def _axes(geometry: Geometry) -> tuple[AxisPhase, ...]:
    """The one phase of each axis; axes that the kernel lacks have one tap."""
    one = Window((1,), (0,), (0,), (1,), (1,))
    missing = phases_of_axes(one, (1,)) * (3 - geometry.rank)
    return tuple(phases[0] for phases in (*missing, *phases_of_axes(geometry.window, geometry.kernel)))


def _three(extents: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (3 - len(extents)) + extents


def _seconds(plan: Winograd, chip: Chip, size: int) -> float:
    """Of the multiplying kernel, roughly: what simdgroups do, or what moves, whichever takes longer."""
    steps = plan.terms // FRAGMENT
    multiply = plan.tiles_m * plan.tiles_n * MMA_CYCLES + (plan.tiles_m + 2 * plan.tiles_n) * LOAD_CYCLES
    stage = plan.block_m * FRAGMENT / 4 / plan.threads * 2 * LOAD_CYCLES
    barriers = 2 * plan.terms / plan.step * BARRIER_CYCLES
    simdgroup = steps * (multiply + stage) + barriers + 2 * plan.tiles_m * plan.tiles_n * LOAD_CYCLES
    # A core runs 4 simdgroups at a time, and needs some more of them to have work while others wait.
    in_flight = plan.blocks_m * plan.blocks_n * plan.positions * plan.simdgroups / (4 * chip.cores)
    busy = simdgroup * max(in_flight, 2.0) / (GIGAHERTZ * 1e9)
    return max(busy, _moved(plan, size) / (0.8e9 * chip.gigabytes_per_second))


def _moved(plan: Winograd, size: int) -> int:
    """Device bytes of the multiplying kernel."""
    rows, filters = plan.blocks_m * plan.block_m, plan.blocks_n * plan.block_n
    read = plan.positions * plan.terms * size * (rows * plan.blocks_n + filters * plan.blocks_m)
    return read + plan.positions * rows * plan.padded_filters * 4
