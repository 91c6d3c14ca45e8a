"""Schedules of "cpu/direct.c", chosen by a small model of what a core can do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import ceil, prod

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.nest import Nest, nest

INPUT_BYTES = 384 << 10
"""Of the input that a block of outputs reads: it stays in the second-level cache while the weights stream by."""

BLOCK_PIXELS = 1024
"""Outputs of a block, at most: more would leave threads without work."""

UNITS = 32
"""Pieces of work in an image, at least, where there are as many: threads share them."""

Tile = tuple[int, int, int]
"""Rows, columns, and vectors of output channels that are summed in registers."""


def schedule(kernel: Kernel, machine: Machine) -> Schedule:
    """The schedule of "cpu/direct.c" for a kernel.

    Choices: `lanes` of a vector; `vectors` of output channels and `tile_rows` x `tile_columns` outputs summed in
    registers; `row_block` x `column_block` outputs whose input is kept at hand; `splits` of the output channels that
    are work by themselves.
    """
    return _with_tile(kernel, machine.lanes, _best_tiles(kernel, machine)[0])


def candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """The best tile for each number of vectors."""
    best_of_vectors: dict[int, Tile] = {}
    for tile in _best_tiles(kernel, machine):
        best_of_vectors.setdefault(tile[2], tile)
    return [_with_tile(kernel, machine.lanes, tile) for tile in best_of_vectors.values()]


def _with_tile(kernel: Kernel, lanes: int, tile: Tile) -> Schedule:
    tile_rows, tile_columns, vectors = tile
    loops, window = nest(kernel), kernel.geometry.window
    row_block, column_block = _block(kernel, loops, tile_rows, tile_columns)
    blocks = window.groups * ceil(kernel.geometry.out_channels / window.groups / lanes / vectors)
    units = sum(
        depth * ceil(height / row_block) * ceil(width / column_block)
        for depth, height, width in map(loops.outputs, loops.phases)
    )
    return Schedule(
        "cpu/direct.c",
        (
            ("column_block", column_block),
            ("lanes", lanes),
            ("row_block", row_block),
            ("splits", min(blocks, ceil(UNITS / max(units, 1)))),
            ("tile_columns", tile_columns),
            ("tile_rows", tile_rows),
            ("vectors", vectors),
        ),
    )


def _best_tiles(kernel: Kernel, machine: Machine) -> list[Tile]:
    """Tiles, from the one that takes the fewest cycles for all outputs."""
    _, height, width = nest(kernel).least_outputs
    needed = ceil(kernel.geometry.out_channels / kernel.geometry.window.groups / machine.lanes)

    def cycles(tile: Tile) -> float:
        rows, columns, vectors = tile
        tiles = ceil(height / rows) * ceil(width / columns)
        full, last = divmod(needed, vectors)
        return tiles * (
            full * _tile_cycles(rows * columns, vectors) + (_tile_cycles(rows * columns, last) if last else 0)
        )

    return sorted(_tiles(height, width, min(needed, 4), machine.registers), key=cycles)


def _tiles(height: int, width: int, max_vectors: int, registers: int) -> Iterator[Tile]:
    """Tiles that fit into the registers: sums, a weight for each vector, an input element, and one to spare."""
    for vectors in range(1, max_vectors + 1):
        pixels = (registers - 2 - vectors) // vectors
        for columns in range(min(width, pixels), 0, -1):
            for rows in range(1, min(height, pixels // columns) + 1):
                yield rows, columns, vectors


def _tile_cycles(pixels: int, vectors: int) -> float:
    """Of one term of a tile: multiply-adds or loads, whichever takes longer, no less than the latency of a sum."""
    loads = pixels + vectors
    return max(pixels * vectors, loads, 8) + 0.2 * loads + 0.8 * vectors + 1.5


def _block(kernel: Kernel, loops: Nest, tile_rows: int, tile_columns: int) -> tuple[int, int]:
    """Rows and columns of the block of outputs that costs least beside the multiply-adds themselves."""
    geometry = kernel.geometry
    _, height, width = (max(sizes) for sizes in zip(*(loops.outputs(p) for p in loops.phases), strict=True))
    deep, high, wide = (max(axis.span for axis in axes) for axes in zip(*loops.phases, strict=True))
    _, stride_h, stride_w = (axis.stride for axis in loops.phases[0])
    outputs_per_copy = prod(geometry.kernel) * geometry.out_channels / geometry.window.groups
    copies = loops.reads_outside

    def inputs(block: tuple[int, int]) -> int:
        rows, columns = block
        return max(deep, 1) * ((rows - 1) * stride_h + max(high, 1)) * ((columns - 1) * stride_w + max(wide, 1))

    def cost(block: tuple[int, int]) -> float:
        """Of copying the input and of streaming the weights, relative to the multiply-adds."""
        pixels = block[0] * block[1]
        excess = max(1.0, inputs(block) * geometry.in_channels * 4 / INPUT_BYTES, pixels / BLOCK_PIXELS)
        return (4 * inputs(block) / outputs_per_copy / pixels if copies else 0) + 3.2 / pixels + (excess - 1)

    return min(product(_divisions(height, tile_rows), _divisions(width, tile_columns)), key=cost)


def _divisions(extent: int, tile: int) -> list[int]:
    """Block sizes that divide an axis into equal blocks of whole tiles."""
    tiles = ceil(extent / tile)
    return sorted({ceil(tiles / blocks) * tile for blocks in range(1, tiles + 1)}, reverse=True)
