"""Schedules of the gradient of a convolution's weight: `metal/weight_gradient.metal`, and, where a group has few output
channels, `metal/weight_gradient_direct.metal`.

The gradient is a product of matrices, output channels by pixels times pixels by columns; a column is one input channel
of one tap. It has few elements and long sums, so pixels are shared out to keep all cores busy: each part of them is a
sum by itself, and a second kernel adds these up, always in the same order. A part may be long: it is made of chains of
additions that are short enough to be exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import product
from math import ceil, prod

from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import Chip
from convjit.schedule.metal.cores import (
    BARRIER_CYCLES,
    CACHE_BYTES,
    LAUNCH_CYCLES,
    LOAD_CYCLES,
    MMA_CYCLES,
    elapsed,
    memory_cycles,
)
from convjit.schedule.metal.tile import FRAGMENT, LANES

TEMPLATE = "metal/weight_gradient.metal"
DIRECT = "metal/weight_gradient_direct.metal"

MAX_CHAIN = 4096
"""Products of one sum in fp32, at most; such sums are added up."""

_LEAST_OUTPUTS = 4
"""Output channels of a group below which matrices are mostly padding, unless there is one group only."""

_GRIDS = ((2, 2), (1, 2), (2, 1), (1, 4), (4, 1))
"""Simdgroups of a threadgroup, along output channels and columns."""

THREADGROUP_BYTES, _GOOD_BYTES = 16 << 10, 10 << 10
"""The most that a tile takes; with no more than the second, a core has room for six threadgroups."""

_LEAST_STEPS = 4
"""Fills of threadgroup memory of a part, unless there are fewer pixels."""

_PLACE_CYCLES = 40
"""Of a thread, to find the next pixel and whether its taps meet the input."""

_THREADS, _THREADS_PER_CORE = 128, 768
"""Of a threadgroup of the direct kernel; of a core that is busy."""
_RUN, _LEAST_PIXELS = 512, 64
"""Pixels of one chain of additions of the direct kernel; of a part of them, about, at least."""
_TAPS = 8
"""Of a kernel row, at most, that a thread of the direct kernel sums together."""


@dataclass(frozen=True)
class Tile:
    """Choices of a schedule of `metal/weight_gradient.metal`. Output channels are rows of matrices.

    Attributes:
        simdgroups_m, simdgroups_n: simdgroups of a threadgroup, along output channels and along columns.
        tiles_m, tiles_n: 8x8 matrices that a simdgroup sums, likewise.
        pixels: in threadgroup memory at a time, a multiple of 8.
        parts: sums by themselves that the pixels of all images are shared out to.
        chains: of a part, each added to what those before it left in memory.
    """

    simdgroups_m: int
    simdgroups_n: int
    tiles_m: int
    tiles_n: int
    pixels: int
    parts: int = 1
    chains: int = 1

    @classmethod
    def of(cls, schedule: Schedule) -> Tile:
        return cls(**{f.name: schedule.number(f.name) for f in fields(cls)})

    def schedule(self) -> Schedule:
        return Schedule(TEMPLATE, tuple(sorted((f.name, getattr(self, f.name)) for f in fields(self))))

    @property
    def threads(self) -> int:
        return LANES * self.simdgroups_m * self.simdgroups_n

    @property
    def block_m(self) -> int:
        """Output channels of a threadgroup."""
        return FRAGMENT * self.simdgroups_m * self.tiles_m

    @property
    def block_n(self) -> int:
        """Columns of a threadgroup."""
        return FRAGMENT * self.simdgroups_n * self.tiles_n

    def pixels_apart(self, block: int, width: int) -> int:
        """A thread brings `width` neighbours of a row of `block` into threadgroup memory, of every so many-th pixel."""
        return self.threads * width // block


@dataclass(frozen=True)
class Product:
    """A weight gradient as a product of matrices, cut into tiles."""

    kernel: Kernel
    tile: Tile

    @property
    def groups(self) -> int:
        return self.kernel.geometry.window.groups

    @property
    def rows(self) -> int:
        """Output channels of a group."""
        return self.kernel.geometry.out_channels // self.groups

    @property
    def columns(self) -> int:
        """Taps times input channels of a group: the gradient of an output channel, as it lies in memory."""
        return prod(self.kernel.geometry.weight_shape[1:])

    @property
    def row_blocks(self) -> int:
        return ceil(self.rows / self.tile.block_m)

    @property
    def column_blocks(self) -> int:
        return ceil(self.columns / self.tile.block_n)

    @property
    def threadgroups(self) -> int:
        return self.row_blocks * self.column_blocks * self.groups * self.tile.parts

    @property
    def width(self) -> int:
        """Columns that a thread reads together: neighbouring channels of one tap."""
        return 4 if self.kernel.geometry.weight_shape[-1] % 4 == 0 else 1

    def pitch(self, block: int) -> int:
        """Elements between pixels in threadgroup memory: as few as keep matrices free of bank conflicts.

        Columns are read as they lie, see `Tiling.pitch`. Rows are read transposed, 8 elements of every second pixel at
        a time: w % 16 = 4 words of 4 bytes between pixels spread these over all 32 banks.
        """
        size = DTYPES[self.kernel.dtype]
        words = next(w for w in range(block * size // 4, block + 16) if w % 16 == 4)
        return words * 4 // size

    @property
    def threadgroup_bytes(self) -> int:
        pitches = self.pitch(self.tile.block_m) + self.pitch(self.tile.block_n)
        return self.tile.pixels * pitches * DTYPES[self.kernel.dtype]

    @cached_property
    def steps(self) -> int:
        """How often a threadgroup fills its memory."""
        return ceil(prod(self.kernel.geometry.out_shape[:-1]) / self.tile.parts / self.tile.pixels)

    @property
    def issued(self) -> int:
        """Multiply-adds of all matrices, those with padding included."""
        return self.threadgroups * self.tile.block_m * self.tile.block_n * self.steps * self.tile.pixels


def choose(kernel: Kernel, chip: Chip) -> Schedule:
    """The schedule that should be the fastest on a chip."""
    return candidates(kernel, chip)[0]


def candidates(kernel: Kernel, chip: Chip) -> list[Schedule]:
    """Schedules worth measuring, `choose`'s first."""
    g = kernel.geometry
    on_matrices = products(kernel, chip, count=5)
    if g.window.groups > 1 and g.out_channels // g.window.groups < _LEAST_OUTPUTS:
        return [direct(kernel, chip), *on_matrices[:1]]
    return [*on_matrices, direct(kernel, chip)]


