"""The plan of a kernel of "cpu/winograd.c": algorithms, blocks of tiles, and the memory that they take."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.tiling import Tiling, tiling
from convjit.schedule.nest import nest

TEMPLATE = "cpu/winograd.c"

LINE = 16
"""Floats of a cache line."""

LEAST_CHANNELS = 8
"""Of input and output: with fewer, transforms would take most of the time."""


@dataclass(frozen=True, slots=True)
class Winograd:
    """What a kernel of "cpu/winograd.c" does.

    Attributes:
        tilings: of height and width.
        channels: of a sum: those of the input, of all residues.
        terms: products of a sum: its channels times taps along the depth.
        image_tiles: tiles of an image.
        lanes: of a vector.
        vectors: of output channels, summed at once.
        group: tiles summed at once.
        tiles: whose transformed inputs are at hand, whole groups.
        chunk: terms in one chain of additions, whose transformed weights are at hand.
        splits: units of work that share the output channels of a block of tiles, of all phases that are done apart.
            Each transforms the inputs by itself: fetching what another core has just written took longer.
        packed: whether weights are packed transformed along the "height", or along "both" axes.
    """

    tilings: tuple[Tiling, Tiling]
    channels: int
    terms: int
    image_tiles: int
    lanes: int
    vectors: int
    group: int
    tiles: int
    chunk: int
    splits: int
    packed: str

    @classmethod
    def of(cls, kernel: Kernel, schedule: Schedule) -> Winograd:
        """The plan of a schedule."""
        loops, few = nest(kernel), has_few_channels(kernel.geometry.in_channels)
        tiles = (schedule.number("tile_h"), schedule.number("tile_w"))
        high, wide = (tiling(loops.axes[i], loops.out_size[i], tiles[i - 1], few) for i in (1, 2))
        assert high is not None and wide is not None
        numbers = map(schedule.number, ("lanes", "vectors", "group", "tiles", "chunk", "splits"))
        return cls((high, wide), *sums_of(kernel, (high, wide)), *numbers, packed=str(schedule["packed"]))

    def schedule(self) -> Schedule:
        """Its choices."""
        high, wide = (t.outputs_of_phase for t in self.tilings)
        choices = {"tile_h": high, "tile_w": wide, "lanes": self.lanes, "vectors": self.vectors, "group": self.group}
        choices |= {"tiles": self.tiles, "chunk": self.chunk, "splits": self.splits}
        return Schedule(TEMPLATE, tuple(sorted({**choices, "packed": self.packed}.items())))

    @property
    def positions(self) -> int:
        """Multiplications of a tile for each term."""
        high, wide = self.tilings
        return high.algorithm.positions * wide.algorithm.positions

    @property
    def apart(self) -> int:
        """Phases that are done one by one."""
        return prod(t.apart for t in self.tilings)

    def blocks(self, outputs: int) -> int:
        """Blocks of output channels, of all these phases."""
        return self.apart * ceil(outputs / self.block)

    @property
    def block(self) -> int:
        """Output channels of a block."""
        return self.lanes * self.vectors

    def tile_blocks(self, batch: int) -> int:
        """Blocks of tiles of all images."""
        return ceil(max(1, batch) * self.image_tiles / self.tiles)

    @property
    def v_row(self) -> int:
        """Floats of V from one tile to the next; with fewer channels than lanes, the last are followed by zeros."""
        return _spaced(self.terms + max(self.lanes - self.channels, 0))

    @property
    def v_position(self) -> int:
        """Floats of V of one position."""
        return _spaced(self.tiles * self.v_row)

    @property
    def u_position(self) -> int:
        """Floats of U of one position."""
        return _spaced(self.chunk * self.block)

    @property
    def m_position(self) -> int:
        """Floats of M of one position."""
        return _spaced(self.tiles * self.block)

    @property
    def v_bytes(self) -> int:
        """Of V of a block of tiles."""
        return 4 * self.positions * self.v_position


def has_few_channels(channels: int) -> bool:
    """Are these so few channels of an input that residues of a stride are summed like channels?"""
    return channels < LEAST_CHANNELS


def sums_of(kernel: Kernel, tilings: tuple[Tiling, Tiling]) -> tuple[int, int, int]:
    """Channels and terms of a sum, and tiles of an image."""
    loops = nest(kernel)
    channels = kernel.geometry.in_channels * prod(t.residues for t in tilings)
    return channels, channels * len(loops.axes[0][0].taps), loops.out_size[0] * prod(t.count for t in tilings)


def _spaced(floats: int) -> int:
    """An odd number of cache lines: rows or positions so far apart do not compete for the same sets of a cache."""
    return (ceil(floats / LINE) | 1) * LINE
