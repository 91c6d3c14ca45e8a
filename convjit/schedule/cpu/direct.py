"""Schedules of "cpu/direct.c", chosen by a small model of what a core can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.nest import Nest, nest
from convjit.schedule.phases import AxisPhase

SMALL_EXTENT = 49
"""The outermost extent is a run-time value. Up to here a schedule may be made for just this one, beyond for a rough
size: 7 x 7 images are common."""

LARGE_EXTENT = 512
"""An outermost extent beyond which the schedule is always the same."""

MAX_CHAIN = 4608
"""Terms in one chain of additions: beyond that, single precision loses digits that a user would miss."""

BLOCK_PIXELS = 1024
"""Outputs of a block, at most: more would leave threads without work."""

UNITS = 32
"""Pieces of work in an image, at least, where there are as many: threads share them."""

MAX_SCRATCH = 6 << 20
"""Bytes of a thread for the copy of a block's input."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows, columns, and vectors of output channels that are summed in registers."""

    rows: int
    columns: int
    vectors: int


def schedule(kernel: Kernel, machine: Machine) -> Schedule:
    """The schedule of "cpu/direct.c" for a kernel.

    Choices: `lanes` of a vector; `vectors` of output channels and `tile_rows` x `tile_columns` outputs summed in
    registers; `row_block` x `column_block` outputs whose input is kept at hand; `splits` of the output channels that
    are work by themselves; `terms` summed before the sums are set aside; `shares_sums`: do threads share them;
    `weights_first`: do neighbouring units have their weights in common, or their input.
    """
    return _with_tile(kernel, machine, _best_tiles(kernel, machine)[0])


def candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """The best tile for each number of vectors."""
    best_of_vectors: dict[int, Tile] = {}
    for tile in _best_tiles(kernel, machine):
        best_of_vectors.setdefault(tile.vectors, tile)
    return [_with_tile(kernel, machine, tile) for tile in best_of_vectors.values()]