def smaller(kernel: Kernel, schedule: Schedule, chip: Chip) -> Schedule | None:
    """What to try where a schedule fails on a device: a tile of half the sums at most, then the direct kernel."""
    if schedule.template == DIRECT:
        return None
    tile = Tile.of(schedule)
    for other in products(kernel, chip, count=100):
        of_other = Tile.of(other)
        if 2 * of_other.block_m * of_other.block_n <= tile.block_m * tile.block_n:
            return other
    return direct(kernel, chip)


def products(kernel: Kernel, chip: Chip, count: int = 1) -> list[Schedule]:
    """The best `count` schedules of `metal/weight_gradient.metal`, each of another size, best first."""
    distinct: dict[tuple[int, int, int], Tile] = {}
    for tile in sorted(_tiles(kernel, chip), key=lambda tile: _cycles(Product(kernel, tile), chip)):
        distinct.setdefault((tile.block_m, tile.block_n, tile.parts), tile)
    return [tile.schedule() for tile in [*distinct.values()][:count]]


def direct(kernel: Kernel, chip: Chip) -> Schedule:
    """The schedule of `metal/weight_gradient_direct.metal`, which takes every kernel.

    Choices: `taps` of a kernel row that a thread sums together; `lanes` of a threadgroup along output channels, `rows`
    along the rest; `parts` as in `Tile`, each the sum of chains of additions of so many `pixels`.
    """
    g = kernel.geometry
    taps = ceil(g.kernel[-1] / ceil(g.kernel[-1] / _TAPS))
    lanes = min(LANES, 1 << (g.out_channels - 1).bit_length())
    threads = prod(g.weight_shape[:-2]) * ceil(g.kernel[-1] / taps) * g.weight_shape[-1]
    pixels = prod(g.out_shape[:-1])
    busy = min(ceil(chip.cores * _THREADS_PER_CORE / threads), ceil(pixels / _LEAST_PIXELS))
    choices = {
        "lanes": lanes,
        "parts": max(ceil(pixels / (_RUN * MAX_CHAIN)), busy),
        "pixels": _RUN,
        "rows": _THREADS // lanes,
        "taps": taps,
    }
    return Schedule(DIRECT, tuple(choices.items()))


