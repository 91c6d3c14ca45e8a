"""Schedules of "cpu/depthwise.c": depthwise convolutions, and grouped ones whose vectors span groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil, prod

from convjit.geometry import Geometry
from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.cpu.tiles import equal_size
from convjit.schedule.nest import Nest, nest

MAX_EDGES = 6
"""Functions of their own for the tiles at the edges of a row, where nothing is copied."""

MAX_TAPS = 8
"""Taps of a row whose weights are in registers at a time. Without copies, code is unrolled over all taps of a row."""

MAX_SPAN = 64
"""Input columns of a tile that code may be unrolled over."""

UNITS = 16
"""Pieces of work in an image, at least, where there are as many."""

BLOCK_ROWS = 8
"""Rows of outputs that are done together."""

LEAST_VECTORS = 2
"""Of channels that are done together, where there are as many: lines of the cache side by side come sooner."""

COPIED_TILES = 8
"""Tiles of a block whose input is copied, where images have one row: a copy begins and ends with inputs that its
neighbours copy, too."""

ROLLED_KERNELS = 4
"""Heights of the kernel that a block has rows, where it copies each row once: its first and last rows are copied by its
neighbours, too."""

ROLLED_INPUT = 6
"""What it costs to copy a vector of a row, in vectors of a half type that are converted where they are read."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What is summed in registers: outputs, and taps of a row at a time."""

    rows: int
    columns: int
    taps: int


def schedule(kernel: Kernel, machine: Machine) -> Schedule | None:
    """The schedule of "cpu/depthwise.c" for a kernel, None if it is not that kind of kernel.

    Choices: `lanes` of a vector; `tile_rows` x `tile_columns` outputs summed in registers, through `taps` of a row at a
    time; blocks of `row_block` x `column_block` outputs by `vector_block` vectors of channels; `copies`: whether the
    input of a block is copied first; `rolls`: row by row, each when the first row of outputs needs it.
    """
    return next(iter(candidates(kernel, machine)), None)


def candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """The best one first."""
    lanes = _lanes(kernel.geometry, machine.lanes)
    if lanes is None:
        return []
    loops = nest(kernel)
    tiles = _tiles(loops, machine.registers)
    in_place = [tile for tile in tiles if _unrolls(loops, tile)]
    found = [_schedule(lanes, tile, _block(kernel, machine, lanes, tile, copies=False), copies=0) for tile in in_place]
    copying = [_schedule(lanes, tile, _block(kernel, machine, lanes, tile, copies=True), copies=1) for tile in tiles]
    found = found + copying[:1] if found else copying
    rolling = _rolling(kernel, machine, lanes, tiles[0])
    return [rolling, *found] if rolling else found


def _lanes(geometry: Geometry, most: int) -> int | None:
    """The lanes of the longest vectors that find all their channels in one vector of the input; None if there are none,
    or if groups have so many outputs that a vector needs only one of them."""
    groups = geometry.window.groups
    lanes = most
    while lanes > 4 and lanes > min(geometry.in_channels, geometry.out_channels):
        lanes //= 2
    last = geometry.in_channels // groups - 1
    fits = all(max(first) + last < used_lanes(geometry, lanes) for first in windows(geometry, lanes))
    return lanes if groups > 1 and geometry.out_channels // groups < lanes and fits else None


def used_lanes(geometry: Geometry, lanes: int) -> int:
    """All lanes, unless there are fewer channels."""
    return min(lanes, geometry.in_channels, geometry.out_channels)


