"""Schedules of `metal/gemm.metal` and `metal/stem.metal`: the tile that should take the least time on a chip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from math import ceil, prod

from convjit.kernel import DTYPES, Kernel
from convjit.schedule import Schedule
from convjit.schedule.metal.chip import Chip
from convjit.schedule.metal.cores import (
    BARRIER_CYCLES,
    CACHE_BYTES,
    LAUNCH_CYCLES,
    LOAD_CYCLES,
    MAX_SUMS,
    MMA_CYCLES,
    elapsed,
    memory_cycles,
)
from convjit.schedule.metal.tile import FRAGMENT, Tile, Tiling, fold, foldable, useful
from convjit.schedule.nest import Nest, nest

THREADGROUP_BYTES = 16 << 10
"""The most that a tile takes; half of what Metal allows."""

_GOOD_BYTES = 10 << 10
"""With no more than these, a core has room for six threadgroups."""

MAX_BUFFERS = 31
"""Of a Metal kernel."""

_GRIDS = ((1, 4), (1, 2), (2, 2), (2, 1), (4, 1))
"""Simdgroups of a threadgroup, along pixels and channels."""

_LEAST_SUMS = 4
"""With fewer, a simdgroup reads more than it multiplies; only where there are no more pixels."""

_TILES_M = (1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 16)

_MAX_CHAIN = {"precise": 4608, "fast": 16384, "fastest": 16384}
"""Products of one sum in fp32, at most, by accuracy; longer ones are split into parts."""


def gemm(kernel: Kernel, chip: Chip, count: int = 1) -> list[Schedule]:
    """The best `count` schedules, best first; none if a group has too few channels for matrices, or no sum a term."""
    folded = foldable(kernel)
    kernel = fold(kernel, folded)
    if kernel.geometry.in_channels // kernel.geometry.window.groups < FRAGMENT or not useful(kernel):
        return []
    tilings = [Tiling(kernel, replace(tile, folded=folded)) for tile in _tiles(kernel, chip)]
    return [Schedule("metal/gemm.metal", tile.choices()) for tile in best(tilings, chip, count)]


def stem(kernel: Kernel, chip: Chip, count: int = 1) -> list[Schedule]:
    """Schedules of `metal/stem.metal`: few channels, all of whose taps are in threadgroup memory together."""
    g = kernel.geometry
    if g.in_channels >= FRAGMENT or g.window.groups > 1 or len(nest(kernel).phases) > 1 or not useful(kernel):
        return []
    tilings = (Tiling(kernel, tile, dense=True) for tile in _shapes(kernel, g.in_channels))
    fitting = [t for t in tilings if t.threadgroup_bytes <= THREADGROUP_BYTES]
    return [Schedule("metal/stem.metal", tile.choices()) for tile in best(fitting, chip, count)]


def gather(kernel: Kernel, chip: Chip, count: int = 1) -> list[Schedule]:
    """Schedules of `metal/gather.metal`; none for transposed convolutions."""
    folded = foldable(kernel)
    kernel = fold(kernel, folded)
    group_channels = kernel.geometry.in_channels // kernel.geometry.window.groups
    if group_channels < FRAGMENT or len(nest(kernel).phases) > 1 or not useful(kernel):
        return []
    if prod(kernel.geometry.weight_shape[1:]) > _MAX_CHAIN[kernel.accuracy]:
        return []
    channels = ceil(group_channels / FRAGMENT) * FRAGMENT
    tilings = [
        Tiling(kernel, replace(tile, staged=0, folded=folded))
        for tile in _shapes(kernel, channels)
        if tile.images == 1 and tile.simdgroups_n <= 2
    ]
    return [Schedule("metal/gather.metal", tile.choices()) for tile in best(tilings, chip, count)]


def best(tilings: Iterable[Tiling], chip: Chip, count: int) -> list[Tile]:
    """The tiles that take the least time, each of another size."""
    distinct: dict[tuple[int, int, int, int], Tile] = {}
    for tiling in sorted(tilings, key=lambda tiling: cycles(tiling, chip)):
        tile = tiling.tile
        distinct.setdefault((tile.block_m, tile.block_n, tile.staged, tile.parts), tile)
    return list(distinct.values())[:count]


def _tiles(kernel: Kernel, chip: Chip) -> Iterator[Tile]:
    """Tiles that fit, each with the channels and the staging that suit it."""
    for tile in _shapes(kernel, FRAGMENT):
        yield from _staged(kernel, tile, chip)


def _shapes(kernel: Kernel, channels: int) -> Iterator[Tile]:
    """Simdgroups, matrices and boxes."""
    filters = ceil(kernel.geometry.out_channels // kernel.geometry.window.groups / FRAGMENT)
    pixels = prod(kernel.geometry.out_shape[:-1]) // len(nest(kernel).phases)
    for simdgroups_m, simdgroups_n in _GRIDS:
        for tiles_n in (1, 2, 3, 4):
            if simdgroups_n * tiles_n >= 2 * filters and simdgroups_n * tiles_n > 1:
                continue
            for tiles_m in (n for n in _TILES_M if n * tiles_n <= MAX_SUMS):
                block = FRAGMENT * simdgroups_m * tiles_m
                if tiles_m * tiles_n < _LEAST_SUMS and block < pixels:
                    continue
                for box in _boxes(kernel, block):
                    yield Tile(simdgroups_m, simdgroups_n, tiles_m, tiles_n, channels, *box, staged=3)


@cache
def _boxes(kernel: Kernel, pixels: int) -> list[tuple[int, int, int, int]]:
    """Boxes of so many pixels at most, (images, depth, rows, columns): those that need the fewest threadgroups."""
    loops = nest(kernel)
    # The number of images is one buffer more.
    batch = kernel.geometry.batch if len(kernel.extras) + len(kernel.result_dtypes) + 3 <= MAX_BUFFERS else 1
    extents = zip(loops.axes, loops.out_size, strict=True)
    depth, height, width = (max(p.outputs(out) for p in phases) for phases, out in extents)
    best: dict[int, tuple[int, int, int, int]] = {}
    for columns in _extents(width, pixels):
        for rows in _extents(height, pixels // columns):
            for deep in _extents(depth, pixels // columns // rows):
                whole = (deep, rows, columns) == (depth, height, width)
                images = min(batch, pixels // (deep * rows * columns)) if whole else 1
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
        tilings = [
            Tiling(kernel, replace(tile, channels=min(wide, ceil(channels / FRAGMENT) * FRAGMENT), staged=staged))
            for wide in (32, 16, 8)
        ]
        fitting = [t for t in tilings if t.threadgroup_bytes <= _GOOD_BYTES] or tilings[-1:]
        tiling = fitting[0]
        if tiling.threadgroup_bytes > THREADGROUP_BYTES:
            continue
        yield from _split(tiling, chip)
        if staged == 3 or not any(axis.halo for axis in tiling.axes):
            return


def _split(tiling: Tiling, chip: Chip) -> Iterator[Tile]:
    """The tile whole, and, where threadgroups are few and sums are long, in parts that keep all cores busy."""
    tile = tiling.tile
    terms = tiling.padded_channels * prod(axis.taps for axis in tiling.axes)
    least = min(tiling.channel_steps, ceil(terms / _MAX_CHAIN[tiling.kernel.accuracy]))
    yield replace(tile, parts=_even(tiling.channel_steps, least))
    wanted = chip.cores * 6 // tiling.threadgroups
    pixels = prod(tiling.kernel.geometry.out_shape[:-1])
    if wanted >= 2 and terms >= max(pixels, tiling.kernel.geometry.out_channels, 128):
        parts = _even(tiling.channel_steps, min(wanted, tiling.channel_steps, 32))
        if parts > least:
            yield replace(tile, parts=parts)


def _even(steps: int, parts: int) -> int:
    """As many parts, or fewer, without an empty one."""
    return ceil(steps / ceil(steps / max(parts, 1)))


def cycles(tiling: Tiling, chip: Chip) -> tuple[float, float]:
    """Of the whole kernel, by a model of what simdgroups do and of how many of them run at a time; then, to tell apart
    what memory makes equal, the same without memory. Compares tiles of matrices among themselves: `cost.cost` counts
    neither loads nor barriers of a core, and is 1.3 times below this in most public problems, up to 3.2 times in those
    with few output channels."""
    tile, axes = tiling.tile, tiling.axes
    taps = prod(axis.taps for axis in axes)
    fills = prod(axis.taps for axis in axes if not axis.halo)
    if not tiling.dense:
        fills *= ceil(tiling.channel_steps / tile.parts)
    steps = tiling.terms(taps) / FRAGMENT / tile.parts
    # Rows are read from threadgroup memory, weights from the device.
    loads = (2 * tile.tiles_m + 2 if tiling.dense else tile.tiles_m) + 3 * tile.tiles_n
    multiply = tile.tiles_m * tile.tiles_n * MMA_CYCLES + loads * LOAD_CYCLES
    stage = 2.5 * fills * tiling.positions * tile.channels / tile.threads * LOAD_CYCLES
    extras = sum(e.shape[1:-1] == tiling.kernel.geometry.out_size for e in tiling.kernel.extras)
    finish = (1 + extras) * 2 * tile.tiles_m * tile.tiles_n * LOAD_CYCLES
    simdgroup = steps * multiply + stage + 2 * fills * BARRIER_CYCLES + finish
    elements = fills * tiling.positions * tile.channels + steps * FRAGMENT * tile.simdgroups_m * tile.block_n
    read = elements * tiling.threadgroups * DTYPES[tiling.kernel.dtype] / chip.cores / CACHE_BYTES
    total = elapsed(simdgroup, tiling.threadgroups * tile.simdgroups_m * tile.simdgroups_n, chip) + read
    if tile.parts > 1:
        sums = prod(tiling.kernel.geometry.out_shape) * (tile.parts + 1) * 4
        total += LAUNCH_CYCLES + memory_cycles(sums, chip)
    wasted = max(0.0, 0.87 - useful(tiling.kernel) / tiling.issued)
    total *= 1 + 2 * wasted
    return max(total, memory_cycles(_bytes(tiling) / 0.8, chip)), total


def _bytes(tiling: Tiling) -> int:
    """Device bytes that cannot be avoided: input, weights and output once."""
    g, size = tiling.kernel.geometry, DTYPES[tiling.kernel.dtype]
    return size * (prod(g.in_shape) + prod(g.weight_shape) + prod(g.out_shape))