def _tiles(kernel: Kernel, chip: Chip) -> Iterator[Tile]:
    """Tiles that fit, each whole and in parts that keep all cores busy."""
    pixels = prod(kernel.geometry.out_shape[:-1])
    for (simdgroups_m, simdgroups_n), tiles_m, tiles_n in product(_GRIDS, (1, 2, 4), (1, 2, 4)):
        tile = _filled(kernel, Tile(simdgroups_m, simdgroups_n, tiles_m, tiles_n, FRAGMENT))
        if tile is None:
            continue
        # The chains of one part would be added up as they are stored, in halves.
        least = 2 if kernel.dtype != "f32" and pixels > MAX_CHAIN else 1
        most = max(least, ceil(pixels / (_LEAST_STEPS * tile.pixels)))
        wanted = chip.cores * chip.threadgroups_per_core(kernel.dtype) * _THREADS / tile.threads
        busy = ceil(wanted / Product(kernel, tile).threadgroups)
        for parts in {least, *(max(least, min(n, most)) for n in (busy, ceil(busy / 2)))}:
            yield replace(tile, parts=parts, chains=ceil(pixels / parts / MAX_CHAIN))


def _filled(kernel: Kernel, tile: Tile) -> Tile | None:
    """The tile with a number of pixels that suits it: all threads bring in as many elements of them."""
    width = Product(kernel, tile).width
    least = max(tile.pixels_apart(tile.block_m, 4), tile.pixels_apart(tile.block_n, width), 2 * FRAGMENT)
    sizes = [Product(kernel, replace(tile, pixels=n)) for n in (64, 32, 16) if n >= least]
    good = [size for size in sizes if size.threadgroup_bytes <= _GOOD_BYTES] or sizes[-1:]
    return good[0].tile if good and good[0].threadgroup_bytes <= THREADGROUP_BYTES else None


def _cycles(of: Product, chip: Chip) -> float:
    """Of both kernels, by the same model as `gemm.cycles`."""
    tile, size = of.tile, DTYPES[of.kernel.dtype]
    sums, blocks = tile.tiles_m * tile.tiles_n, tile.block_m + tile.block_n
    multiply = tile.pixels / FRAGMENT * (sums * MMA_CYCLES + 2 * (tile.tiles_m + tile.tiles_n) * LOAD_CYCLES)
    places = tile.pixels / tile.pixels_apart(tile.block_n, of.width)
    stage = 2.5 * tile.pixels * blocks / tile.threads * LOAD_CYCLES + places * _PLACE_CYCLES
    simdgroup = of.steps * (multiply + stage + 2 * BARRIER_CYCLES) + 4 * tile.chains * sums * LOAD_CYCLES
    read = of.threadgroups * of.steps * tile.pixels * blocks * size / chip.cores / CACHE_BYTES
    total = elapsed(simdgroup, of.threadgroups * tile.simdgroups_m * tile.simdgroups_n, chip) + read
    total += memory_cycles(2 * tile.parts * tile.chains * prod(of.kernel.result_shape) * 4, chip)
    return total + (LAUNCH_CYCLES if tile.parts > 1 else 0)
