"""Schedules of `metal/gemm.metal`: the tile that should take the least time on a chip."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import ceil, prod

from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import Chip
from convjit.schedule.metal.tile import FRAGMENT, Tile, Tiling, useful
from convjit.schedule.nest import Nest, nest

THREADGROUP_BYTES = 16 << 10
"""The most that a tile takes; half of what Metal allows."""

MAX_SUMS = 16
"""Matrices that a simdgroup sums: two registers a lane each."""

_GRIDS = ((1, 4), (1, 2), (2, 2), (2, 1), (4, 1))
"""Simdgroups of a threadgroup, along pixels and channels."""

_MMA_CYCLES, _LOAD_CYCLES, _BARRIER_CYCLES = 18, 4, 40
"""Of a simdgroup: one 8x8x8 multiply-accumulate (P. Turner, metal-benchmarks), one load of all lanes, one barrier."""

_MAX_CHAIN = 16384
"""Products of one sum in fp32, at most; longer ones are split into parts."""


def gemm(kernel: Kernel, chip: Chip, count: int = 1) -> list[Schedule]:
    """The best `count` schedules, best first; none if a group has too few channels for matrices."""
    groups = kernel.geometry.window.groups
    if kernel.geometry.in_channels // groups < FRAGMENT:
        return []
    tiles = sorted(_tiles(kernel, chip), key=lambda tile: _cycles(Tiling(kernel, tile), chip))
    distinct: dict[tuple[int, int, int, int], Tile] = {}
    for tile in tiles:
        distinct.setdefault((tile.block_m, tile.block_n, tile.staged, tile.parts), tile)
    return [Schedule("metal/gemm.metal", tile.choices()) for tile in list(distinct.values())[:count]]


def _tiles(kernel: Kernel, chip: Chip) -> Iterator[Tile]:
    """Tiles that fit, each with the box, channels and staging that suit it."""
    filters = ceil(kernel.geometry.out_channels // kernel.geometry.window.groups / FRAGMENT)
    for simdgroups_m, simdgroups_n in _GRIDS:
        for tiles_n in (1, 2, 4):
            if simdgroups_n * tiles_n >= 2 * filters and simdgroups_n * tiles_n > 1:
                continue
            for tiles_m in range(1, MAX_SUMS // tiles_n + 1):
                block = FRAGMENT * simdgroups_m * tiles_m
                for box in _boxes(kernel, block):
                    tile = Tile(simdgroups_m, simdgroups_n, tiles_m, tiles_n, FRAGMENT, *box, staged=3)
                    yield from _staged(kernel, tile, chip)


@cache
def _boxes(kernel: Kernel, pixels: int) -> list[tuple[int, int, int, int]]:
    """Boxes of so many pixels at most, (images, depth, rows, columns): those that need the fewest threadgroups."""
    loops = nest(kernel)
    depth, height, width = (max(sizes) for sizes in zip(*(loops.outputs(p) for p in loops.phases), strict=True))
    best: dict[int, tuple[int, int, int, int]] = {}
    for columns in _extents(width, pixels):
        for rows in _extents(height, pixels // columns):
            for deep in _extents(depth, pixels // columns // rows):
                whole = (deep, rows, columns) == (depth, height, width)
                images = min(kernel.geometry.batch, pixels // (deep * rows * columns)) if whole else 1
                box = (images, deep, rows, columns)
                needed = ceil(kernel.geometry.batch / images) * ceil(depth / deep) * ceil(height / rows)
                needed *= ceil(width / columns)
                if needed not in best or _surface(loops, box) < _surface(loops, best[needed]):
                    best[needed] = box
    return [best[needed] for needed in sorted(best)[:2]]


def _extents(extent: int, most: int) -> list[int]:
    """Sizes up to `most` that divide an axis into nearly equal boxes."""
    most = min(extent, most)
    powers = [1 << n for n in range(most.bit_length())]
    even = [ceil(extent / n) for n in range(ceil(extent / most), min(extent, ceil(extent / most) + 4) + 1)]
    return sorted({*(p for p in powers if p >= most // 16), *(e for e in even if e <= most), most})


def _surface(loops: Nest, box: tuple[int, int, int, int]) -> int:
    """Input positions that a box reads with the halo of all taps."""
    spans = [max(p.span for p in phases) for phases in loops.axes]
    strides = [phases[0].stride for phases in loops.axes]
    return box[0] * prod((n - 1) * s + max(k, 1) for n, s, k in zip(box[1:], strides, spans, strict=True))


def _staged(kernel: Kernel, tile: Tile, chip: Chip) -> Iterator[Tile]:
    """The tile with as much of the taps staged as fits, and with channels and parts."""
    channels = kernel.geometry.in_channels // kernel.geometry.window.groups
    for staged in (3, 2, 1, 0):
        for wide in (32, 16, 8):
            fitted = _replace(tile, channels=min(wide, ceil(channels / FRAGMENT) * FRAGMENT), staged=staged)
            tiling = Tiling(kernel, fitted)
            if tiling.threadgroup_bytes <= THREADGROUP_BYTES:
                yield from _split(tiling, chip)
                break
        else:
            continue
        if staged == 3 or not any(axis.halo for axis in tiling.axes):
            return


def _split(tiling: Tiling, chip: Chip) -> Iterator[Tile]:
    """The tile whole, and, where threadgroups are few and sums are long, in parts that keep all cores busy."""
    tile = tiling.tile
    terms = tiling.padded_channels * prod(axis.taps for axis in tiling.axes)
    least = min(tiling.channel_steps, ceil(terms / _MAX_CHAIN))
    yield _replace(tile, parts=_even(tiling.channel_steps, least))
    wanted = chip.cores * 6 // tiling.threadgroups
    pixels = prod(tiling.kernel.geometry.out_shape[:-1])
    if wanted >= 2 and terms >= max(pixels, tiling.kernel.geometry.out_channels, 128):
        parts = _even(tiling.channel_steps, min(wanted, tiling.channel_steps, 32))
        if parts > least:
            yield _replace(tile, parts=parts)


def _even(steps: int, parts: int) -> int:
    """As many parts, or fewer, without an empty one."""
    return ceil(steps / ceil(steps / max(parts, 1)))


def _replace(tile: Tile, **choices: int) -> Tile:
    return Tile(**{**dict(tile.choices()), **choices})


def _cycles(tiling: Tiling, chip: Chip) -> float:
    """Of the whole kernel: a model of what simdgroups do, and of how many of them run at a time."""
    tile, axes = tiling.tile, tiling.axes
    taps = prod(axis.taps for axis in axes)
    fills = prod(axis.taps for axis in axes if not axis.halo)
    channels = min(tiling.channels_of_part, tiling.padded_channels)
    steps = taps * channels // FRAGMENT
    multiply = tile.tiles_m * tile.tiles_n * _MMA_CYCLES + (tile.tiles_m + 2 * tile.tiles_n) * _LOAD_CYCLES
    elements = ceil(channels / tile.channels) * fills * tiling.positions * tile.channels
    stage = 2.5 * elements / tile.threads * _LOAD_CYCLES
    barriers = 2 * ceil(channels / tile.channels) * fills * _BARRIER_CYCLES
    extras = sum(e.shape[1:-1] == tiling.kernel.geometry.out_size for e in tiling.kernel.extras)
    finish = (1 + extras) * 2 * tile.tiles_m * tile.tiles_n * _LOAD_CYCLES
    simdgroup = steps * multiply + stage + barriers + finish
    # A core runs 4 simdgroups at a time, and needs some more of them to have work while others wait for memory.
    in_flight = tiling.threadgroups * tile.simdgroups_m * tile.simdgroups_n / (4 * chip.cores)
    cycles = simdgroup * max(in_flight, 2.0, ceil(in_flight) if in_flight < 8 else 0.0)
    if tile.parts > 1:
        sums = prod(tiling.kernel.geometry.out_shape) * (tile.parts + 1) * 4
        cycles += 3000 + sums / (chip.gigabytes_per_second / 1.3)
    return max(cycles, _bytes(tiling) / (0.8 * chip.gigabytes_per_second / 1.3))


def _bytes(tiling: Tiling) -> int:
    """Device bytes that cannot be avoided: input, weights and output once."""
    g, size = tiling.kernel.geometry, DTYPES[tiling.kernel.dtype]
    return size * (prod(g.in_shape) + prod(g.weight_shape) + prod(g.out_shape))


def efficiency(kernel: Kernel, schedule: Schedule) -> float:
    """Useful / issued multiply-adds."""
    return useful(kernel) / Tiling(kernel, Tile.of(schedule)).issued
