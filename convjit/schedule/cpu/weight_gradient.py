"""Schedules of "cpu/weight_gradient.c": a product of matrices whose terms are pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal

from convjit.kernel import Kernel
from convjit.schedule import Schedule
from convjit.schedule.cpu.machine import Machine
from convjit.schedule.cpu.tiles import equal_size, term_cycles
from convjit.schedule.nest import nest

BLOCK_PIXELS = 256
"""Pixels of a block, about: the length of a chain of additions."""

UNITS = 16
"""Pieces of work that threads share, about."""

MOST_SUMS = 8 << 20
"""Bytes of the sums of all parts: beyond that the pixels are not shared out, but the sums."""

Along = Literal["outputs", "inputs", "channels"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """The gradient of a weight, as a kernel cuts it.

    Attributes:
        along: what vectors hold: "outputs", channels of dy; "inputs", neighbouring elements of the input; "channels",
            those of both, in a depthwise kernel.
        vector_extent: how many of them there are in a run.
        factor_extent: how many elements of the other operand a run multiplies them with.
        runs: how many such products there are.
    """

    along: Along
    vector_extent: int
    factor_extent: int
    runs: int


@dataclass(frozen=True, slots=True)
class Tile:
    """Vectors, and what each is multiplied with, that are summed in registers."""

    matrix: Matrix
    vectors: int
    factors: int

    def blocks(self, lanes: int) -> int:
        """Tiles along the vectors of a run."""
        return ceil(self.matrix.vector_extent / lanes / self.vectors)

    def tiles(self, lanes: int) -> int:
        matrix = self.matrix
        return matrix.runs * self.blocks(lanes) * ceil(matrix.factor_extent / self.factors)


def schedule(kernel: Kernel, machine: Machine) -> Schedule:
    """The schedule of "cpu/weight_gradient.c" for a kernel.

    Choices: `along`, what `lanes` of a vector hold, see `Matrix`; `vectors` by `factors` summed in registers;
    `row_block` rows, `column_block` wide, of `segments` planes are a block of pixels; `parts` of the pixels and
    `splits` of the sums are work by themselves.
    """
    return _with_tile(kernel, machine, _best_tiles(kernel, machine)[0])


def candidates(kernel: Kernel, machine: Machine) -> list[Schedule]:
    """The best tile for each number of vectors of each kind."""
    best: dict[tuple[Along, int], Tile] = {}
    for tile in _best_tiles(kernel, machine):
        best.setdefault((tile.matrix.along, tile.vectors), tile)
    return [_with_tile(kernel, machine, tile) for tile in best.values()]


def matrix(kernel: Kernel, along: Along) -> Matrix:
    """The gradient of a kernel's weight, with vectors along one of its axes."""
    geometry, loops = kernel.geometry, nest(kernel)
    groups, (taps_d, taps_h, taps_w) = geometry.window.groups, loops.most_taps
    if along == "channels":
        return Matrix(along, geometry.in_channels, taps_w, taps_d * taps_h)
    merged = is_merged(kernel)
    runs = groups * taps_d * taps_h * (1 if merged else taps_w)
    inputs, outputs = geometry.in_channels // groups * (taps_w if merged else 1), geometry.out_channels // groups
    return Matrix(along, outputs, inputs, runs) if along == "outputs" else Matrix(along, inputs, outputs, runs)


def is_merged(kernel: Kernel) -> bool:
    """Are the taps of a row one run? They lie side by side in memory."""
    return kernel.geometry.window.groups == 1 and nest(kernel).axes[2][0].step == 1


def _with_tile(kernel: Kernel, machine: Machine, tile: Tile) -> Schedule:
    lanes = machine.lanes
    tiles = tile.tiles(lanes)
    sums_bytes = tiles * tile.vectors * tile.factors * lanes * 4
    least_splits = ceil(sums_bytes * 4 / machine.l2_bytes)  # so that those of one stay in the cache
    parts = max(1, min(ceil(UNITS / least_splits), MOST_SUMS // sums_bytes))
    splits = min(tiles, max(least_splits, ceil(UNITS / parts)))
    row_block, column_block, segments = _block(kernel, machine)
    choices: dict[str, int | str] = {
        "along": tile.matrix.along,
        "column_block": column_block,
        "factors": tile.factors,
        "lanes": lanes,
        "parts": parts,
        "row_block": row_block,
        "segments": segments,
        "splits": splits,
        "vectors": tile.vectors,
    }
    return Schedule("cpu/weight_gradient.c", tuple(choices.items()))


def _block(kernel: Kernel, machine: Machine) -> tuple[int, int, int]:
    """Rows, columns and segments of a block of pixels, which should stay in the second-level cache."""
    loops = nest(kernel)
    _, height, width = loops.out_size
    most = machine.l2_bytes * 3 // 8
    columns = equal_size(width, BLOCK_PIXELS)
    while columns > 1 and _bytes(kernel, 1, columns) > most:
        columns = ceil(columns / 2)
    rows = equal_size(height, max(1, BLOCK_PIXELS // columns))
    while rows > 1 and _bytes(kernel, rows, columns) > most:
        rows = ceil(rows / 2)
    if rows < height:
        return rows, columns, 1
    return rows, columns, max(1, min(BLOCK_PIXELS // (rows * columns), most // _bytes(kernel, rows, columns)))


def _bytes(kernel: Kernel, rows: int, columns: int) -> int:
    """Of what a segment reads, as floats."""
    loops, geometry = nest(kernel), kernel.geometry
    _, high, wide = loops.inputs_of_block(rows, columns)
    inputs = loops.most_taps[0] * high * wide * geometry.in_channels
    return 4 * (inputs + rows * columns * geometry.out_channels)


def _best_tiles(kernel: Kernel, machine: Machine) -> list[Tile]:
    """Tiles, from the one that takes the fewest cycles for a pixel."""
    geometry = kernel.geometry
    is_depthwise = geometry.window.groups == geometry.in_channels == geometry.out_channels
    kinds: tuple[Along, ...] = ("channels",) if is_depthwise else ("outputs", "inputs")
    tiles = [tile for along in kinds for tile in _tiles(matrix(kernel, along), machine)]
    return sorted(tiles, key=lambda tile: _cycles(tile, machine.lanes))


def _tiles(of: Matrix, machine: Machine) -> Iterator[Tile]:
    """Tiles that fit into the registers: sums, a register for each vector, a factor, and one to spare."""
    needed = ceil(of.vector_extent / machine.lanes)
    for vectors in range(1, min(needed, 4) + 1):
        for factors in range(1, min(of.factor_extent, (machine.registers - 2 - vectors) // vectors) + 1):
            if factors == equal_size(of.factor_extent, factors):
                yield Tile(of, vectors, factors)


def _cycles(tile: Tile, lanes: int) -> float:
    """Of all tiles for one pixel, in half cycles."""
    of, needed = tile.matrix, ceil(tile.matrix.vector_extent / lanes)

    def of_tile(vectors: int) -> float:
        loads = vectors + tile.factors * (vectors if of.along == "channels" else 1)
        return term_cycles(tile.factors * vectors, vectors, loads)

    full, last = divmod(needed, tile.vectors)
    of_run = full * of_tile(tile.vectors) + (of_tile(last) if last else 0)
    return of.runs * ceil(of.factor_extent / tile.factors) * of_run
