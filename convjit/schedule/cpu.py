"""Schedules of CPU kernels, chosen by a small model of what a core can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from math import ceil, prod

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.nest import Nest, nest

INPUT_BYTES = 384 << 10
"""Of the input that a block of outputs reads: it stays in the second-level cache while the weights stream by."""

BLOCK_PIXELS = 1024
"""Outputs of a block, at most: more would leave threads without work."""


MAX_EDGES = 8
"""Functions of their own for the tiles at the edges of a depthwise kernel's rows."""

MAX_SPAN = 96
"""Input columns of a depthwise tile: its code is unrolled over them."""

Tile = tuple[int, int, int]
"""Rows, columns, and vectors of output channels that are summed in registers."""


def choose(kernel: Kernel, lanes: int, registers: int) -> Schedule:
    """The schedule of a kernel, for vectors of so many lanes in so many registers."""
    return depthwise(kernel, lanes, registers) or direct(kernel, lanes, registers)


def candidates(kernel: Kernel, lanes: int, registers: int) -> list[Schedule]:
    """Schedules worth measuring, that of `choose` first: the best tile for each number of vectors."""
    best = choose(kernel, lanes, registers)
    best_of_vectors: dict[int, Tile] = {}
    for tile in _best_tiles(kernel, lanes, registers):
        best_of_vectors.setdefault(tile[2], tile)
    others = (_direct(kernel, lanes, tile) for tile in best_of_vectors.values())
    return [best, *(schedule for schedule in others if schedule != best)]


def direct(kernel: Kernel, lanes: int, registers: int) -> Schedule:
    """The schedule of "cpu/direct.c" for a kernel.

    Choices: `lanes` of a vector; `vectors` of output channels and `tile_rows` x `tile_columns` outputs summed in
    registers; `row_block` x `column_block` outputs whose input is kept at hand.
    """
    return _direct(kernel, lanes, _best_tiles(kernel, lanes, registers)[0])


def _direct(kernel: Kernel, lanes: int, tile: Tile) -> Schedule:
    tile_rows, tile_columns, vectors = tile
    row_block, column_block = _block(kernel, nest(kernel), tile_rows, tile_columns)
    return Schedule(
        "cpu/direct.c",
        (
            ("column_block", column_block),
            ("lanes", lanes),
            ("row_block", row_block),
            ("tile_columns", tile_columns),
            ("tile_rows", tile_rows),
            ("vectors", vectors),
        ),
    )


def _best_tiles(kernel: Kernel, lanes: int, registers: int) -> list[Tile]:
    """Tiles, from the one that takes the fewest cycles for all outputs."""
    _, height, width = nest(kernel).least_outputs
    needed = ceil(kernel.geometry.out_channels / kernel.geometry.window.groups / lanes)

    def cycles(tile: Tile) -> float:
        rows, columns, vectors = tile
        tiles = ceil(height / rows) * ceil(width / columns)
        full, last = divmod(needed, vectors)
        return tiles * (
            full * _tile_cycles(rows * columns, vectors) + (_tile_cycles(rows * columns, last) if last else 0)
        )

    return sorted(_tiles(height, width, min(needed, 4), registers), key=cycles)


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


def depthwise(kernel: Kernel, lanes: int, registers: int) -> Schedule | None:
    """The schedule of "cpu/depthwise.c" for a kernel, None if it is not that kind of kernel.

    Choices: `lanes` of a vector; `tile_columns` outputs of a row summed in registers; `taps` of a row whose weights
    are in registers; `row_block` rows by `vector_block` vectors of channels done one after the other.
    """
    geometry = kernel.geometry
    loops = nest(kernel)
    if not geometry.in_channels == geometry.out_channels == geometry.window.groups or len(loops.phases) != 1:
        return None
    *_, axis = loops.phases[0]
    taps = ceil(len(axis.taps) / ceil(len(axis.taps) / 7))
    width = loops.out_size[2]
    tile_columns = ceil(width / ceil(width / min(14, registers - 2 - taps)))
    if (tile_columns - 1) * axis.stride + axis.span > MAX_SPAN or len(depthwise_edges(loops, tile_columns)) > MAX_EDGES:
        return None
    return Schedule(
        "cpu/depthwise.c",
        (
            ("lanes", lanes),
            ("row_block", ceil(loops.out_size[1] / ceil(loops.out_size[1] / 8))),
            ("taps", taps),
            ("tile_columns", tile_columns),
            ("vector_block", 4),
        ),
    )


def depthwise_edges(loops: Nest, tile_columns: int) -> list[tuple[int, int]]:
    """The first input column of a tile that exists and the first beyond it that does not, for all tiles of a row:
    each pair once, that of the most tiles first."""
    *_, axis = loops.phases[0]
    span = (tile_columns - 1) * axis.stride + axis.span
    pairs: Counter[tuple[int, int]] = Counter()
    for first in range(0, loops.out_size[2], tile_columns):
        start = min(first, loops.out_size[2] - tile_columns) * axis.stride + axis.offset
        pairs[min(max(-start, 0), span), min(max(loops.in_size[2] - start, 0), span)] += 1
    return [pair for pair, _ in pairs.most_common()]
