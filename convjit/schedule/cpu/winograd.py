"""Schedules of "cpu/winograd.c": which algorithm along each axis, how many tiles at a time, what threads share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

from convjit.bilinear import Algorithm, Tap, composed
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.nest import nest
from convjit.schedule.phases import AxisPhase

TEMPLATE = "cpu/winograd.c"

_LINE = 16
"""Floats of a cache line."""

_SHARED_BYTES = 4 << 20
"""Of V that all threads share, at most."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the outputs of an axis fall into tiles.

    Attributes:
        algorithm: of one tile.
        phases: the kernel's taps, each with the input that it meets, counted from `offset` in steps of `spread`.
        stride: inputs from one output of a phase to its next.
        advance: inputs from one tile to the next, in steps of `spread`.
        offset: the first input of the first tile; negative in the padding.
        spread: from one input or output of a tile to the next: the dilation of the kernel.
        count: how many tiles there are.
    """

    algorithm: Algorithm
    phases: tuple[tuple[Tap, ...], ...]
    stride: int
    advance: int
    offset: int
    spread: int
    count: int


def tiling(axis: tuple[AxisPhase, ...], extent: int, tile: int) -> Tiling | None:
    """Tiles of `tile` outputs of each phase, along an axis of `extent` outputs.

    Returns:
        None if the kernel is both dilated and strided, or if a phase has no taps.
    """
    stride = axis[0].stride
    (spread, *other) = sorted({phase.step for phase in axis if len(phase.taps) > 1}) or [1]
    if other or (spread > 1 and (stride > 1 or len(axis) > 1)) or not all(phase.taps for phase in axis):
        return None
    offset = min(phase.offset for phase in axis)
    phases = tuple(tuple((tap, phase.offset - offset + t) for t, tap in enumerate(phase.taps)) for phase in axis)
    algorithm = composed(tile, phases, stride)
    count = ceil(ceil(extent / spread) / algorithm.tile) * spread
    return Tiling(algorithm, phases, stride, tile * stride, offset, spread, count)


@dataclass(frozen=True)
class Winograd:
    """What a kernel of "cpu/winograd.c" does.

    Attributes:
        tilings: of height and width.
        terms: products of a sum: input channels times taps along the depth.
        image_tiles: tiles of an image.
        lanes: of a vector.
        vectors: of output channels, summed at once.
        group: tiles summed at once.
        tiles: whose transformed inputs are at hand.
        chunk: terms in one chain of additions, whose transformed weights are at hand.
        shares: what is transformed once for all threads: "inputs", "weights" or "nothing".
    """

    tilings: tuple[Tiling, Tiling]
    terms: int
    channels: int
    image_tiles: int
    lanes: int
    vectors: int
    group: int
    tiles: int
    chunk: int
    shares: str

    @classmethod
    def of(cls, kernel: Kernel, schedule: Schedule) -> Winograd:
        """The plan of a schedule."""
        loops = nest(kernel)
        high, wide = (
            tiling(loops.axes[i], loops.out_size[i], schedule.number(name))
            for i, name in ((1, "tile_h"), (2, "tile_w"))
        )
        assert high is not None and wide is not None
        numbers = ("lanes", "vectors", "group", "tiles", "chunk")
        channels = kernel.geometry.in_channels
        terms = channels * len(loops.axes[0][0].taps)
        image_tiles = loops.out_size[0] * high.count * wide.count
        return cls((high, wide), terms, channels, image_tiles, *map(schedule.number, numbers), str(schedule["shares"]))

    @cached_property
    def positions(self) -> int:
        """Multiplications of a tile for each term."""
        return prod(t.algorithm.positions for t in self.tilings)

    @property
    def multiplications(self) -> int:
        """Those of the definition."""
        return prod(t.algorithm.tile // len(t.phases) * sum(map(len, t.phases)) for t in self.tilings)

    @property
    def block(self) -> int:
        """Output channels of a block."""
        return self.lanes * self.vectors

    @property
    def v_row(self) -> int:
        return _spaced(self.terms + max(self.lanes - self.channels, 0))

    @property
    def v_position(self) -> int:
        return _spaced(self.tiles * self.v_row)

    @property
    def u_position(self) -> int:
        return _spaced(self.chunk * self.block)

    @property
    def m_position(self) -> int:
        return _spaced(self.tiles * self.block)

    @property
    def images_at_once(self) -> int:
        """Images whose V fits into the memory that threads share."""
        return max(1, _SHARED_BYTES // (ceil(self.image_tiles / self.tiles) * self.positions * self.v_position * 4))


def _spaced(floats: int) -> int:
    """An odd number of cache lines: rows or positions so far apart do not compete for the same sets of a cache."""
    return (ceil(floats / _LINE) | 1) * _LINE