def _with_tile(kernel: Kernel, machine: Machine, tile: Tile) -> Schedule:
    loops, geometry = nest(kernel), kernel.geometry
    lanes, groups = machine.lanes, geometry.window.groups
    row_block, column_block = _block(kernel, loops, machine, tile)
    blocks = groups * ceil(geometry.out_channels / groups / lanes / tile.vectors)
    depth, height, width = _outputs(loops)
    places = len(loops.phases) * depth * ceil(height / row_block) * ceil(width / column_block)
    weights = prod(geometry.weight_shape)
    inputs = prod(_rough(n) if axis == loops.outermost else n for axis, n in enumerate(loops.in_size))
    choices = {
        "column_block": column_block,
        "lanes": lanes,
        "row_block": row_block,
        "shares_sums": 0,
        "splits": min(blocks, ceil(UNITS / max(places, 1))),
        "terms": min(MAX_CHAIN, machine.l2_bytes // 2 // (4 * lanes * tile.vectors)),
        "tile_columns": tile.columns,
        "tile_rows": tile.rows,
        "vectors": tile.vectors,
        "weights_first": int(weights > inputs * geometry.in_channels),
    }
    return Schedule("cpu/direct.c", tuple(choices.items()))


def _rough(extent: int) -> int:
    """An outermost extent as schedules see it."""
    if extent <= SMALL_EXTENT:
        return extent
    return min(LARGE_EXTENT, 1 << (extent - 1).bit_length())


def _outputs(loops: Nest) -> tuple[int, int, int]:
    """Outputs along the axes, of the phases that have most of them."""
    depth, height, width = (
        _rough(ceil(out / phases[0].period)) if axis == loops.outermost else ceil(out / phases[0].period)
        for axis, (out, phases) in enumerate(zip(loops.out_size, loops.axes, strict=True))
    )
    return depth, height, width


def _best_tiles(kernel: Kernel, machine: Machine) -> list[Tile]:
    """Tiles, from the one that takes the fewest cycles for all outputs."""
    loops, geometry = nest(kernel), kernel.geometry
    _, height, width = (min(*pair) for pair in zip(loops.least_outputs, _outputs(loops), strict=True))
    needed = ceil(geometry.out_channels / geometry.window.groups / machine.lanes)

    def cycles(tile: Tile) -> float:
        rows, columns = _tiles_along(loops, 1, tile.rows), _tiles_along(loops, 2, tile.columns)
        full, last = divmod(needed, tile.vectors)
        pixels = tile.rows * tile.columns
        of_channels = full * _tile_cycles(pixels, tile.vectors) + (_tile_cycles(pixels, last) if last else 0)
        return rows * columns * of_channels

    return sorted(_tiles(height, width, min(needed, 4), machine.registers), key=cycles)


def _tiles(height: int, width: int, max_vectors: int, registers: int) -> Iterator[Tile]:
    """Tiles that fit into the registers: sums, a weight for each vector, an input element, and one to spare."""
    for vectors in range(1, max_vectors + 1):
        pixels = (registers - 2 - vectors) // vectors
        for columns in range(min(width, pixels), 0, -1):
            for rows in range(1, min(height, pixels // columns) + 1):
                yield Tile(rows, columns, vectors)


def _tiles_along(loops: Nest, axis: int, size: int) -> float:
    """Tiles along an axis in all of its phases, each counted by the share of its taps that meet input."""
    if axis == loops.outermost and loops.out_size[axis] > SMALL_EXTENT:
        return _outputs(loops)[axis] / size + 0.5
    return sum(_tiles_of_phase(phase, loops.in_size[axis], loops.out_size[axis], size) for phase in loops.axes[axis])


def _tiles_of_phase(phase: AxisPhase, extent: int, out: int, size: int) -> float:
    outputs = phase.outputs(out)
    met = 0
    for first in range(0, outputs, size):
        start = min(first, outputs - size) * phase.stride + phase.offset
        reach = (size - 1) * phase.stride
        met += sum(-reach <= start + tap * phase.step < extent for tap in range(len(phase.taps)))
    return met / max(1, len(phase.taps))


def _tile_cycles(pixels: int, vectors: int) -> float:
    """Of one term of a tile: multiply-adds or loads, whichever takes longer, no less than the latency of a sum."""
    loads = pixels + vectors
    return max(pixels * vectors, loads, 8) + 0.2 * loads + 0.8 * vectors + 1.5


def _block(kernel: Kernel, loops: Nest, machine: Machine, tile: Tile) -> tuple[int, int]:
    """Rows and columns of the block of outputs that costs least beside the multiply-adds themselves."""
    geometry = kernel.geometry
    _, height, width = _outputs(loops)
    taps = tuple(max(1, *(len(phase.taps) for phase in phases)) for phases in loops.axes)
    outputs_per_copy = prod(taps) * geometry.out_channels / geometry.window.groups
    input_bytes = machine.l2_bytes * 3 // 8

    def inputs(block: tuple[int, int]) -> int:
        """Elements of the input that a block reads, a channel."""
        extents = [taps[0]]
        for axis, outputs in ((1, block[0]), (2, block[1])):
            phase = loops.axes[axis][0]
            extents.append(min((outputs - 1) * phase.stride + (taps[axis] - 1) * phase.step + 1, outputs * taps[axis]))
        return prod(extents)

    def cost(block: tuple[int, int]) -> float:
        """Of copying the input and of streaming the weights, relative to the multiply-adds."""
        pixels = block[0] * block[1]
        copied = inputs(block) * geometry.in_channels * 4
        excess = max(1.0, copied / input_bytes, pixels / BLOCK_PIXELS, 100 * copied / MAX_SCRATCH - 99)
        return (4 * inputs(block) / outputs_per_copy / pixels if loops.reads_outside else 0) + 3.2 / pixels + (excess - 1)

    return min(
        product(_divisions(loops, 1, height, tile.rows), _divisions(loops, 2, width, tile.columns)), key=cost
    )


def _divisions(loops: Nest, axis: int, extent: int, tile: int) -> list[int]:
    """Block sizes, in whole tiles, that divide an axis into equal blocks, or nearly so."""
    tiles = ceil(extent / tile)
    if axis == loops.outermost and extent > SMALL_EXTENT:
        return [tile << n for n in reversed(range(tiles.bit_length()))]
    return sorted({ceil(tiles / blocks) * tile for blocks in range(1, tiles + 1)}, reverse=True)