def windows(geometry: Geometry, lanes: int) -> list[tuple[int, ...]]:
    """For each vector of outputs, the first channel of each lane's group, counted from the first that is loaded."""
    groups, used = geometry.window.groups, used_lanes(geometry, lanes)
    group_channels, group_outputs = geometry.in_channels // groups, geometry.out_channels // groups
    found: list[tuple[int, ...]] = []
    for vector in range(ceil(geometry.out_channels / used)):
        first = min(vector * used, geometry.out_channels - used)
        loaded = min(first // group_outputs * group_channels, geometry.in_channels - used)
        outputs = (min(first + lane, geometry.out_channels - 1) for lane in range(lanes))
        found.append(tuple(output // group_outputs * group_channels - loaded for output in outputs))
    return found


def _tiles(loops: Nest, registers: int) -> list[Tile]:
    """Tiles that fit into the registers: sums, weights, an input vector, and one to spare; the best one first."""
    _, height_axes, width_axes = loops.axes
    _, height, width = loops.least_outputs
    longest = loops.most_taps[2]
    taps = equal_size(longest, MAX_TAPS)
    stride = width_axes[0].stride
    tiles = [
        Tile(1, equal_size(width, min(columns, registers - 2 - taps)), taps)
        for columns in ((14, 7) if stride == 1 else (7, 14))
    ]
    taps_h = {len(axis.taps) for axis in height_axes}
    columns = min(8, (registers - 2 - 2 * taps) // 2)
    shares_rows = len(taps_h) == 1 and height_axes[0].stride == 1 and max(axis.step for axis in height_axes) == 1
    if shares_rows and 1 < min(taps_h) <= 3 >= longest and height > 1 and columns >= 6:
        tiles.insert(0, Tile(2, equal_size(width, columns), taps))
    return list(dict.fromkeys(tiles))


def _unrolls(loops: Nest, tile: Tile) -> bool:
    """Is a tile's code short without a copy of its input?"""
    axes = loops.axes[2]
    return (
        max(len(axis.taps) for axis in axes) <= MAX_TAPS
        and (tile.columns - 1) * axes[0].stride + max(axis.span for axis in axes) <= MAX_SPAN
        and len(edges(loops, tile.columns, copies=False)) <= MAX_EDGES
    )


def _schedule(lanes: int, tile: Tile, block: tuple[int, int, int], **copying: int) -> Schedule:
    row_block, column_block, vector_block = block
    choices = {
        "column_block": column_block,
        "lanes": lanes,
        "row_block": row_block,
        "taps": tile.taps,
        "tile_columns": tile.columns,
        "tile_rows": tile.rows,
        "vector_block": vector_block,
    }
    return Schedule("cpu/depthwise.c", tuple(sorted({**choices, **copying}.items())))


def _block(kernel: Kernel, machine: Machine, lanes: int, tile: Tile, copies: bool) -> tuple[int, int, int]:
    """Rows, columns and vectors that are done together: what they read again should still be at hand."""
    loops = nest(kernel)
    depth, height, width = (
        max(axis.outputs(extent) for axis in axes) for axes, extent in zip(loops.axes, loops.out_size, strict=True)
    )
    vectors = ceil(kernel.geometry.out_channels / used_lanes(kernel.geometry, lanes))
    rows = _tiled(height, tile.rows, height if height <= 2 * BLOCK_ROWS else BLOCK_ROWS)
    most_columns = COPIED_TILES * tile.columns if copies else max(tile.columns, width // (2 * UNITS))
    columns = _tiled(width, tile.columns, width if height > 1 else most_columns)

    def copy_bytes(rows: int, columns: int) -> int:
        return 4 * lanes * prod(loops.inputs_of_block(rows, columns))

    if copies:
        room = (
            machine.l1_bytes // 2
            if copy_bytes(tile.rows, tile.columns) < machine.l1_bytes // 4
            else machine.l2_bytes // 4
        )
        while columns > tile.columns and copy_bytes(rows, columns) > room:
            columns = _tiled(width, tile.columns, columns // 2)
        while rows > tile.rows and copy_bytes(rows, columns) > room:
            rows = _tiled(height, tile.rows, rows // 2)
        return rows, columns, max(1, min(vectors, 4, room // copy_bytes(rows, columns)))
    at_hand = machine.l1_bytes // 2 // copy_bytes(tile.rows, tile.columns)
    together = max(1, min(vectors, at_hand if height > 1 else vectors))

    others = depth * ceil(width / columns) * ceil(vectors / together)
    if ceil(height / rows) * others < UNITS:
        share = ceil(height / tile.rows) // ceil(UNITS / others)
        rows = _tiled(height, tile.rows, max(2, share) * tile.rows)
    places = depth * ceil(height / rows) * ceil(width / columns)
    while places * ceil(vectors / together) < UNITS and together > LEAST_VECTORS:
        together = ceil(together / 2)
    return rows, columns, together


def _rolling(kernel: Kernel, machine: Machine, lanes: int, tile: Tile) -> Schedule | None:
    """Each row of the input copied once for a block; None if that takes longer than converting what each tile reads.

    Tiles of the same row hide the latency of its copy.
    """
    loops = nest(kernel)
    _, height, width = loops.out_size
    is_plain = loops.outermost == 1 and len(loops.phases) == 1
    if kernel.dtype == "f32" or not is_plain or tile.rows > 1 or width < 2 * tile.columns:
        return None
    taps_h = loops.most_taps[1]
    rows, columns = equal_size(height, ROLLED_KERNELS * taps_h), width
    while columns > tile.columns and 4 * lanes * prod(loops.inputs_of_block(1, columns)) > machine.l1_bytes * 3 // 4:
        columns = _tiled(width, tile.columns, columns // 2)
    _, high, wide = loops.inputs_of_block(rows, columns)
    copied = min(high, loops.in_size[1]) * wide / (rows * columns)
    converted = taps_h * loops.inputs_of_block(1, tile.columns)[2] / tile.columns
    if copied * ROLLED_INPUT > converted:
        return None
    return _schedule(lanes, tile, (rows, columns, 1), copies=1, rolls=1)


def _tiled(extent: int, tile: int, most: int) -> int:
    """The size of equal blocks of whole tiles, of at most so many outputs unless a tile has more."""
    tiles = ceil(extent / tile)
    return equal_size(tiles, tiles if most >= extent else max(1, most // tile)) * tile


def edges(loops: Nest, tile_columns: int, copies: bool) -> list[tuple[int, int, int]]:
    """The taps of a row, the first input column of a tile that exists and the first beyond it that does not, for all
    tiles of all phases: each triple once, that of the most tiles first. In a copy all columns exist."""
    found: Counter[tuple[int, int, int]] = Counter()
    for axis in loops.axes[2]:
        outputs = axis.outputs(loops.out_size[2])
        span = (tile_columns - 1) * axis.stride + axis.span if axis.taps else 0
        for first in range(0, outputs, tile_columns):
            start = min(first, outputs - tile_columns) * axis.stride + axis.offset
            left, right = (
                (0, span) if copies else (min(max(-start, 0), span), min(max(loops.in_size[2] - start, 0), span))
            )
            found[len(axis.taps), left, right] += 1
    return [edge for edge, _ in found.most_common()]
